"""The directory: accounts, their names and credentials in one database, with a record of every change.

`model.py` has the values, `schema/` the tables, `statements.py` all SQL. `reading.py` answers the server's questions,
`changing.py` makes changes; both work on a `database.Database`, which `sqlite.py` implements. Nothing here imports
Twisted or the configuration, and all names are normalised by the callers (`auth.schemes.passwd.normalise`).
"""
