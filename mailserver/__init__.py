"""A mail access server: IMAP, POP3, submission and LMTP on Twisted."""
