"""Tests of this server's listeners from outside, as clients see them, compared with the configuration.

`cli/tls.py` runs it, with blocking sockets. It shares no code for TLS or protocols with the server: a probe must not share
the fault that it looks for. Begin with `examine.py`.
"""
