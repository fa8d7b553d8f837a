"""STORE on disk: flags are letters in the file name, so a change of flags is a rename within cur/ (or out of new/).

A rename is complete by itself, so there is no intent: an interrupted STORE has changed some messages and not the
others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from mailserver.cancellation import is_change_cancelled
from mailserver.errors import Cancelled, MailError
from mailserver.store.flags import FlagChange
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.interfaces import Stored
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.directories import sync_directories
from mailserver.store.maildir.format.filename import MaildirName
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.local_changes import LocalChange
from mailserver.store.maildir.sync.directory_update import DirectoryUpdate, known_mask, make_keywords
from mailserver.store.maildir.sync.reconcile import reconcile
from mailserver.types import UID, ModSeq


def store_flags(
    home: Home,
    state: MailboxState,
    uids: Sequence[UID],
    how: FlagChange,
    names: Sequence[str],
    *,
    unchanged_since: ModSeq | None,
) -> Stored:
    """Change flags of messages (rising): renames, one sync, one transaction. Under the account's lock.

    Raises: LimitReached, BadSyntax, InUse, NoSpace, StoreUnavailable, Cancelled (then some have been changed).
    """
    key, before = state.key, state.modseq
    entries = home.read(lambda index: index.messages.entries_of(key, uids))
    changing, modified = entries, []
    if unchanged_since is not None:
        modified = [UID(entry.uid) for entry in entries if entry.modseq > unchanged_since]
        changing = [entry for entry in entries if entry.modseq <= unchanged_since]
    gone: set[UID] = set() if len(entries) == len(uids) else set(uids) - {UID(entry.uid) for entry in entries}
    if changing or gone:
        # New keywords are made even if no message is left to have them.
        more_gone, mixed = _change_flags(home, state, changing, how, names)
        gone.update(more_gone)
        # Other programs' changes came in between: it is unknown which are ours.
        before = mixed or before
    return Stored(modified, sorted(gone), before)


def _change_flags(
    home: Home, state: MailboxState, entries: Sequence[Entry], how: FlagChange, names: Sequence[str]
) -> tuple[list[UID], ModSeq | None]:
    """Return the UIDs that are gone, and the modseq of changes by other programs that were found."""
    mask = known_mask(state, names) if how is FlagChange.REMOVE else make_keywords(home, state, names)
    change = _FlagRename(home, state, how, mask)
    missing = change.carry_out(entries)
    gone: list[UID] = []
    mixed: ModSeq | None = None
    if missing:
        # Renamed or removed by another program.
        change.finish()
        change.check_cut()
        fresh = reconcile(home, state.name)
        mixed = fresh.modseq
        key = fresh.key
        again = home.read(lambda index: index.messages.entries_of(key, [UID(entry.uid) for entry in missing]))
        change = _FlagRename(home, fresh, how, mask)
        still = {entry.uid for entry in change.carry_out(again)}
        there = {entry.uid for entry in again} - still
        gone = [UID(entry.uid) for entry in missing if entry.uid not in there]
    change.finish()
    change.check_cut()
    return gone, mixed


class _FlagRename:
    """Renames of files, followed by the sync of the directories and the update of the index."""

    def __init__(self, home: Home, state: MailboxState, how: FlagChange, mask: int) -> None:
        self._home = home
        self._paths = home.paths(state.name)
        self._state = state
        self._modseq = next_modseq(state.modseq)
        self._how = how
        self._mask = mask
        self._changed: list[Entry] = []
        self._own: DirectoryUpdate | None = None
        self._is_cut = False
        self._done: list[tuple[str, str]] = []

    def carry_out(self, entries: Sequence[Entry]) -> list[Entry]:
        """Rename the files. Return the entries whose file was missing."""
        missing = []
        modseq, paths = self._modseq, self._paths
        changing = [(entry, mask) for entry in entries if (mask := self._new_mask(entry.flags)) != entry.flags]
        if not changing:
            return []
        own = self._own = DirectoryUpdate(
            self._home, paths, self._state, (1, *{0 for entry, _ in changing if not entry.place})
        )
        for entry, mask in changing:
            if is_change_cancelled():
                # Finished renames stay, and go to the index as usual.
                self._is_cut = True
                break
            name = entry.base + entry.suffix
            suffix = MaildirName.suffix_with_mask(entry.suffix, mask)
            renamed = entry.base + suffix
            own.expect((name, renamed))
            old, new = f"{paths.place(entry.place)}/{name}", f"{paths.cur}/{renamed}"
            try:
                safeio.rename(old, new)
            except FileNotFoundError:
                missing.append(entry)
                continue
            except BaseException:
                self._take_back()
                raise
            self._done.append((old, new))
            safeio.point("store.after-rename")
            self._changed.append(Entry(entry.uid, modseq, mask, entry.size, entry.date, entry.base, suffix, 1))
        return missing

    def check_cut(self) -> None:
        """Raise Cancelled if some renames were not made."""
        if self._is_cut:
            raise Cancelled

    def finish(self) -> None:
        """Sync the directories and update the index."""
        home, state, changed = self._home, self._state, self._changed
        before = state.modseq
        if changed:
            assert self._own is not None
            # cur/ first: a name in neither directory would be a lost message.
            try:
                sync_directories(self._paths.place(place) for place in self._own.places)
            except BaseException:
                self._take_back()
                raise
            safeio.point("store.after-directory-sync")
            self._own.record()
            state.modseq = self._modseq

        def save(index: Index) -> None:
            index.mailboxes.save(state)
            index.messages.change(state.key, changed)

        home.update(save, len(changed))
        if changed:
            home.local_changes.keep(
                state.key, LocalChange(before, state.modseq, [entry.row() for entry in changed], [])
            )
        safeio.point("store.after-index")

    def _take_back(self) -> None:
        """Undo the renames as far as the disk lets it: nothing has been acknowledged."""
        for old, new in reversed(self._done):
            with contextlib.suppress(OSError, MailError):
                safeio.rename(new, old)
        with contextlib.suppress(OSError, MailError):
            sync_directories(os.path.dirname(path) for pair in self._done for path in pair)

    def _new_mask(self, flags: int) -> int:
        return self._how.combine(flags, self._mask)
