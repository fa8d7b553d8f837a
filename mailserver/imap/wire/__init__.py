"""IMAP on the wire, without I/O: framing, reading, writing, sequence sets, mailbox names (RFC 3501 9)."""
