"""The base of protocol sessions: the channel to the client, lines, SASL exchanges, command tables.

`imap`, `pop3`, `smtp` and `http` use it; `net` implements the channel. No Twisted here. Begin with `channel.py`.
"""
