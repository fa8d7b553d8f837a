"""Sequence sets (RFC 3501 9, `sequence-set`): parsed in linear time, sorted and merged, and written compactly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from attrs import frozen

from mailserver.errors import BadSyntax, LimitReached

MAX_RANGES = 20_000
"""Elements of one set. A line of the usual length holds fewer."""

STAR = 0
"""Stands for `*` in a parsed set."""

_ELEMENT = rb"(?:[1-9][0-9]{0,9}|\*)"
_SET = re.compile(rb"%b(?::%b)?(?:,%b(?::%b)?)*\Z" % (_ELEMENT, _ELEMENT, _ELEMENT, _ELEMENT))
_LARGEST = 2**32 - 1


@frozen
class SequenceSet:
    """A set as the client wrote it. It means numbers only once the largest one in use is known."""

    elements: tuple[tuple[int, int], ...]
    """Pairs of ends, both included, in any order; STAR is `*`."""
    is_saved: bool = False
    """It is `$`, the saved result of a search (RFC 5182), which the session has; it has no elements."""

    @classmethod
    def parse(cls, data: bytes) -> SequenceSet:
        """Parse a set. Raises: BadSyntax, LimitReached (more than MAX_RANGES elements)."""
        return SAVED if data == b"$" else _parse(data)

    def ranges(self, largest: int) -> list[tuple[int, int]]:
        """Rising ranges that do not touch, both ends included, with `*` as `largest`; numbers may lie beyond it.

        With `largest` 0 nothing is in use: `*` alone is then no range, `n:*` begins at 1 and ends at n.
        """
        pairs = []
        for first, last in self.elements:
            low, high = first or largest, last or largest
            if low > high:
                low, high = high, low
            if high:
                pairs.append((low or 1, high))
        pairs.sort()
        merged: list[tuple[int, int]] = []
        for low, high in pairs:
            if merged and low <= merged[-1][1] + 1:
                if high > merged[-1][1]:
                    merged[-1] = (merged[-1][0], high)
            else:
                merged.append((low, high))
        return merged


SAVED = SequenceSet((), is_saved=True)


@lru_cache(maxsize=256)
def _parse_short(data: bytes) -> SequenceSet:
    return _parse_any(data)


def _parse(data: bytes) -> SequenceSet:
    return _parse_short(data) if len(data) <= 64 else _parse_any(data)


def _parse_any(data: bytes) -> SequenceSet:
    if not _SET.match(data):
        raise BadSyntax("expected a sequence set")
    if data.count(b",") >= MAX_RANGES:
        raise LimitReached("the sequence set has too many elements")
    elements = []
    for element in data.split(b","):
        first, colon, last = element.partition(b":")
        low = STAR if first == b"*" else int(first)
        high = low if not colon else STAR if last == b"*" else int(last)
        if low > _LARGEST or high > _LARGEST:
            raise BadSyntax("a number in the sequence set is too large")
        elements.append((low, high))
    return SequenceSet(tuple(elements))


def runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Runs of consecutive numbers in the order given, both ends included."""
    first = last = 0
    for number in numbers:
        if first and number == last + 1:
            last = number
        else:
            if first:
                yield first, last
            first = last = number
    if first:
        yield first, last


def format_set(numbers: Iterable[int]) -> bytes:
    """Numbers (at least one), in the order given, as a `uid-set` with runs joined: b"1:3,7"."""
    return format_runs(runs(numbers))


def format_runs(ranges: Iterable[tuple[int, int]]) -> bytes:
    """Ranges, both ends included, as a `uid-set`."""
    return b",".join(b"%d:%d" % run if run[0] != run[1] else b"%d" % run[0] for run in ranges)
