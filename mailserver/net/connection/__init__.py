"""One client connection: a Twisted protocol below, a `mailserver.session.channel.Channel` above.

It detects TLS, enforces limits and time-outs, and runs the session's coroutine. Listeners make connections; sessions see
only the channel. Begin with `connection.py`; `store_threads.py` is where blocking store calls leave the reactor.
"""
