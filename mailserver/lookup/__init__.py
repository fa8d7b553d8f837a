"""Look-ups by a mail transfer agent on this machine: the socketmap protocol of Postfix (socketmap_table(5)) and sendmail.

The agent asks which domains and mailboxes are here, where the mail of an address goes, and which logins may send as it.
`wire.py` has the netstrings, without I/O; `session.py` the session of a connection, and `maps.py` the maps.
"""
