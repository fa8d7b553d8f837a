"""The save dates (RFC 8514) of one mailbox in memory, for SEARCH. They never change, so each is read once.

12 octets a message, from the first search for one on. Only the reactor's thread touches them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence

from mailserver.types import UID


class SaveDates:
    """Save dates by rising UID."""

    def __init__(self) -> None:
        self.uids = array("I")
        self.dates = array("q")
        """In seconds since 1970."""
        self.end = 0
        """Messages up to this UID have been asked for."""

    def missing(self, uids: Sequence[int], most: int) -> list[UID]:
        """Return the first `most` of these UIDs (rising) that have not been asked for."""
        start = bisect_left(uids, self.end + 1)
        return [UID(uid) for uid in uids[start : start + most]]

    def add(self, asked: Sequence[UID], found: Mapping[UID, int]) -> None:
        """Take the dates of what was `missing`. Another session may have asked for the same meanwhile."""
        new = [(uid, date) for uid, date in found.items() if uid > self.end]
        self.uids.extend([uid for uid, _date in new])
        self.dates.extend([date for _uid, date in new])
        self.end = max(self.end, asked[-1])

    def forget(self, uids: Sequence[int]) -> None:
        """Drop messages that are not among these, if they are most of what is here."""
        if len(self.uids) > 2 * len(uids) + 64:
            there = set(uids)
            kept = [(uid, date) for uid, date in zip(self.uids, self.dates, strict=True) if uid in there]
            self.uids, self.dates = array("I", [uid for uid, _ in kept]), array("q", [date for _, date in kept])
