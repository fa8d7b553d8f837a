"""One mailbox: reading and searching, delivery, flags, copies, replacement, removal.

`account` opens mailboxes. Begin with `mailbox.py`; `delivery.py` is how a message gets to disk.
"""
