"""All accounts on disk, and one account: its tree of mailboxes and its text index.

It implements the interfaces of `store/interfaces.py`. Begin with `store.py`, then `account.py` and `mailbox_tree.py`.
"""
