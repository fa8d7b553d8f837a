"""UIDs yet to be given: there are 2**32 - 2 of them in a mailbox, and none is given twice."""

from __future__ import annotations

from mailserver.errors import LimitReached
from mailserver.store.index.records import MailboxState
from mailserver.store.maildir.uidlist import HIGHEST_UID
from mailserver.types import UID


def next_uids(state: MailboxState, count: int) -> list[UID]:
    """The next UIDs of the mailbox; the state is left as it is. Raises: LimitReached."""
    if state.uid_next + count - 1 > HIGHEST_UID:
        raise LimitReached("the mailbox has no UIDs left")
    return [UID(uid) for uid in range(state.uid_next, state.uid_next + count)]
