"""Passwords that a client sent before TLS: checked later, recorded until the user changes them.

`auth/service.py` submits them to `checker.py`; `net/admin/exposures.py` keeps the record. Begin with `checker.py`.
"""
