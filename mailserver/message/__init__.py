"""Parsing and rendering of MIME messages, without I/O. Nothing here writes a message.

The store renders with `render.summarise`; IMAP uses `structure`, `headers` and `render`, and SEARCH `text` and
`matcher`. It imports only `errors` and `types`. Begin with `structure.py`.
"""
