"""DKIM signatures (RFC 6376, RFC 8463, RFC 8301): canonical forms, signing, verification, keys and their DNS records.

Pure: no network, no Twisted; `key_file` alone touches the disk. Begin with `signer.py`.
"""
