"""The candidates of a search, and sets of them as bit rows: numbers with one bit a candidate."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

from mailserver.types import UID

_FEW: Final = 64
"""Candidates that are better handled one by one."""


class Candidates:
    """The candidates of one search, by rising UID.

    In a bit row candidate 0 is the highest of as many bits as there are candidates, so that int(text, 2) makes one.
    """

    def __init__(self, uids: Sequence[UID]) -> None:
        self._uids = uids
        self._count = len(uids)
        self.all = (1 << self._count) - 1
        """The bit row of all candidates."""

    def bits(self, uids: Sequence[int]) -> int:
        """Return the bit row of these candidates, in any order."""
        if not uids:
            return 0
        if len(uids) == self._count:
            return self.all
        if len(uids) <= _FEW:
            bits = 0
            for uid in uids:
                bits |= 1 << (self._count - 1 - bisect_left(self._uids, uid))
            return bits
        text = bytearray(b"0") * self._count
        for uid in uids:
            text[bisect_left(self._uids, uid)] = 49
        return int(text, 2)

    def of(self, bits: int) -> list[UID]:
        """Return the candidates in a bit row, rising."""
        if bits == 0:
            return []
        if bits == self.all:
            return list(self._uids)
        if bits.bit_count() <= _FEW:
            found = []
            while bits:
                highest = bits.bit_length() - 1
                found.append(self._uids[self._count - 1 - highest])
                bits ^= 1 << highest
            return found
        return [uid for uid, bit in zip(self._uids, format(bits, f"0{self._count}b"), strict=True) if bit == "1"]

    def within(self, ranges: Iterable[tuple[int, int]]) -> int:
        """Return the bit row of the candidates in these ranges of UIDs, first and last included."""
        bits = 0
        for first, last in ranges:
            low, high = bisect_left(self._uids, first), bisect_right(self._uids, last)
            if low < high:
                bits |= ((1 << (high - low)) - 1) << (self._count - high)
        return bits
