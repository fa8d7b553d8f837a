"""OpenSSL contexts and what is decided inside a handshake: SNI, settings, ALPN, client certificates.

`tls.serving` builds contexts with it, `net` connects with them. Begin with `contexts.py`, which chooses by server name;
all private names of pyOpenSSL and Twisted that a handshake needs are in `handshake.py`.
"""
