"""A scan of a mailbox with very many new files, in batches, so that others get their turn.

It does what `reconcile` does, in a process of its own (`scan_process`). Problems:

*   It takes seconds. Meanwhile the process may be killed, or the machine may lose its power.
*   Meanwhile mail is delivered into the account, sessions change it, other programs deliver and set flags.
*   A second process may get the same order: each worker has its own.

Rules:

*   Each batch holds the account's lock and Dovecot's, appends its lines to the uidlist, syncs, commits to the index,
    and releases the locks. Then the mailbox is complete: the rest looks like mail that has just come and has no UID
    yet. So nothing needs to be undone or recorded: the next scan finds what has been done, and continues after it.
*   Changes to what clients know (expunged messages, flags, UIDs that the list has and the index lacks) are one
    transaction, the first: no session sees half of that.
*   Between two batches other processes may take the lock. Messages that they have taken up meanwhile are left out. If
    the uidlist is not as the index knows it (Dovecot changed it), everything is scanned anew.
*   The mtimes of new/ and cur/ are recorded with the last batch, as they were before the names were read. Until then
    nobody takes the mailbox for up to date, and the next scan finds what changed in between.
*   Two processes scan one after the other (`ScanLock`): the second finds nothing left to do.
*   Messages get their UIDs in the order of their names, except deliveries in between.

Rejected: giving all UIDs in the first batch and the rows of the index later. A delivery then would have to know that
the uidlist is ahead of the index, and a session with the mailbox open could take missing rows for expunges.
"""

from __future__ import annotations

import fcntl
import os
from array import array
from collections.abc import Iterator

from mailserver.errors import NoSpace, StoreUnavailable
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.packed_columns import Arrays
from mailserver.store.index.records import OWN, RACY, SETTLED, MailboxState
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format import uidlist, uidlist_format
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.sync.first_scan import FirstScan, Postponed
from mailserver.store.maildir.sync.reconcile import begin
from mailserver.types import UID, ModSeq

AT_ONCE = 10_000
"""Messages of a batch: some 30 ms under the account's lock."""


def read_in_batches(home: Home, name: str, at_once: int = AT_ONCE) -> Iterator[tuple[int, int]]:
    """Take up the state on disk. Yield (messages done, messages in all) after each batch, with no lock held.

    Raises: NoSuchMailbox, BadMailboxName, InUse, NoSpace, StoreUnavailable.
    """
    while True:
        with home.locked():
            state, postponed = begin(home, name, at_once)
        if postponed is None:
            return
        safeio.point("batches.begun")
        batches = _Batches(home, state, postponed)
        yield batches.progress
        while batches.left:
            with home.locked():
                going_on = batches.do(at_once)
            if not going_on:
                break
            safeio.point("batches.after-batch")
            yield batches.progress
        else:
            batches.pack()
            return
        if batches.stuck:
            return


class ScanLock:
    """The lock for a batched scan of a mailbox: flock(2) on its new/. It ends with its process."""

    def __init__(self, directory: str) -> None:
        """`directory`: the mailbox's new/. If it cannot be opened there is nothing to wait for."""
        try:
            self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def acquire(self) -> bool:
        """Try to acquire it."""
        try:
            if self._fd >= 0:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # A file system without such locks: two scans disturb each other, but do no harm.
            return True
        return True

    def release(self) -> None:
        """Release it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Batches:
    """The batches of one scan that are left."""

    def __init__(self, home: Home, state: MailboxState, postponed: Postponed) -> None:
        self.stuck = False
        """There is no room, or no UID, for the rest: it stays unseen."""
        self._home = home
        self._key, self._guid, self._validity = state.key, state.guid, state.uid_validity
        self._name = state.name
        self._paths = home.paths(state.name)
        self._uid_next, self._modseq = state.uid_next, state.modseq
        self._postponed = postponed
        self._messages = postponed.messages
        self._at = 0
        self._columns: Arrays | None = None
        """Columns of the whole mailbox, as long as no other process adds to it."""
        if postponed.is_new and state.uid_next == 1:
            self._columns = Arrays(array("I"), array("I"), array("Q"), array("I"), array("q"))

    @property
    def left(self) -> int:
        """The number of messages without UIDs."""
        return len(self._messages) - self._at

    @property
    def progress(self) -> tuple[int, int]:
        """(messages done, messages in all)."""
        found = self._postponed.found
        return max(0, found - self.left), found

    def do(self, at_once: int) -> bool:
        """Do the next batch under the account's lock. False if a new scan is needed, or nothing can be done."""
        home = self._home
        state = home.read(lambda index: index.mailboxes.by_guid(self._guid))
        if (
            state is None
            or (state.key, state.name, state.uid_validity) != (self._key, self._name, self._validity)
            or state.boot != home.boot
            or state.uid_next < self._uid_next
        ):
            return False
        if state.modseq != self._modseq:
            self._columns = None
        if state.uid_next != self._uid_next:
            if not self._leave_out(state):
                return False
            if not self.left:
                return True
        room = uidlist_format.HIGHEST_UID + 1 - state.uid_next
        part = self._messages.part(self._at, self._at + min(at_once, room))
        if self.left and not len(part):
            self.stuck = True
            return False
        first = part.with_uids(state.uid_next)
        try:
            with home.dotlocked([self._paths.directory], must=True):
                if uidlist.signature(self._paths.uidlist) != state.uidlist_signature:
                    return False
                lines = b"".join(first.lines())
                state.uidlist_signature = home.with_room(lambda: uidlist.append_lines(self._paths.uidlist, lines))
        except NoSpace:
            # The rest stays unseen until there is room for its UIDs. The next refresh tries again.
            self.stuck = True
            return False
        except StoreUnavailable:
            if os.access(self._paths.directory, os.W_OK):
                raise
            # A mailbox that we may only read: these UIDs last as long as the index.
        safeio.point("batches.after-append")
        self._save(state, first)
        return True

    def pack(self) -> None:
        """Store the columns, if they have not been stored yet, for the next loader."""
        if self._columns is not None:
            return
        state = self._home.read(lambda index: index.mailboxes.by_guid(self._guid))
        if state is not None:
            self._home.read(
                lambda index: index.pack(self._key, state.modseq, Arrays(*index.messages.columns(self._key)))
            )

    def _leave_out(self, state: MailboxState) -> bool:
        """Leave out messages that got UIDs from others. False if that can no longer be determined."""
        given = range(self._uid_next, state.uid_next)
        entries = self._home.read(lambda index: index.messages.entries_of(self._key, given))
        if len(entries) < len(given):
            return False
        left = self._messages.part(self._at, len(self._messages))
        self._messages = left.without({os.fsencode(entry.base) for entry in entries})
        self._at = 0
        self._uid_next, self._modseq = state.uid_next, state.modseq
        return True

    def _save(self, state: MailboxState, first: FirstScan) -> None:
        was_claimed = state.recent_from == state.uid_next
        self._at += len(first.uids)
        state.uid_next = UID(state.uid_next + len(first.uids))
        modseq = state.modseq
        if first.uids:
            modseq = state.modseq = next_modseq(state.modseq)
            if (self._postponed.is_new or was_claimed) and 1 in first.places:
                # A session has seen what is no longer in new/.
                state.recent_from = max(state.recent_from, first.first_recent)
        sizes = first.sizes()
        columns = self._collect(first, modseq, sizes)
        if not self.left:
            self._settle(state)

        def save(index: Index) -> None:
            index.mailboxes.save(state)
            index.messages.add_blocks(state.key, first.blocks(modseq), sizes)
            if columns is not None:
                index.packed_columns.put(state.key, modseq, columns)

        self._home.update(save, len(first.uids))
        self._uid_next, self._modseq = state.uid_next, modseq

    def _collect(self, first: FirstScan, modseq: ModSeq, sizes: array[int]) -> Arrays | None:
        """Return the columns to store with this batch, if it is the last."""
        columns = self._columns
        if columns is None:
            return None
        for column, more in zip(columns, first.columns(modseq, sizes), strict=True):
            column.extend(more)
        return None if self.left else columns

    def _settle(self, state: MailboxState) -> None:
        """Record the mtimes: the index has everything that was there when the directories were read."""
        new, cur = self._postponed.new, self._postponed.cur
        state.new_racy = _trust(state.new_mtime, *new)
        state.cur_racy = _trust(state.cur_mtime, *cur)


def _trust(mtime: int, read_at: int, trust: int) -> int:
    """Return the trust in the recorded mtime: as when the directory was read, or as after a change of ours."""
    if mtime == read_at:
        return trust
    return OWN if trust == SETTLED else RACY
