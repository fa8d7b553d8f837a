"""OpenSSL contexts and what is decided inside a handshake: SNI, settings, ALPN, client certificates.

`tls.serving` builds contexts with it, `net` connects with them. Begin with `contexts.py`, which chooses by server name;
the private names of pyOpenSSL that a handshake needs are in `private_names.py` alone.
"""
