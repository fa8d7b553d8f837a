"""The SQLite index of an account: a cache of what is on disk, and the history of changes.

Only `store.maildir` uses it, and only this package has SQL. Losing an index costs speed and history, nothing else.
Begin with `database.Index`; `schema` has the tables.
"""
