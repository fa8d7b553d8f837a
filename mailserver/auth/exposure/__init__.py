"""Passwords that a client sent before TLS: checked later, recorded until they are changed.

`auth/service.py` reports them; `net/admin/exposures.py` keeps the record. Begin with `exposure.py`.
"""
