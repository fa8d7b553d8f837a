"""\\Recent (RFC 3501 2.3.2): the UIDs that are \\Recent in one session, and the claims of this worker.

A message is \\Recent in the first session that reports it, and in no other. The store keeps, for all workers, the
lowest unclaimed UID. A session claims messages right before it reports them. Where a worker knows that a session will
report messages at once, it claims them in the turn that brings them, and hands them over later.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from mailserver.types import UID

NONE_CLAIMED: Final = range(0)


class RecentUIDs:
    """Rising ranges of UIDs that do not touch."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __contains__(self, uid: int) -> bool:
        at = bisect_right(self._starts, uid)
        return at > 0 and uid < self._stops[at - 1]

    @property
    def first(self) -> int | None:
        """The lowest UID, None if there is none."""
        return self._starts[0] if self._starts else None

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The ranges, both ends included."""
        return tuple((start, stop - 1) for start, stop in zip(self._starts, self._stops, strict=True))

    def add(self, uids: range) -> None:
        """Add a range."""
        if not uids:
            return
        low = bisect_left(self._stops, uids.start)
        high = bisect_right(self._starts, uids.stop)
        start, stop = uids.start, uids.stop
        if low < high:
            start, stop = min(start, self._starts[low]), max(stop, self._stops[high - 1])
        self._starts[low:high] = [start]
        self._stops[low:high] = [stop]

    def count(self, uids: Sequence[int], end: int) -> int:
        """Count the UIDs among the first `end` of `uids`, which rise."""
        return sum(
            bisect_left(uids, stop, 0, end) - bisect_left(uids, start, 0, end)
            for start, stop in zip(self._starts, self._stops, strict=True)
        )

    def parts(self, uids: Sequence[int]) -> Iterator[tuple[int, int, bool]]:
        """Cut rising UIDs into slices: from, to, and whether all of the slice is \\Recent or none."""
        at = 0
        if self._starts and uids:
            first = max(bisect_right(self._starts, uids[0]) - 1, 0)
            for start, stop in zip(self._starts[first:], self._stops[first:], strict=True):
                low = bisect_left(uids, start, at)
                if low == len(uids):
                    break
                high = bisect_left(uids, stop, low)
                if low > at:
                    yield at, low, False
                if high > low:
                    yield low, high, True
                at = high
        if at < len(uids):
            yield at, len(uids), False


class RecentClaims:
    """The \\Recent messages of a mailbox that this worker has claimed and no session has reported yet.

    `add` is called in the account's thread too, the other methods on the reactor's thread alone.
    """

    def __init__(self) -> None:
        self._untold: deque[range] = deque()
        self.end = UID(1)
        """Messages with a lower UID are claimed, here or by another worker."""

    def add(self, claimed: range, end: UID) -> None:
        """Keep claimed UIDs for the first session that reports them. Everything below `end` is claimed now."""
        if claimed:
            self._untold.append(claimed)
        self.end = max(self.end, end)

    def take(self, below: UID) -> list[range]:
        """Hand over the UIDs below `below`."""
        taken = []
        for _ in range(len(self._untold)):
            uids = self._untold.popleft()
            if later := range(max(uids.start, below), uids.stop):
                self._untold.append(later)
            if now := range(uids.start, min(uids.stop, below)):
                taken.append(now)
        return taken

    def peek(self, below: UID) -> list[range]:
        """The same UIDs for a session that may not claim them (EXAMINE)."""
        return [range(uids.start, min(uids.stop, below)) for uids in tuple(self._untold)]
