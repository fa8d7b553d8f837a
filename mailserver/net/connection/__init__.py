"""One client connection: a Twisted protocol below, a `mailserver.session.channel.Channel` above, which is all that sessions see.

Begin with `factories.py`: `net.listeners` and `mailserver.embedding` use these. `acceptance.py` finds and counts the client,
`connection.py` runs its session and ends it, `stream.py` reads and writes. `store_threads.py` runs blocking store calls.
"""
