"""SEARCH in memory: positions in a view, narrowed by ranges, flags, sizes and dates.

A large mailbox is searched in slices, so that the reactor's thread serves others between two.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import compress
from typing import Final

from attrs import frozen

from mailserver.store.columns import system_flags
from mailserver.store.flags import KEYWORD_BIT, SYSTEM_FLAGS, keyword_bits
from mailserver.store.query import (
    All,
    And,
    Arrived,
    ChangedSince,
    HasFlag,
    InUIDs,
    Larger,
    Not,
    Query,
    Received,
    Smaller,
)
from mailserver.store.rows import LARGEST_SIZE
from mailserver.store.view import View
from mailserver.types import UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq

SLICE: Final = 10_000
"""Messages that are tested before others get their turn."""
_DAY: Final = 86400
_FEW: Final = 8
"""Positions of which at most one is found are looked up one by one."""
_NO_SIZES: Final = (UNKNOWN_SIZE, LARGEST_SIZE)
"""Not read yet, and too large for the column."""
_EVER: Final = 1 << 63
"""More than any date."""

Fact = Larger | Smaller | Received | Arrived


@frozen
class SearchPlan:
    """A query, divided by the source of the answer."""

    ranges: Sequence[tuple[int, int]]
    """Positions that may match, half-open and rising."""
    care: int
    """Mask of the flags that are asked for."""
    wanted: int
    """The required values of these flags."""
    facts: Sequence[Fact]
    """The tests for which the columns have most messages' values."""
    rest: Sequence[Query]
    """The tests that need the store."""
    since: ModSeq | None = None
    """Only messages with a higher modseq match."""

    @property
    def only_dates(self) -> bool:
        """No size is asked for."""
        return all(isinstance(fact, Received | Arrived) for fact in self.facts)

    def slices(self) -> Iterator[tuple[int, int]]:
        """The ranges in parts of SLICE positions at most."""
        for low, high in self.ranges:
            for start in range(low, high, SLICE):
                yield start, min(start + SLICE, high)

    def flagged(self, view: View, low: int, high: int) -> Sequence[int]:
        """The positions from `low` to `high` that have the wanted flags and modseqs."""
        if self.since is None:
            return _with_flags(view, low, high, self.care, self.wanted) if self.care else range(low, high)
        ranges = view.changed_since(self.since, low, high)
        if not self.care:
            return [at for first, end in ranges for at in range(first, end)]
        return [at for first, end in ranges for at in _with_flags(view, first, end, self.care, self.wanted)]

    def evaluate(self, view: View, positions: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """The positions that pass the facts, and those that cannot be tested, as a size or date is not known; rising."""
        unknown: set[int] = set()
        for fact in self.facts:
            column, unknown_values, first, end = _bounds(view, fact)
            positions, values = _values(view, column, positions)
            if any(value in values for value in unknown_values):
                lacking = {at for at, value in zip(positions, values, strict=True) if value in unknown_values}
                unknown |= lacking
            else:
                lacking = set()
            positions = [
                at for at, value in zip(positions, values, strict=True) if first <= value < end or at in lacking
            ]
        if not unknown:
            return positions, ()
        return [at for at in positions if at not in unknown], [at for at in positions if at in unknown]


def plan(view: View, query: Query) -> SearchPlan | None:
    """The plan for a query; None if nothing can match."""
    wanted = refused = 0
    since: ModSeq | None = None
    sets = [[(0, view.count)]]
    known: set[tuple[bool, int]] = set()
    """The sets that are there: one key, as `$`, may stand in a query a thousand times."""
    facts: list[Fact] = []
    rest: list[Query] = []
    todo = [query]
    while todo:
        key = todo.pop()
        match key:
            case All():
                pass
            case And(parts):
                todo += reversed(parts)
            case InUIDs(pairs) | Not(InUIDs(pairs)):
                is_wanted = isinstance(key, InUIDs)
                if (is_wanted, id(pairs)) not in known:
                    known.add((is_wanted, id(pairs)))
                    found = _positions(view, pairs)
                    sets.append(found if is_wanted else _complement(found, view.count))
            case HasFlag(flag):
                mask = _mask(view, flag)
                if not mask:
                    return None
                wanted |= mask
            case Not(HasFlag(flag)):
                refused |= _mask(view, flag)
            case Larger() | Smaller() | Received() | Arrived():
                facts.append(key)
            case ChangedSince(modseq):
                since = ModSeq(max(modseq - 1, -1 if since is None else since))
            case _:
                rest.append(key)
    if wanted & refused:
        return None
    return SearchPlan(_intersect_all(sets), wanted | refused, wanted, _join(facts), rest, since)


def _with_flags(view: View, low: int, high: int, care: int, wanted: int) -> Sequence[int]:
    """The positions whose flags under the mask are the wanted ones."""
    columns = view.columns
    if view.is_synced:
        if care < 1 << KEYWORD_BIT:
            return _with_system_flags(columns.flags[low:high], low, care, wanted)
        return [at for at, mask in enumerate(columns.flags[low:high], low) if mask & care == wanted]
    return [
        at
        for at in range(low, high)
        if (place := columns.position(view.uids[at])) >= 0 and columns.flags[place] & care == wanted
    ]


def _with_system_flags(flags: Sequence[int], low: int, care: int, wanted: int) -> Sequence[int]:
    """Do `_with_flags` for the positions from `low` on, which have these flags: by few calls for all of them."""
    marks = system_flags(flags).translate(_marks(care, wanted))
    count = marks.count(1)
    if count == len(flags):
        return range(low, low + count)
    if count > len(flags) // _FEW:
        return list(compress(range(low, low + len(flags)), marks))
    found = []
    at = marks.find(1)
    while at >= 0:
        found.append(low + at)
        at = marks.find(1, at + 1)
    return found


@cache
def _marks(care: int, wanted: int) -> bytes:
    """Return the table that maps a mask of system flags to 1 if it has the wanted flags; for 1,024 pairs at most."""
    return bytes(mask & care == wanted for mask in range(256))


def _values(view: View, column: Sequence[int], positions: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """The positions whose messages exist, and the column's value of each."""
    if view.is_synced:
        if isinstance(positions, range):
            return positions, column[positions.start : positions.stop]
        return positions, [column[at] for at in positions]
    find, uids = view.columns.position, view.uids
    there = [(at, column[place]) for at in positions if (place := find(uids[at])) >= 0]
    return [at for at, _value in there], [value for _at, value in there]


def _bounds(view: View, fact: Fact) -> tuple[Sequence[int], tuple[int, ...], int, int]:
    """The column of a fact, its values for "unknown", the lower bound, and the upper bound (not included)."""
    columns = view.columns
    match fact:
        case Larger(size):
            return columns.sizes, _NO_SIZES, size + 1, _EVER
        case Smaller(size):
            return columns.sizes, _NO_SIZES, 0, size
        case Received(first, end):
            return (
                columns.dates,
                (UNKNOWN_DATE,),
                -_EVER if first is None else first * _DAY,
                _EVER if end is None else end * _DAY,
            )
        case Arrived(first, end):
            return columns.dates, (UNKNOWN_DATE,), -_EVER if first is None else first, _EVER if end is None else end


def _mask(view: View, name: str) -> int:
    """A flag's bit, 0 for a keyword that the mailbox does not have."""
    return SYSTEM_FLAGS.get(name, 0) or keyword_bits(view.columns.keywords).get(name.lower(), 0)


def _positions(view: View, pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Half-open ranges of positions for rising ranges of UIDs."""
    found = []
    for first, last in pairs:
        low = bisect_left(view.uids, first, 0, view.count)
        high = bisect_right(view.uids, last, low, view.count)
        if low < high:
            found.append((low, high))
    return found


def _join(facts: Iterable[Fact]) -> list[Fact]:
    """Merge the facts into one of each kind at most: otherwise a thousand of them would be tested for each message."""
    larger: int | None = None
    smaller: int | None = None
    first: int | None = None
    end: int | None = None
    has_dates = False
    arrived: Arrived | None = None
    for fact in facts:
        match fact:
            case Larger(size):
                larger = size if larger is None else max(larger, size)
            case Smaller(size):
                smaller = size if smaller is None else min(smaller, size)
            case Received(since, before):
                has_dates = True
                first = since if first is None else first if since is None else max(first, since)
                end = before if end is None else end if before is None else min(end, before)
            case Arrived():
                both = (fact, arrived or fact)
                arrived = Arrived(
                    max((each.first for each in both if each.first is not None), default=None),
                    min((each.end for each in both if each.end is not None), default=None),
                )
    joined: list[Fact] = []
    if larger is not None:
        joined.append(Larger(larger))
    if smaller is not None:
        joined.append(Smaller(smaller))
    if has_dates:
        joined.append(Received(first, end))
    if arrived is not None:
        joined.append(arrived)
    return joined


def _intersect_all(sets: Sequence[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Intersect in pairs, so that a long set is not traversed once for each of many short ones."""
    todo = sorted(sets, key=len)
    while len(todo) > 1:
        pairs = zip(todo[::2], todo[1::2], strict=False)
        todo = [_intersect(left, right) for left, right in pairs] + todo[len(todo) // 2 * 2 :]
    return todo[0]


def _intersect(left: Sequence[tuple[int, int]], right: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    found = []
    here = there = 0
    while here < len(left) and there < len(right):
        low, high = max(left[here][0], right[there][0]), min(left[here][1], right[there][1])
        if low < high:
            found.append((low, high))
        if left[here][1] < right[there][1]:
            here += 1
        else:
            there += 1
    return found


def _complement(ranges: Iterable[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    found = []
    at = 0
    for low, high in ranges:
        if at < low:
            found.append((at, low))
        at = high
    if at < count:
        found.append((at, count))
    return found
