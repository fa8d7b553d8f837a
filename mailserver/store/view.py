"""One session's view of a mailbox: sequence numbers to UIDs. It changes only when `sync` is called.

RFC 3501 7.4.1: sequence numbers may change only where the client expects it. A view that is up to date with the columns
owns no array. One that is behind keeps the old `uids` array, which all views in the same state share.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import cast

from attrs import frozen

from mailserver.store.columns import Columns, find_all, rising
from mailserver.store.recent_uids import RecentUIDs
from mailserver.types import UID, ModSeq, SeqNum


@frozen
class ViewChanges:
    """The changes of one `sync`, in the order in which a client gets them."""

    expunged: Sequence[tuple[SeqNum, UID]]
    """Highest sequence number first, so that each number is right when it is sent."""
    exists: int | None
    """The new number of messages, if it is higher than the expunges explain."""
    recent: int
    """The number of \\\\Recent messages in this session now, if the mailbox grew."""
    flags: Sequence[tuple[SeqNum, UID]]
    """Messages whose flags changed, rising; numbers as after the expunges."""
    keywords: tuple[str, ...] | None
    """The mailbox's keywords if they changed."""

    def __bool__(self) -> bool:
        return bool(self.expunged or self.exists is not None or self.flags or self.keywords is not None)


class View:
    """A frozen view. `uids[:count]` are its messages; position + 1 is the sequence number."""

    __slots__ = (
        "_changed_at",
        "_complete",
        "_expunged_at",
        "_keywords",
        "_reported",
        "_silenced",
        "_silenced_runs",
        "columns",
        "count",
        "recent_uids",
        "uids",
    )

    def __init__(self, columns: Columns, recent: range = range(0)) -> None:
        """`recent`: UIDs that are \\Recent in this session."""
        self.columns = columns
        self.uids: array[int] = columns.uids
        self.count = len(columns.uids)
        self.recent_uids = RecentUIDs()
        self.recent_uids.add(recent)
        self._changed_at = columns.changed_end
        self._expunged_at = columns.expunged_end
        self._keywords = columns.keywords
        self._reported: ModSeq = columns.modseq
        self._complete: ModSeq = columns.modseq
        self._silenced: dict[int, ModSeq] = {}
        """By UID: the modseq up to which the message's flag changes are not reported."""
        self._silenced_runs: list[tuple[int, int, ModSeq]] = []
        """The same for all messages between two UIDs that were neighbours."""

    @property
    def expunged_position(self) -> int:
        """The position in the expunge log up to which this view has reported it."""
        return self._expunged_at

    @property
    def has_unreported_expunges(self) -> bool:
        """True if a message of this view no longer exists."""
        return self._expunged_at != self.columns.expunged_end

    @property
    def complete_modseq(self) -> ModSeq:
        """A modseq up to which this view has reported everything (RFC 7162 3.2): the mailbox's own, unless it is behind."""
        if not self.behind():
            self._complete = self.columns.modseq
        return self._complete

    def changed_since(self, modseq: ModSeq, low: int, high: int) -> list[tuple[int, int]]:
        """Return the positions from `low` to below `high` of messages with a modseq above that, as rising half-open
        ranges. Messages that no longer exist are left out.
        """
        columns, high = self.columns, min(high, self.count)
        if self.is_synced or low >= high:
            return columns.newer(modseq, low, high)
        first = bisect_left(columns.uids, self.uids[low])
        found: list[tuple[int, int]] = []
        for start, end in columns.newer(modseq, first, bisect_right(columns.uids, self.uids[high - 1])):
            places = find_all(self.uids, columns.uids[start:end], self.count)
            if isinstance(places, range):
                found.append((places.start, places.stop))
            else:
                found += [(at, at + 1) for at in places if at >= 0]
        return found

    @property
    def is_synced(self) -> bool:
        """True if every message of the columns has the same position here."""
        return self.uids is self.columns.uids

    def uid(self, seq: int) -> UID | None:
        """Return the UID of a sequence number, None beyond the end."""
        return UID(self.uids[seq - 1]) if 1 <= seq <= self.count else None

    def seq(self, uid: int) -> SeqNum | None:
        """Return the sequence number of a UID, None if it is not in this view."""
        at = bisect_left(self.uids, uid, 0, self.count)
        return SeqNum(at + 1) if at < self.count and self.uids[at] == uid else None

    def recent(self) -> int:
        """Return the number of messages that are \\Recent in this session."""
        return self.recent_uids.count(self.uids, self.count)

    @property
    def last_uid(self) -> int:
        """Return the highest UID, 0 if there is none."""
        return self.uids[self.count - 1] if self.count else 0

    def take_keywords(self) -> tuple[str, ...] | None:
        """Return the mailbox's keywords, if they have changed since they were reported."""
        keywords = self.columns.keywords
        if keywords == self._keywords:
            return None
        self._keywords = keywords
        return keywords

    def behind(self) -> bool:
        """Tell whether `sync(allow_expunge=True)` would report anything. O(1)."""
        columns = self.columns
        return (
            self._expunged_at != columns.expunged_end
            or self.count != len(columns.uids)
            or self._changed_at != columns.changed_end
            or (self._keywords is not columns.keywords and self._keywords != columns.keywords)
        )

    def silence(self, uids: Iterable[int]) -> None:
        """Do not report the flags that the client's own command has just set in these messages.

        Call it right after `LiveMailbox.change`. Unreported changes that others made before it are reported
        nevertheless (RFC 3501 6.4.6).
        """
        columns = self.columns
        if self._changed_at < columns.changed_start:
            return
        # What is applied later is newer than what the columns hold now.
        upto = columns.modseq
        others = set(
            columns.changed[
                self._changed_at - columns.changed_start : max(columns.before_own - columns.changed_start, 0)
            ]
        )
        numbers = array("I", uids)
        if others:
            self._silenced.update((uid, upto) for uid in numbers if uid not in others)
        elif numbers and isinstance(find_all(columns.uids, numbers), range):
            self._silenced_runs.append((numbers[0], numbers[-1], upto))
        else:
            self._silenced.update(dict.fromkeys(numbers, upto))

    def sync(self, *, allow_expunge: bool, below: UID | None = None, flags: bool = True) -> ViewChanges:
        """Move to the current columns; O(changes).

        Expunges are reported only where allowed. New messages are reported below that UID, or all. Their flags are not: the
        client has not seen others. Without `flags`
        changes of flags wait for a later call, which then reports those of the client itself, too.
        """
        expunged = self._take_expunged() if allow_expunge else []
        known = self.last_uid
        exists = self._take_new(below)
        changed: list[tuple[SeqNum, UID]] = []
        if flags:
            changed = self._take_flags(known)
        else:
            self._silenced.clear()
            self._silenced_runs.clear()
        keywords = self.take_keywords()
        if not self.behind():
            self._complete = self.columns.modseq
        return ViewChanges(expunged, exists, self.recent() if exists is not None else 0, changed, keywords)

    def _take_expunged(self) -> list[tuple[SeqNum, UID]]:
        columns = self.columns
        end = columns.expunged_end
        if self._expunged_at == end:
            return []
        gone = rising(columns.expunged[self._expunged_at - columns.expunged_start :])
        places = find_all(self.uids, gone, self.count)
        reported = _numbered(places, gone)
        reported.reverse()
        self._expunged_at = end
        # The rest of this view is a prefix of the columns: UIDs only ever grow.
        self.count -= len(reported)
        self.uids = columns.uids
        return reported

    def _take_new(self, below: UID | None) -> int | None:
        columns = self.columns
        end = len(columns.uids) if below is None else bisect_left(columns.uids, below)
        if self.uids is columns.uids:
            if self.count >= end:
                return None
            self.count = end
            return self.count
        new = columns.uids[bisect_left(columns.uids, self.last_uid + 1) : end]
        if not new:
            return None
        # An expunge is not reported yet: this view gets an array of its own.
        self.uids = self.uids[: self.count] + new
        self.count = len(self.uids)
        return self.count

    def _take_flags(self, known: int) -> list[tuple[SeqNum, UID]]:
        """Return the messages up to that UID whose flags have changed."""
        columns = self.columns
        end = columns.changed_end
        if self._changed_at < columns.changed_start:
            reported = self._reported
            numbers = array("I", [uid for uid, at in zip(columns.uids, columns.modseqs, strict=True) if at > reported])
        else:
            numbers = rising(columns.changed[self._changed_at - columns.changed_start :])
        self._changed_at = end
        self._reported = columns.modseq
        silenced, self._silenced = self._silenced, {}
        runs, self._silenced_runs = self._silenced_runs, []
        if numbers and numbers[-1] > known:
            numbers = numbers[: bisect_right(numbers, known)]
        if not numbers:
            return []
        places = find_all(columns.uids, numbers)
        if isinstance(places, range):
            newest = max(columns.modseqs[places.start : places.stop])
            if any(low <= numbers[0] and numbers[-1] <= high and newest <= upto for low, high, upto in runs):
                return []
        elif -1 in places:
            there = [(at, uid) for at, uid in zip(places, numbers, strict=True) if at >= 0]
            places, numbers = [at for at, _uid in there], array("I", [uid for _at, uid in there])
        if silenced or runs:
            loud = [
                (at, uid)
                for at, uid in zip(places, numbers, strict=True)
                if silenced.get(uid, 0) < columns.modseqs[at]
                and not any(low <= uid <= high and columns.modseqs[at] <= upto for low, high, upto in runs)
            ]
            places, numbers = [at for at, _uid in loud], array("I", [uid for _at, uid in loud])
        if not self.is_synced:
            # An expunge is not reported yet, so the same messages have other positions here.
            places = find_all(self.uids, numbers, self.count)
        return _numbered(places, numbers)


def _numbered(places: Sequence[int], uids: Sequence[int]) -> list[tuple[SeqNum, UID]]:
    """Return sequence numbers and UIDs of those that have a position."""
    # In C, and without NewType's calls: there may be a hundred thousand.
    pairs: Iterable[tuple[int, int]]
    if isinstance(places, range):
        pairs = zip(range(places.start + 1, places.stop + 1), uids, strict=True)
    else:
        pairs = ((at + 1, uid) for at, uid in zip(places, uids, strict=True) if at >= 0)
    return cast("list[tuple[SeqNum, UID]]", list(pairs))
