"""What the state directory remembers about certificates: those that were served, and expiry warnings sent.

`tls.ca`, `tls.acme` and `tls.changes` use it. Begin with `history.py`.
"""
