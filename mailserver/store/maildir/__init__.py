"""Maildir++ as Dovecot keeps it: the truth about every message.

`wiring/mail_store.py` makes the store; nothing else outside imports it. Its packages, lowest first: `disk`, `format`,
`home`, `sync`, `mailbox`, `account`; each imports only those before it. Begin with `mailbox/mailbox.py`.
"""
