"""Synchronisation of the index with the disk, whoever changed the disk.

`mailbox` and `account` call it before they read or change. Begin with `reconcile.py`; `batched_scan.py` reads very
large mailboxes in batches, in a process of its own (`scan_process.py`).
"""
