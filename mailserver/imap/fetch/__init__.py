"""The stages of a FETCH: its plan, the data it is answered from, its responses.

Used by `imap.commands.fetch` and `imap.commands.store`. Begin with `response.py`, which says where an item comes from; `plan.py`
has the items, `work.py` what runs in the account's thread, `pipelined.py` the short way for many commands alike.
"""
