"""The last expunges of a mailbox in memory, for clients that resynchronize while this worker has it: the store is not asked."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

MOST: Final = 1000
"""Expunges that are remembered, and at times up to twice as many; 12 octets each."""


class RecentExpunges:
    """UIDs with modseqs that are not below those of their expunges: some may be reported once more than needed."""

    __slots__ = ("_modseqs", "_since", "_uids")

    def __init__(self, since: int) -> None:
        """No expunge after that modseq is missing."""
        self._since = since
        self._uids = array("I")
        self._modseqs = array("Q")

    def add(self, uids: Iterable[int], modseq: int) -> None:
        """Add expunges up to that modseq, which is above all earlier ones."""
        uids = array("I", uids)
        self._uids.extend(uids)
        self._modseqs.extend(array("Q", [modseq]) * len(uids))
        if len(self._uids) > 2 * MOST:
            drop = bisect_right(self._modseqs, self._modseqs[-MOST - 1])
            self._since = self._modseqs[drop - 1]
            del self._uids[:drop], self._modseqs[:drop]

    def after(self, modseq: int) -> array[int] | None:
        """Return the UIDs, rising; None if they are not known that far back."""
        if modseq < self._since:
            return None
        return array("I", sorted(self._uids[bisect_right(self._modseqs, modseq) :]))
