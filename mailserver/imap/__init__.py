"""IMAP4rev1 (RFC 3501) and its extensions.

`wiring` makes the sessions (`session.py`); nothing else uses this package. Begin with `commands/`, one row a command;
`wire/` has the grammar, `fetch/` and `search/` the stages of these commands, `updates.py` the unsolicited responses.
`python -m mailserver.imap` prints the table.
"""
