"""One user's Maildir with its lock and index, and the recovery of what a dead process left.

`sync`, `mailbox` and `account` work on a `Home`. Begin with `home.py`.
"""
