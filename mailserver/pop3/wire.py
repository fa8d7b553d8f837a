"""POP3 bytes without I/O: lines, and dot-stuffing (RFC 1939 3)."""
