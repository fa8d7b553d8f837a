"""A certificate with its chain and key: read from files, checked, kept as octets.

Everything in `tls` uses it, and so do `cli` and `net`. It knows no host name policy and no OpenSSL context. Begin with `pair.py`.
"""
