"""Connections to the next hop of submission.

`wiring` gives `NextHopDialer` to SMTP sessions as an interface; `smtp/hop.py` speaks the protocol. Begin with `dialer.py`.
"""
