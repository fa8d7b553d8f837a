"""The SQLite index of an account: a cache of the Maildir, and its history."""
