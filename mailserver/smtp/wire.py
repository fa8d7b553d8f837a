"""SMTP and LMTP bytes without I/O: lines, DATA and BDAT (RFC 5321, RFC 3030)."""
