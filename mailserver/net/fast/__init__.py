"""What is faster by names that Twisted and pyOpenSSL keep private, and the choice whether it is taken.

Only known versions get it (`versions.py`, where to begin); any other gets `net.transport`, which is never absent. Only `net.listeners`
and `net.serving` use this package, by `choose_transports`.
"""
