"""Maildir++ as Dovecot keeps it: the truth about every message."""
