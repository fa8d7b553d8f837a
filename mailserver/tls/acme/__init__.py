"""Certificates from an ACME authority (RFC 8555): when to order, the order itself, the child process that connects.

`net/certificates/acme.py` runs it. Keys are used in the parent (`order.py`, `jws.py`); the child (`client.py`) sees none.
Begin with `schedule.py`, which decides what is due.
"""
