"""The order of messages: sorting and threading (RFC 5256), in steps, over values that a mailbox keeps.

Free of protocols and of I/O. Begin with `sorting.py` and `references.py`; `steps.py` runs them.
"""
