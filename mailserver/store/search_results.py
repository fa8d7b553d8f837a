"""The tests of rows in a search, and the results of one round of tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from mailserver.store.query import Arrived, ChangedSince, Larger, Received, Smaller
from mailserver.store.rows import Row
from mailserver.types import UNKNOWN_DATE, UNKNOWN_SIZE

DAY: Final = 86400


class Results:
    """The results of one round, grouped by test."""

    def __init__(self, tests: Sequence[tuple[int, object]]) -> None:
        self._numbers = [number for number, _ in tests]
        self._yes: list[list[int]] = [[] for _ in tests]
        self._no: list[list[int]] = [[] for _ in tests]

    def add(self, uid: int, answers: Iterable[bool | None]) -> bool:
        """Add one message's results, in the order of the tests. True if one of them is None."""
        unknown = False
        for yes, no, answer in zip(self._yes, self._no, answers, strict=True):
            if answer is None:
                unknown = True
            else:
                (yes if answer else no).append(uid)
        return unknown

    def by_test(self) -> Iterable[tuple[int, list[int], list[int]]]:
        """(number of the key, UIDs that match, UIDs that do not)."""
        return zip(self._numbers, self._yes, self._no, strict=True)


def row_test(leaf: Larger | Smaller | Received | Arrived | ChangedSince) -> Callable[[Row], bool | None]:
    """Make the test of a row for a key. It returns None where the row does not tell."""
    match leaf:
        case Larger(size):
            return lambda row: None if row.size == UNKNOWN_SIZE else row.size > size
        case Smaller(size):
            return lambda row: None if row.size == UNKNOWN_SIZE else row.size < size
        case Received(first, end):
            return lambda row: None if row.date == UNKNOWN_DATE else is_within(row.date // DAY, first, end)
        case Arrived(first, end):
            return lambda row: None if row.date == UNKNOWN_DATE else is_within(row.date, first, end)
        case ChangedSince(modseq):
            return lambda row: row.modseq >= modseq


def is_within(day: int, first: int | None, end: int | None) -> bool:
    """Tell whether `first` <= day < `end`, where None is open."""
    return (first is None or first <= day) and (end is None or day < end)
