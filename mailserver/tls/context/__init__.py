"""OpenSSL contexts and decisions inside a handshake: SNI, settings, ALPN, client certificates.

`tls.serving` builds contexts with it, `net` makes connections with them. Begin with `context_map.py`,
which chooses by server name; the private names of pyOpenSSL that a handshake needs are in `private_names.py` alone.
"""
