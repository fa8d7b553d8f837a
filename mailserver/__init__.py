"""A mail access server: IMAP, POP3, submission and LMTP on Twisted."""

__version__ = "0.1.0"
