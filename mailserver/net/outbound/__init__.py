"""Connections to other servers: the next hop of submission, the hops of the queue, and resolvers.

`dialer` connects to the next hop; `wiring` gives it to SMTP sessions as an interface, and `smtp/hop.py` speaks the protocol.
For the queue, `mx_hosts` finds the places of a way, `hop_connector` opens sessions there, and `hop_pool` keeps them. No server
uses these yet. `dns_exchange` carries questions to resolvers.
"""
