"""Sequence sets (RFC 3501 9)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.errors import BadSyntax, MailError
from mailserver.imap.wire.sequence_set import MAX_RANGES, SequenceSet, format_set

ENDS = st.one_of(st.integers(1, 40), st.just("*"))
ELEMENTS = st.lists(
    st.one_of(ENDS.map(str), st.tuples(ENDS, ENDS).map(lambda pair: f"{pair[0]}:{pair[1]}")), min_size=1
)


@given(ELEMENTS, st.integers(1, 30))
def test_ranges_hold_exactly_the_numbers_meant(elements: list[str], largest: int) -> None:
    meant: set[int] = set()
    for element in elements:
        ends = [largest if end == "*" else int(end) for end in element.split(":")]
        meant.update(range(min(ends), max(ends) + 1))
    ranges = SequenceSet.parse(",".join(elements).encode()).ranges(largest)
    assert [number for low, high in ranges for number in range(low, high + 1)] == sorted(meant)
    assert all(this[1] + 1 < following[0] for this, following in itertools.pairwise(ranges))


@given(st.lists(st.integers(1, 60), min_size=1, unique=True))
def test_format_keeps_order(numbers: list[int]) -> None:
    """COPYUID pairs the n-th with the n-th (RFC 4315 3): no sorting, runs only upwards."""
    written: list[int] = []
    for element in format_set(numbers).decode().split(","):
        first, _, last = element.partition(":")
        written.extend(range(int(first), int(last or first) + 1))
    assert written == numbers


def test_format_is_compact() -> None:
    assert format_set([1, 2, 3, 7, 9, 10]) == b"1:3,7,9:10"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"0",
        b"0:1",
        b"1:",
        b":1",
        b",1",
        b"1,",
        b"1,,2",
        b"1:2:3",
        b"-1",
        b"1_0",
        b"01",
        b"4294967296",
        b"99999999999",
        b"1 ",
        b"a",
        b"*:0",
    ],
)
def test_refused(text: bytes) -> None:
    with pytest.raises(BadSyntax):
        SequenceSet.parse(text)


def test_too_many_elements() -> None:
    assert len(SequenceSet.parse(b",".join([b"1"] * MAX_RANGES)).elements) == MAX_RANGES
    with pytest.raises(MailError):
        SequenceSet.parse(b",".join([b"1"] * (MAX_RANGES + 1)))


def test_star_in_an_empty_mailbox() -> None:
    assert SequenceSet.parse(b"*").ranges(0) == []
    assert SequenceSet.parse(b"3:*").ranges(0) == [(1, 3)]


def test_star_below_the_range_start() -> None:
    """RFC 3501 9: 3291:* includes the last message even if its UID is below 3291."""
    assert SequenceSet.parse(b"3291:*").ranges(10) == [(10, 3291)]
