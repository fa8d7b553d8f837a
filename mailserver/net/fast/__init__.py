"""Faster replacements of Twisted's own transport, TLS layer and reactor turn.

They use names that Twisted keeps private. Only `net.connection`, `net.outbound`, `net.listeners` and `net.serving` use them.
Begin with `transport.py`.
"""
