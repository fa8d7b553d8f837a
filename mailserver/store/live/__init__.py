"""The open accounts of a worker: where the blocking store and the reactor's thread meet.

A session asks a `LiveMailbox` to change or refresh. The operation and the reading of its changes are one hop to the
account's thread; only the reactor's thread applies the result to the columns. A poke is a mailbox id: its receiver
reads what changed since its own modseq, so a lost or repeated poke does no harm. Begin with `accounts.LiveAccounts`.
"""

from mailserver.store.live.account import LiveAccount
from mailserver.store.live.account_changes import AccountChanges, Counts, Kind
from mailserver.store.live.accounts import (
    LEAST_MESSAGES,
    LiveAccounts,
    Usage,
    keep_private,
    never_changed,
    notify_nobody,
    take_nothing,
)
from mailserver.store.live.mailbox import LiveMailbox
from mailserver.store.live.message_cache import MessageCache
from mailserver.store.live.open_indexes import OpenIndexes

__all__ = [
    "LEAST_MESSAGES",
    "AccountChanges",
    "Counts",
    "Kind",
    "LiveAccount",
    "LiveAccounts",
    "LiveMailbox",
    "MessageCache",
    "OpenIndexes",
    "Usage",
    "keep_private",
    "never_changed",
    "notify_nobody",
    "take_nothing",
]
