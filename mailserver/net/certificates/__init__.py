"""Certificates of a running server: watched files, ACME orders, renewals by a private CA.

It runs in the process that reads keys; `net.service` uses it. Begin with `certificates.py`. Formats, policy and the
ACME protocol itself are in `mailserver.tls`.
"""
