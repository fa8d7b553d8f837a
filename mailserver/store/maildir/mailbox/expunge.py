"""EXPUNGE on disk: files are removed before the index is updated, so that it works on a full disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Final

from mailserver.cancellation import is_change_cancelled
from mailserver.errors import Cancelled, MailError, StoreUnavailable
from mailserver.store.flags import DELETED
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.records import MailboxState, MessageRecord
from mailserver.store.maildir.disk import bulk, safeio
from mailserver.store.maildir.disk.directories import sync_directories
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.local_changes import LocalChange
from mailserver.store.maildir.sync import scan
from mailserver.store.maildir.sync.directory_update import DirectoryUpdate
from mailserver.store.maildir.sync.reconcile import reconcile
from mailserver.store.rows import MANY_CHANGES
from mailserver.types import UID

_AT_ONCE: Final = 256
"""Files that are removed before it is checked whether the session has ended."""
_LONG_LINE: Final = 160
"""A uidlist with more octets for each message may have many dead lines."""
_SHORT_LINE: Final = 64


def expunge(home: Home, state: MailboxState, uids: Sequence[UID], *, only_deleted: bool) -> Sequence[UID]:
    """Remove messages (rising). Return the removed UIDs. Under the lock. Raises: InUse, StoreUnavailable, Cancelled."""
    going = _read(home, state, uids, only_deleted=only_deleted)
    if going and not _unlink(home, state, going):
        fresh = reconcile(home, state.name)
        expected = [record[0] for record in going]
        again = home.read(lambda index: index.messages.records_of(fresh.key, expected))
        kept = {record[0] for record in again if only_deleted and not record[2] & DELETED}
        _unlink(home, fresh, [record for record in again if record[0] not in kept])
        going = [record for record in going if record[0] not in kept]
    return [UID(record[0]) for record in going]


def _read(home: Home, state: MailboxState, uids: Sequence[int], *, only_deleted: bool) -> list[MessageRecord]:
    records = home.read(lambda index: index.messages.records_of(state.key, uids))
    return [record for record in records if record[2] & DELETED] if only_deleted else records


def _unlink(home: Home, state: MailboxState, records: Sequence[MessageRecord]) -> bool:
    """Remove the files and update the index. Return whether all of them were there."""
    paths = home.paths(state.name)
    places = sorted({record[7] for record in records})
    own = DirectoryUpdate(home, paths, state, places)
    names = [record[5] + record[6] for record in records]
    if len(names) < MANY_CHANGES:
        own.expect(map(os.fsdecode, names))
    done: list[int] = []
    is_cut = False
    hindered: Exception | None = None
    try:
        for place in places:
            where = [at for at, record in enumerate(records) if record[7] == place]
            for start in range(0, len(where), _AT_ONCE):
                if is_cut := is_change_cancelled():
                    break
                part = where[start : start + _AT_ONCE]
                bulk.unlink_all(paths.place(place), names, part, done=done, step="expunge.after-unlink")
    except FileNotFoundError:
        # The directory is gone, and all files with it.
        pass
    except StoreUnavailable as error:
        # Files that are gone already are reported as expunged, too.
        hindered = error
    expunged = [UID(records[at][0]) for at in (sorted(done) if len(places) > 1 else done)]
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
    return len(expunged) == len(records)


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
