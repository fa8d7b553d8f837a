"""Transports of public interfaces alone: TCP and Unix sockets, and TLS on any transport.

`net.connection` and `net.outbound` use the TLS layer, `net.listeners` the ports. Begin with `stock.py`, which has the two that a
listener needs; `net.fast` has faster ones and chooses between both.
"""
