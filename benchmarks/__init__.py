"""Server CPU per operation of this server and of Dovecot, on the same seeded mail in one run.

Begin with `scenarios.py` for what is measured, `__main__.py` for how.
"""
