"""Sets of candidates as bit rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.store.candidates import Candidates
from mailserver.types import UID

UIDS = [UID(3 * number + 1) for number in range(300)]


@given(st.sets(st.sampled_from(UIDS)), st.sets(st.sampled_from(UIDS)))
def test_bit_rows_are_sets(one: set[UID], other: set[UID]) -> None:
    candidates = Candidates(UIDS)
    first, second = candidates.bits(list(one)), candidates.bits(sorted(other, reverse=True))
    assert candidates.of(first) == sorted(one)
    assert candidates.of(first & second) == sorted(one & other)
    assert candidates.of(first | second) == sorted(one | other)
    assert candidates.of(candidates.all & ~first) == sorted(set(UIDS) - one)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [([(1, 7)], UIDS[:3]), ([(2, 3), (5, 11)], UIDS[2:4]), ([(900, 2000)], []), ([(1, 898)], UIDS)],
)
def test_ranges_are_of_uids(ranges: list[tuple[int, int]], expected: list[UID]) -> None:
    candidates = Candidates(UIDS)
    assert candidates.of(candidates.within(ranges)) == expected


def test_of_no_candidates_there_is_no_set_but_the_empty_one() -> None:
    candidates = Candidates([])
    assert (candidates.all, candidates.bits([]), candidates.of(0), candidates.within([(1, 9)])) == (0, 0, [], 0)
