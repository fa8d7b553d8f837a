"""IMAP4rev1 (RFC 3501), IMAP4rev2 (RFC 9051) and extensions.

`wiring` makes the sessions (`session.py`); nothing else uses this package. Begin with `commands/`, one row a command;
`wire/` has the grammar, `append/`, `fetch/` and `search/` the stages of these commands, `updates.py` the unsolicited responses,
`notifications.py` those of NOTIFY. `capabilities.py` says how an extension is declared.
`python -m mailserver.imap` prints the table.
"""
