"""Reading MIME messages; nothing here writes one."""
