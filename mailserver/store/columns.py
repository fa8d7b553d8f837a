"""One mailbox in memory: parallel columns with one entry a message, shared by all sessions of a worker.

Rules that let sessions share them without copies:

*   Appending extends the arrays in place. A view knows its own length, so it is not disturbed.
*   Expunging replaces `uids` by a new array. A view that has not reported the expunge yet keeps the old one.
*   Flags, sizes and dates are never frozen: a session may always report the newest ones.
*   Two logs, of changed and of expunged UIDs, let a view find its difference in O(difference).

Only the reactor's thread touches them.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence
from itertools import compress
from operator import lt
from typing import Any

from mailserver.store.flags import DELETED, NARROW, SEEN, FlagChange
from mailserver.store.modseq_bounds import ModSeqBounds
from mailserver.store.recent_expunges import RecentExpunges
from mailserver.store.rows import Changes, FlagColumn, Run, Snapshot, cap_size
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq, UIDValidity

LOG_LIMIT = 4096
"""Length above which a log that is also longer than the mailbox drops its older part. A view behind that rereads all
flags.
"""

_SEEN = bytes(mask & SEEN for mask in range(256))
_DELETED = bytes(bool(mask & DELETED) for mask in range(256))


class Columns:
    """The messages of one mailbox by rising UID: uids, flags (mask), modseqs, sizes, dates; 28 octets a message.

    Masks of more than 31 bits turn the flags of the mailbox into a list.
    """

    __slots__ = (
        "_all_seen",
        "_bounds",
        "_expunged_flags",
        "before_own",
        "changed",
        "changed_start",
        "dates",
        "deleted",
        "expunged",
        "expunged_start",
        "flags",
        "keywords",
        "modseq",
        "modseqs",
        "recent_expunges",
        "sizes",
        "uid_next",
        "uid_validity",
        "uids",
        "whole",
    )

    def __init__(self, snapshot: Snapshot) -> None:
        # Its arrays are taken over: a snapshot fills one Columns.
        self.uids = snapshot.uids
        self.flags = snapshot.flags
        self.modseqs = snapshot.modseqs
        self.sizes = snapshot.sizes
        self.dates = snapshot.dates
        self.modseq: ModSeq = snapshot.modseq
        self.keywords = snapshot.keywords
        self.uid_next: UID = snapshot.uid_next
        self.uid_validity: UIDValidity = snapshot.uid_validity
        self.changed = array("I")
        self.changed_start = 0
        self.before_own = 0
        self.expunged = array("I")
        self._expunged_flags: FlagColumn = array("I") if isinstance(self.flags, array) else []
        """The last flags of each message in the expunge log."""
        self.expunged_start = 0
        self.deleted = _count_deleted(self.flags)
        """The number of messages flagged \\Deleted."""
        self._all_seen = 0
        self._bounds = ModSeqBounds()
        self.recent_expunges = RecentExpunges(snapshot.modseq)
        self.whole = True
        """False once a message appeared whose UID is below others here, as from an old copy of a Maildir. Sessions
        count on their sequence numbers, so no message can be inserted: the mailbox has to be loaded anew to show it.
        """

    def __len__(self) -> int:
        return len(self.uids)

    def position(self, uid: int) -> int:
        """Return the position of that UID, or -1."""
        at = bisect_left(self.uids, uid)
        return at if at < len(self.uids) and self.uids[at] == uid else -1

    def first_unseen(self) -> int:
        """Return the position of the first message without \\Seen, or -1. The search continues where the last one
        stopped.
        """
        at = self._all_seen
        count = len(self.uids)
        step = 64
        while at < count:
            found = system_flags(self.flags[at : at + step]).translate(_SEEN).find(0)
            if found >= 0:
                self._all_seen = at + found
                return at + found
            at += step
            step *= 4
        self._all_seen = count
        return -1

    def newer(self, since: ModSeq, low: int, high: int) -> list[tuple[int, int]]:
        """Return the positions from `low` to below `high` with a modseq above `since`, as rising half-open ranges.

        Of the first call each message costs some 20 ns, later only those near to newer ones.
        """
        return self._bounds.newer(self.modseqs, since, low, min(high, len(self.uids)))

    def deleted_uids(self) -> list[UID]:
        """The messages flagged \\Deleted, rising."""
        if not self.deleted:
            return []
        marks = system_flags(self.flags).translate(_DELETED)
        found = []
        at = marks.find(1)
        while at >= 0:
            found.append(UID(self.uids[at]))
            at = marks.find(1, at + 1)
        return found

    def _widen(self) -> None:
        """Make room for masks with further keywords. Equal masks are one object: a message takes 4 octets more."""
        if isinstance(self.flags, array):
            self.flags, self._expunged_flags = interned(self.flags), interned(self._expunged_flags)

    def apply(self, changes: Changes) -> bool:
        """Apply changes. Return True if anything is new. Repeated or overlapping changes do no harm."""
        if changes.upto < self.modseq:
            return False
        # A keyword or a burnt UID may come without a message, and so without a new modseq.
        news = self.keywords != changes.keywords
        if news:
            self.keywords = changes.keywords
        self.uid_next = max(self.uid_next, changes.uid_next)
        if changes.upto > self.modseq:
            # The rows of a run are newer than all that is here, so each counts.
            run = changes.run if changes.since >= self.modseq else None
            news |= self._apply_rows(changes) if run is None else self._apply_run(run, changes.upto)
            news |= self._apply_expunged(changes)
            self.modseq = changes.upto
            self._trim()
        return news

    @property
    def changed_end(self) -> int:
        """The position after the change log."""
        return self.changed_start + len(self.changed)

    @property
    def expunged_end(self) -> int:
        """The position after the expunge log."""
        return self.expunged_start + len(self.expunged)

    def expunged_flags(self, since: int) -> dict[int, int]:
        """Return the last flags by UID of the messages in the expunge log from that position on."""
        at = since - self.expunged_start
        return dict(zip(self.expunged[at:], self._expunged_flags[at:], strict=True))

    def flag_expunged(self, since: int, uids: Collection[int], how: FlagChange, mask: int) -> None:
        """Change the flags of expunged messages for sessions that have not reported the expunge yet."""
        if mask > NARROW:
            self._widen()
        wanted = set(uids)
        for at in range(since - self.expunged_start, len(self.expunged)):
            if self.expunged[at] in wanted:
                self._expunged_flags[at] = how.combine(self._expunged_flags[at], mask)

    def begin_own(self) -> None:
        """Mark the end of the change log: what is applied next is a session's own change (see View.silence)."""
        self.before_own = self.changed_end

    def learn(self, uid: int, size: int, date: int) -> None:
        """Fill in a size and date that were unknown until the file was read. No session reports it as a change."""
        at = self.position(uid)
        if at >= 0:
            if size != UNKNOWN_SIZE:
                self.sizes[at] = cap_size(size)
            if self.dates[at] == UNKNOWN_DATE:
                self.dates[at] = date

    def _apply_rows(self, changes: Changes) -> bool:
        news = False
        last = self.uids[-1] if self.uids else 0
        for row in changes.rows:
            if row.flags > NARROW:
                self._widen()
            if row.uid > last:
                last = row.uid
                self.uids.append(row.uid)
                self.flags.append(row.flags)
                self.deleted += bool(row.flags & DELETED)
                self.modseqs.append(row.modseq)
                self.sizes.append(cap_size(row.size))
                self.dates.append(row.date)
            else:
                at = self.position(row.uid)
                if at < 0 or self.modseqs[at] >= row.modseq:
                    self.whole = self.whole and at >= 0
                    continue
                if self.flags[at] != row.flags:
                    self.changed.append(row.uid)
                    self.deleted += bool(row.flags & DELETED) - bool(self.flags[at] & DELETED)
                    if at < self._all_seen and not row.flags & SEEN:
                        self._all_seen = at
                    self.flags[at] = row.flags
                self.modseqs[at] = row.modseq
                self._bounds.raised(at, at + 1, changes.upto)
                self.sizes[at] = cap_size(row.size)
                self.dates[at] = row.date
            news = True
        return news

    def _apply_run(self, run: Run, upto: ModSeq) -> bool:
        if not isinstance(run.flags, array):
            self._widen()
        known = bisect_right(run.uids, self.uids[-1]) if self.uids else 0
        if known:
            self._change_run(run.part(slice(known)) if known < len(run.uids) else run, upto)
        if known < len(run.uids):
            new = run.part(slice(known, None)) if known else run
            self.uids.extend(new.uids)
            self.flags.extend(new.flags)
            self.deleted += _count_deleted(new.flags)
            self.modseqs.extend(new.modseqs)
            self.sizes.extend(new.sizes)
            self.dates.extend(new.dates)
        return bool(run.uids)

    def _change_run(self, run: Run, upto: ModSeq) -> None:
        places = find_all(self.uids, run.uids)
        flags = run.flags
        if isinstance(places, range):
            here = slice(places.start, places.stop)
            before = self.flags[here]
            self.flags[here] = flags
            self.modseqs[here], self.sizes[here], self.dates[here] = run.modseqs, run.sizes, run.dates
            self._bounds.raised(places.start, places.stop, upto)
        else:
            if -1 in places:
                self.whole = False
                there = [at >= 0 for at in places]
                run = Run(*(_picked(column, there) for column in run))
                places, flags = [at for at in places if at >= 0], run.flags
            before = _taken(self.flags, places)
            for at, mask, modseq, size, date in zip(places, flags, run.modseqs, run.sizes, run.dates, strict=True):
                self.flags[at], self.modseqs[at], self.sizes[at], self.dates[at] = mask, modseq, size, date
                self._bounds.raised(at, at + 1, upto)
        self.changed.extend([uid for uid, old, new in zip(run.uids, before, flags, strict=True) if old != new])
        self.deleted += _count_deleted(flags) - _count_deleted(before)
        unseen = system_flags(flags).translate(_SEEN).find(0)
        if unseen >= 0:
            self._all_seen = min(self._all_seen, places[unseen])

    def _apply_expunged(self, changes: Changes) -> bool:
        positions: Sequence[int]
        if changes.present is not None:
            self.recent_expunges = RecentExpunges(changes.upto)
        elif changes.expunged:
            self.recent_expunges.add(changes.expunged, changes.upto)
        if changes.present is None:
            positions = find_all(self.uids, rising(array("I", changes.expunged)))
            if not isinstance(positions, range):
                positions = [at for at in positions if at >= 0]
        elif changes.present == self.uids:
            positions = []
        else:
            there = set(changes.present)
            positions = [at for at, uid in enumerate(self.uids) if uid not in there]
        if not positions:
            return False
        self.expunged.extend(_taken(self.uids, positions))
        self._expunged_flags.extend(_taken(self.flags, positions))
        self.deleted -= _count_deleted(_taken(self.flags, positions))
        self._all_seen -= bisect_left(positions, self._all_seen)
        self._bounds.removed(positions)
        for name in ("uids", "flags", "modseqs", "sizes", "dates"):
            setattr(self, name, _without(getattr(self, name), positions))
        return True

    def _trim(self) -> None:
        limit = max(LOG_LIMIT, len(self.uids))
        if len(self.changed) > 2 * limit:
            drop = len(self.changed) - limit
            self.changed_start += drop
            del self.changed[:drop]

    def forget_expunged(self, upto: int) -> None:
        """Drop the expunge log below that position: every view has passed it."""
        if upto > self.expunged_start:
            del self.expunged[: upto - self.expunged_start]
            del self._expunged_flags[: upto - self.expunged_start]
            self.expunged_start = upto


def system_flags(flags: Sequence[int]) -> bytes:
    """The masks without most keywords, one octet each, for searches at the speed of C."""
    if not isinstance(flags, array):
        return bytes([mask & 255 for mask in flags])
    size = flags.itemsize
    return flags.tobytes()[0 if sys.byteorder == "little" else size - 1 :: size]


def interned(masks: Iterable[int]) -> list[int]:
    """Return the masks as a list in which equal ones are one object."""
    known: dict[int, int] = {}
    return [known.setdefault(mask, mask) for mask in masks]


def _count_deleted(flags: Sequence[int]) -> int:
    return system_flags(flags).translate(_DELETED).count(1)


def rising(uids: array[int]) -> array[int]:
    """Return the UIDs sorted, each once."""
    return uids if all(map(lt, uids, uids[1:])) else array("I", sorted(set(uids)))


def find_all(uids: array[int], wanted: array[int], count: int | None = None) -> Sequence[int]:
    """Return the position of each wanted UID (rising, none twice) in the first `count` of `uids`, -1 where it is
    missing.

    The result is a range if the UIDs are consecutive and all there, as in STORE 1:*.
    """
    end = len(uids) if count is None else count
    number = len(wanted)
    if not number:
        return range(0)
    start = bisect_left(uids, wanted[0], 0, end)
    if start + number <= end and uids[start : start + number] == wanted:
        return range(start, start + number)
    if number * _TABLE_PAYS > end:
        where = dict(zip(uids[:end], range(end), strict=True))
        return [where.get(uid, -1) for uid in wanted]
    found = []
    for uid in wanted:
        at = bisect_left(uids, uid, start, end)
        found.append(at if at < end and uids[at] == uid else -1)
    return found


_TABLE_PAYS = 16
"""A table of all positions is cheaper than single searches if at least one UID of so many is wanted."""
_FEW_GAPS = 256


def _picked(column: FlagColumn, there: Sequence[bool]) -> Any:
    """The entries that are there, in a column of the same form."""
    found = compress(column, there)
    return array(column.typecode, found) if isinstance(column, array) else list(found)


def _taken(column: FlagColumn, positions: Sequence[int]) -> FlagColumn:
    """The entries at those rising positions."""
    if isinstance(positions, range):
        return column[positions.start : positions.stop]
    found = map(column.__getitem__, positions)
    return array(column.typecode, found) if isinstance(column, array) else list(found)


def _without(column: FlagColumn, positions: Sequence[int]) -> FlagColumn:
    """A new column without the entries at those rising positions."""
    if not isinstance(column, array):
        gone = set(positions)
        return [mask for at, mask in enumerate(column) if at not in gone]
    if isinstance(positions, range):
        return column[: positions.start] + column[positions.stop :]
    if len(positions) > _FEW_GAPS:
        kept = bytearray(b"\1") * len(column)
        for at in positions:
            kept[at] = 0
        return array(column.typecode, compress(column, kept))
    kept_parts = column[: positions[0]]
    for this, following in zip(positions, [*positions[1:], len(column)], strict=True):
        kept_parts.extend(column[this + 1 : following])
    return kept_parts
