"""Logins at other servers on this machine: Dovecot's authentication protocol, version 1, as its clients speak it.

Postfix and Exim ask by it whether a user may log in. `wire.py` has the lines, without I/O; `session.py` the session of a
connection, and `exchange.py` one SASL exchange of it. Users are not looked up (the userdb of Dovecot's master connections).
"""
