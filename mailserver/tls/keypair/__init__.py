"""A certificate with its chain and key: read from files, validated, kept as octets.

Everything in `tls` uses it, and so do `cli` and `net`. It knows neither host name policy nor OpenSSL contexts. Begin with `pair.py`.
"""
