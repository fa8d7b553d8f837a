"""POP3 (RFC 1939): a session's maildrop, and its commands.

`wiring` makes the sessions (`session.py`); nothing else uses this package. Begin with `commands/`, one row a command;
`maildrop.py` has the listing that they work on. `python -m mailserver.pop3` prints the table.
"""
