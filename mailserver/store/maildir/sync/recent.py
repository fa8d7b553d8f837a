"""\\Recent: unreported messages are in new/, and move to cur/ with the first session that reports them.

Nothing here is synced. After a power cut they may be in new/ and \\Recent again, but no client of before is still
connected. A later change of one of them syncs a directory that this rename belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable

from mailserver.errors import NoSpace, StoreUnavailable
from mailserver.store.index.database import Index
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format.filename import MaildirName
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.sync.directory_update import DirectoryUpdate
from mailserver.types import UID


def claim(home: Home, state: MailboxState, below: UID | None, *, read_only: bool) -> range:
    """Claim the messages (below `below`) for one session. Return the range of their UIDs. Under the account's lock."""
    start, end = state.recent_from, state.uid_next if below is None else min(below, state.uid_next)
    state.recent_from = max(start, end)
    moved = (
        [] if read_only else leave_new(home, state, home.read(lambda index: index.messages.entries_in_new(state.key)))
    )

    def save(index: Index) -> None:
        index.mailboxes.save(state)
        index.messages.change(state.key, moved)

    home.update(save, len(moved))
    return range(start, end)


def leave_new(home: Home, state: MailboxState, entries: Iterable[Entry]) -> list[Entry]:
    """Move the claimed ones of these files from new/ to cur/, as a Maildir reader does once it has seen the messages.

    Return the entries of those that were moved. Under the account's lock.
    """
    paths = home.paths(state.name)
    own = DirectoryUpdate(home, paths, state)
    moved = []
    for entry in entries:
        if entry.uid >= state.recent_from:
            continue
        target = MaildirName.parse(entry.file_name).with_mask(entry.flags).format()
        own.expect((entry.file_name, target))
        try:
            safeio.rename(f"{paths.new}/{entry.file_name}", f"{paths.cur}/{target}")
        except FileNotFoundError:
            continue
        except (NoSpace, StoreUnavailable):
            # They can be read where they are.
            break
        safeio.point("recent.after-rename")
        moved.append(entry._replace(suffix=target[len(entry.base) :], place=1))
    if moved:
        own.record()
    return moved
