"""A private certificate authority: its directory, its record, and the certificates that it issues, revokes and renews.

`cli/ca.py` and `net/certificates/private_ca.py` use it. A running worker never sees the authority's key. Begin with `private_ca.py`.
"""
