"""Where the blocking store and the reactor's thread meet: the shared, live picture of the open accounts.

A session asks a `LiveMailbox` to change or refresh; the operation and the reading of what it changed make one hop to
the account's thread, and only the reactor's thread applies the answer to the columns. A poke is a mailbox id: whoever
hears it reads what changed since its own modseq, so a lost or repeated poke does no harm.
"""

from mailserver.store.live.account import LiveAccount
from mailserver.store.live.accounts import LEAST_MESSAGES, LiveAccounts, Usage, notify_nobody
from mailserver.store.live.mailbox import LiveMailbox
from mailserver.store.live.message_cache import MessageCache

__all__ = ["LEAST_MESSAGES", "LiveAccount", "LiveAccounts", "LiveMailbox", "MessageCache", "Usage", "notify_nobody"]
