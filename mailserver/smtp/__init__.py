"""SMTP: message submission (RFC 6409) and LMTP (RFC 2033), and the client of the next hop.

`wiring` makes the sessions (`submission.py`, `lmtp.py`); nothing else uses this package. Begin with `tables.py`, which
lists all commands (`commands/`) and extensions (`extensions/`), or with `session.py`, which both roles share.
`python -m mailserver.smtp` prints the tables.
"""
