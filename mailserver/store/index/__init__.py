"""The SQLite index of an account: a cache of what is on disk, plus the history of changes. The only SQL there is."""
