"""Certificates from an ACME authority (RFC 8555): the schedule, orders, and the child process that connects.

`net/certificates/acme.py` runs it. The parent process uses the keys (`order.py`, `jws.py`); the child (`client.py`) reads none.
Begin with `schedule.py`, which decides when each certificate is due.
"""
