"""Connections to the next hop of submission.

`wiring` gives the dialer to the SMTP session as an interface; `smtp/hop.py` speaks the protocol. Begin with `dialer.py`.
"""
