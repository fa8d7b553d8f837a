"""The client ledger: the clients of each account and how they connect, to predict whom a change would shut out.

`net/admin/ledger.py` writes it, `cli/clients.py` reads it. Begin with `entry.py`.
"""
