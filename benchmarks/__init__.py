"""Server CPU per operation, ours beside Dovecot's, on the same seeded mail in one run."""
