"""Rebuilding a dovecot-uidlist that is lost, was cut back or spoilt, from the index."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.home.home import Home
from mailserver.types import UID


def rebuild_uidlist(
    home: Home,
    listed: uidlist.UidList,
    state: MailboxState,
    *,
    gone: Collection[UID] = (),
    more: Sequence[Entry] = (),
    there: Collection[str] | None = None,
) -> uidlist.UidList:
    """Write the list with the messages of the index but those that are gone, and with more; the list as written.

    What the list says of other names stays, if its UID is free and `there` has the base; `there` is None where it is
    not known which files there are. Under the account's lock and Dovecot's. Raises: NoSpace, StoreUnavailable.
    """
    key, left_out = state.key, set(gone)
    entries = home.read(lambda index: index.messages.entries(key))
    lines = {entry.base: entry.uid for entry in entries if entry.uid not in left_out}
    lines.update((entry.base, entry.uid) for entry in more)
    taken = set(lines.values())
    for base, uid in listed.entries.items():
        if base not in lines and uid not in taken and (there is None or base in there):
            lines[base] = uid
    listed.uid_next = state.uid_next
    rising = sorted((uid, base) for base, uid in lines.items())
    return home.with_room(lambda: uidlist.rewrite(listed, keep=(), add=rising))
