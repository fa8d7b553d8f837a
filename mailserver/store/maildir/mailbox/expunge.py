"""EXPUNGE on disk: files are removed before the index is updated, so that it works on a full disk."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

from mailserver.cancellation import is_change_cancelled
from mailserver.errors import Cancelled, MailError, StoreUnavailable
from mailserver.store.flags import DELETED
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.directories import sync_directories
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.local_changes import LocalChange
from mailserver.store.maildir.sync import scan
from mailserver.store.maildir.sync.directory_update import DirectoryUpdate
from mailserver.store.maildir.sync.reconcile import reconcile
from mailserver.types import UID

_LONG_LINE: Final = 160
"""A uidlist with more octets for each message may have many dead lines."""
_SHORT_LINE: Final = 64


def expunge(home: Home, state: MailboxState, uids: Sequence[UID], *, only_deleted: bool) -> Sequence[UID]:
    """Remove messages (rising). Return the removed UIDs. Under the lock. Raises: InUse, StoreUnavailable, Cancelled."""
    key = state.key
    entries = home.read(lambda index: index.messages.entries_of(key, uids))
    going = [entry for entry in entries if entry.flags & DELETED or not only_deleted]
    if going and not _unlink(home, state, going):
        fresh = reconcile(home, state.name)
        key = fresh.key
        again = home.read(lambda index: index.messages.entries_of(key, [UID(entry.uid) for entry in going]))
        _unlink(home, fresh, [entry for entry in again if entry.flags & DELETED or not only_deleted])
        still = {entry.uid for entry in again if not (entry.flags & DELETED or not only_deleted)}
        going = [entry for entry in going if entry.uid not in still]
    return [UID(entry.uid) for entry in going]


def _unlink(home: Home, state: MailboxState, entries: Sequence[Entry]) -> bool:
    """Remove the files and update the index. Return whether all of them were there."""
    paths = home.paths(state.name)
    places = sorted({entry.place for entry in entries})
    own = DirectoryUpdate(home, paths, state, places)
    own.expect(entry.file_name for entry in entries)
    expunged = []
    is_cut = False
    hindered: Exception | None = None
    for entry in entries:
        if is_cut := is_change_cancelled():
            break
        try:
            safeio.unlink(f"{paths.place(entry.place)}/{entry.base}{entry.suffix}")
        except FileNotFoundError:
            pass
        except StoreUnavailable as error:
            # Files that are gone already are reported as expunged, too.
            hindered = error
            break
        else:
            expunged.append(UID(entry.uid))
        safeio.point("expunge.after-unlink")
    if expunged:
        sync_directories(paths.place(place) for place in places)
        safeio.point("expunge.after-directory-sync")
        own.record()
        before = state.modseq
        state.modseq = next_modseq(before)

        def save(index: Index) -> None:
            index.mailboxes.save(state)
            index.expunge(state.key, expunged, state.modseq)

        home.update(save, len(expunged))
        home.local_changes.keep(state.key, LocalChange(before, state.modseq, [], expunged))
        if state.key in home.untidied:
            home.untidied[state.key] += len(expunged)
        safeio.point("expunge.after-index")
    if hindered is not None:
        raise hindered
    if is_cut:
        # The index records what is gone; the others stay.
        raise Cancelled
    return len(expunged) == len(entries)


def tidy_uidlist(home: Home, state: MailboxState) -> None:
    """Rewrite the uidlist when a quarter of it may be dead. Failures do not matter."""
    key = state.key
    size = state.uidlist_signature[2] if state.uidlist_signature else 0
    if size < _LONG_LINE * 64:
        return
    # Messages are counted once for many expunges: before that a quarter cannot be dead.
    due = home.untidied.get(key)
    if due is not None and due < size // (32 * _SHORT_LINE):
        return
    home.untidied[key] = 0
    alive = home.read(lambda index: index.messages.counts(key))[0]
    if size < _LONG_LINE * (alive + 64):
        return
    paths = home.paths(state.name)
    with contextlib.suppress(MailError, FileNotFoundError), home.dotlocked([paths.directory]):
        if uidlist.signature(paths.uidlist) != state.uidlist_signature:
            return
        listed = uidlist.read(paths.uidlist)
        there = scan.bases_there([scan.read_directory(paths.new), scan.read_directory(paths.cur)])
        if there is None or not listed.worth_rewriting(len(there & listed.entries.keys())):
            return
        state.uidlist_signature = uidlist.rewrite(listed, keep=there).signature
        home.update(lambda index: index.mailboxes.save(state))
