"""SASL mechanisms (RFC 4422) without I/O: each takes the client's messages and returns challenges or a claim to verify.

`session.sasl_exchange` drives them, `auth` verifies their claims. Begin with `mechanism.py`; `registry.py` lists them.
"""
