"""Messages that a client sends for a mailbox: the arguments of each, its octets, and the step that publishes them all.

Begin with `incoming.IncomingMessages`. The commands are in `imap/commands/append.py`.
"""
