"""Certificate state in the state directory: the history of served certificates and the expiry warnings sent.

`tls.ca`, `tls.acme` and `tls.changes` use it. Begin with `history.py`.
"""
