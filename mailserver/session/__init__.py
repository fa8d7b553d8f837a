"""What every protocol session is built on: the channel to its client, lines, SASL exchanges.

`imap`, `pop3`, `smtp` and `http` use it; `net` implements the channel. No Twisted here. Begin with `channel.py`.
"""
