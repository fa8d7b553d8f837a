"""Looking at the own server from outside, as a client does: what it shows, and whether that is what was configured.

Nothing of the server's own code for TLS and protocols is used: a probe must not share the fault that it looks for.
Sockets block; this is for the administrator's command.
"""
