"""HTTP/1.1 for what clients and administrators fetch: sans-IO, a session beside those of the mail protocols."""
