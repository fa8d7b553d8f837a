"""IMAP's bytes, without I/O."""
