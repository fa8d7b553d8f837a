"""Certificates and TLS policy: which certificate is served under which name, and how that changes.

`net` serves what this package prepares, `cli` shows and changes it. Its packages, lowest first: `keypair`, `context`,
`state`, `ca`, `acme`, `serving`, `changes`; each imports only those before it. Begin with `serving/policy.py`.
"""
