"""IMAP's octets without I/O: cutting input into lines and literals, reading arguments, writing responses.

Used by `mailserver.imap` alone; it knows no session. Begin with `framer.py` (input) and `writer.py` (output).
"""
