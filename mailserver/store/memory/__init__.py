"""A whole account in memory: the model that every other store is compared with, and the store of transcripts.

It is meant to be obviously right, not fast: plain dicts, every answer computed from the facts when asked. Nothing
survives the process. One thread at a time, as `StoreRunner` promises for an account.
"""

from mailserver.store.memory.account import MemoryAccount
from mailserver.store.memory.mailbox import MemoryMailbox
from mailserver.store.memory.messages import MemoryMessage, MemorySearchSource, MemoryStaged
from mailserver.store.memory.prepared import MemoryPrepared
from mailserver.store.memory.store import MemoryStore

__all__ = [
    "MemoryAccount",
    "MemoryMailbox",
    "MemoryMessage",
    "MemoryPrepared",
    "MemorySearchSource",
    "MemoryStaged",
    "MemoryStore",
]
