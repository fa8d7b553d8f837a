"""The index is made equal to the disk, whoever changed the disk.

`mailbox` and `account` call it before they read or change. Begin with `reconcile.py`; `slices.py` reads very large
mailboxes in steps, in a process of its own (`scan_process.py`).
"""
