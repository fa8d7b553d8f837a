"""A dovecot-uidlist that is lost, was cut back or spoilt, written anew from what the index knows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.maildir import uidlist
from mailserver.store.maildir.home import Home
from mailserver.types import UID


def mend(
    home: Home, listed: uidlist.UidList, state: MailboxState, gone: Collection[UID] = (), more: Sequence[Entry] = ()
) -> uidlist.UidList:
    """Write the list with the messages of the index but those that are gone, and with more; the list as written.

    Under the account's lock and Dovecot's. Raises: NoSpace, StoreUnavailable.
    """
    key, left_out = state.key, set(gone)
    entries = home.read(lambda index: index.messages.entries(key))
    lines = [(entry.uid, entry.base) for entry in entries if entry.uid not in left_out]
    lines += [(entry.uid, entry.base) for entry in more]
    listed.uid_next = state.uid_next
    return home.with_room(lambda: uidlist.rewrite(listed, keep=(), add=sorted(lines)))
