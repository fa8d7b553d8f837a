"""STORE on disk: flags are letters in the file name, so a change of flags is a rename within cur/ (or out of new/).

A rename is complete by itself, so there is no intent: an interrupted STORE has changed some messages and not the
others.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from mailserver.cancellation import is_change_cancelled
from mailserver.errors import Cancelled, MailError
from mailserver.store.flags import NARROW, FlagChange
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.records import FlagUpdate, MailboxState, MessageRecord
from mailserver.store.interfaces import Stored
from mailserver.store.maildir.disk import bulk, safeio
from mailserver.store.maildir.disk.directories import sync_directories
from mailserver.store.maildir.format.filename import MaildirName, check_length
from mailserver.store.maildir.home.file_names import GROUP
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.local_changes import LocalChange
from mailserver.store.maildir.sync.directory_update import DirectoryUpdate, known_mask, make_keywords
from mailserver.store.maildir.sync.reconcile import reconcile
from mailserver.store.rows import MANY_CHANGES, MANY_ROWS, Row, Run, RunRows, cap_size, flag_column
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq

_AT_ONCE: Final = 256
"""Files that are renamed before it is checked whether the session has ended."""
_uid_of = itemgetter(0)


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
    before = state.modseq
    records = _read(home, state, uids)
    gone: set[UID] = set() if len(records) == len(uids) else set(uids).difference(map(_uid_of, records))
    modified: list[UID] = []
    if unchanged_since is not None:
        modified = [UID(record[0]) for record in records if record[1] > unchanged_since]
        records = [record for record in records if record[1] <= unchanged_since]
    if records or gone:
        # New keywords are made even if no message is left to have them.
        more_gone, mixed = _change_flags(home, state, records, how, names)
        gone.update(more_gone)
        # Other programs' changes came in between: it is unknown which are ours.
        before = mixed or before
    return Stored(modified, sorted(gone), before)


def _read(home: Home, state: MailboxState, uids: Sequence[int]) -> list[MessageRecord]:
    key = state.key
    return home.read(lambda index: index.messages.records_of(key, uids))


def _change_flags(
    home: Home, state: MailboxState, records: Sequence[MessageRecord], how: FlagChange, names: Sequence[str]
) -> tuple[list[UID], ModSeq | None]:
    """Return the UIDs that are gone, and the modseq of changes by other programs that were found."""
    mask = known_mask(state, names) if how is FlagChange.REMOVE else make_keywords(home, state, names)
    change = _FlagRename(home, state, how, mask, records)
    missing = change.carry_out()
    gone: list[UID] = []
    mixed: ModSeq | None = None
    if missing:
        # Renamed or removed by another program.
        change.finish()
        change.check_cut()
        fresh = reconcile(home, state.name)
        mixed = fresh.modseq
        change = _FlagRename(home, fresh, how, mask, _read(home, fresh, missing))
        still = set(change.carry_out())
        there = {record[0] for record in change.records} - still
        gone = [UID(uid) for uid in missing if uid not in there]
    change.finish()
    change.check_cut()
    return gone, mixed


class _FlagRename:
    """Renames of files, followed by the sync of the directories and the update of the index.

    Thousands of messages have few different flags. So new flags and names are computed once for each state that messages are
    in, and a message costs the rename and its part of lists that are made by calls into C.
    """

    def __init__(
        self, home: Home, state: MailboxState, how: FlagChange, mask: int, records: Sequence[MessageRecord]
    ) -> None:
        self.records = records
        self._home = home
        self._paths = home.paths(state.name)
        self._state = state
        self._modseq = next_modseq(state.modseq)
        masks = {old: how.combine(old, mask) for old in {record[2] for record in records}}
        self._masks = {old: new for old, new in masks.items() if new != old}
        self._changing = [record for record in records if record[2] in self._masks]
        self._suffixes: dict[tuple[int, bytes], bytes] = {}
        """New suffixes, by old flags and suffix."""
        self._pairs: list[tuple[bytes, bytes]] = []
        """Old and new names of those that change."""
        self._own: DirectoryUpdate | None = None
        self._is_cut = False
        self._done: list[int] = []
        """Indexes of those that are renamed."""

    def carry_out(self) -> list[int]:
        """Rename the files. Return the UIDs of the messages whose file was missing."""
        changing, suffixes = self._changing, self._suffixes
        if not changing:
            return []
        for flags, suffix in {(record[2], record[6]) for record in changing}:
            changed = MaildirName.suffix_with_mask(os.fsdecode(suffix), self._masks[flags])
            suffixes[flags, suffix] = os.fsencode(changed)
        self._pairs = pairs = [
            (base + suffix, base + suffixes[flags, suffix])
            for _uid, _modseq, flags, _size, _date, base, suffix, _place in changing
        ]
        if max(self._masks.values()) > NARROW:
            # Only further keywords make names long.
            check_length(os.fsdecode(max([new for _old, new in pairs], key=len)))
        places = {record[7] for record in changing}
        own = self._own = DirectoryUpdate(self._home, self._paths, self._state, (1, *places - {1}))
        if len(pairs) < MANY_CHANGES:
            own.expect([os.fsdecode(name) for pair in pairs for name in pair])
        whole = range(len(changing))
        tried = 0
        try:
            for place in places:
                where = whole if len(places) == 1 else [at for at in whole if changing[at][7] == place]
                for start in range(0, len(where), _AT_ONCE):
                    if is_change_cancelled():
                        # Finished renames stay, and go to the index as usual.
                        self._is_cut = True
                        break
                    part = where[start : start + _AT_ONCE]
                    tried += len(part)
                    source, target = self._paths.place(place), self._paths.cur
                    bulk.rename_all(source, target, pairs, part, done=self._done, step="store.after-rename")
        except FileNotFoundError:
            # The directory is gone, and all files with it.
            pass
        except BaseException:
            self._take_back()
            raise
        if len(places) > 1:
            self._done.sort()
        if len(self._done) == tried:
            return []
        done = set(self._done)
        return [changing[at][0] for at in whole if at not in done]

    def check_cut(self) -> None:
        """Raise Cancelled if some renames were not made."""
        if self._is_cut:
            raise Cancelled

    def finish(self) -> None:
        """Sync the directories and update the index."""
        home, state = self._home, self._state
        changing = self._changing
        changed = changing if len(self._done) == len(changing) else [changing[at] for at in self._done]
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
        uids = [record[0] for record in changed]
        updates = self._updates(changed)
        examined = 0 if len(changed) < len(changing) else self._examined(uids)
        self._note_names(uids)

        def save(index: Index) -> None:
            index.mailboxes.save(state)
            index.messages.change_flags(state.key, self._modseq, uids, updates, examined=examined)

        home.update(save, len(changed))
        if changed:
            home.local_changes.keep(state.key, LocalChange(before, state.modseq, self._rows(uids, changed), []))
        safeio.point("store.after-index")

    def _note_names(self, uids: Sequence[int]) -> None:
        """Keep the new names, or forget many: they are read again when they are needed."""
        names, key = self._home.settings.file_names, (self._home.root, self._state.names_key)
        if len(uids) > GROUP:
            names.forget(key, uids)
        else:
            pairs = self._pairs
            names.change(key, [(uid, names.name_of(1, pairs[at][1])) for uid, at in zip(uids, self._done, strict=True)])

    def _updates(self, changed: Sequence[MessageRecord]) -> list[FlagUpdate]:
        """Group them by the state that they were in."""
        alike: dict[tuple[int, bytes, int], list[int]] = {}
        for uid, _modseq, flags, _size, _date, _base, suffix, place in changed:
            state = flags, suffix, place
            if state in alike:
                alike[state].append(uid)
            else:
                alike[state] = [uid]
        masks, suffixes = self._masks, self._suffixes
        return [FlagUpdate(state, masks[state[0]], suffixes[state[:2]], uids) for state, uids in alike.items()]

    def _examined(self, uids: Sequence[int]) -> int:
        """Count the messages that were examined, from the first to the last of these."""
        if not uids:
            return 0
        low = bisect_left(self.records, uids[0], key=_uid_of)
        return bisect_right(self.records, uids[-1], key=_uid_of) - low

    def _rows(self, uids: Sequence[int], changed: Sequence[MessageRecord]) -> Sequence[Row]:
        masks = self._masks
        if len(changed) < MANY_ROWS:
            return [
                Row(
                    UID(uid),
                    masks[flags],
                    self._modseq,
                    UNKNOWN_SIZE if size is None else size,
                    UNKNOWN_DATE if date is None else date,
                )
                for uid, _modseq, flags, size, date, _base, _suffix, _place in changed
            ]
        flags = flag_column([masks[record[2]] for record in changed])
        sizes = array("I", [UNKNOWN_SIZE if record[3] is None else cap_size(record[3]) for record in changed])
        dates = array("q", [UNKNOWN_DATE if record[4] is None else record[4] for record in changed])
        return RunRows(Run(array("I", uids), flags, array("Q", [self._modseq]) * len(uids), sizes, dates))

    def _take_back(self) -> None:
        """Undo the renames as far as the disk lets it: nothing has been acknowledged."""
        done = [
            (f"{self._paths.place(self._changing[at][7])}/{os.fsdecode(old)}", f"{self._paths.cur}/{os.fsdecode(new)}")
            for at in self._done
            for old, new in [self._pairs[at]]
        ]
        for old, new in reversed(done):
            with contextlib.suppress(OSError, MailError):
                safeio.rename(new, old)
        with contextlib.suppress(OSError, MailError):
            sync_directories(os.path.dirname(path) for pair in done for path in pair)
