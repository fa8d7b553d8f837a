"""PARTIAL and SAVE, against naive implementations."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.errors import BadSyntax
from mailserver.imap.partial import PartialRange, read_partial
from mailserver.imap.search.results import chosen
from mailserver.imap.wire.reader import Reader


def naive(numbers: list[int], text: str) -> list[int]:
    """Take each place of the range by itself."""
    low, high = sorted(abs(int(each)) for each in text.split(":"))
    if text.startswith("-"):
        return [numbers[len(numbers) - place] for place in range(high, low - 1, -1) if place <= len(numbers)]
    return [numbers[place - 1] for place in range(low, high + 1) if place <= len(numbers)]


RANGES = st.tuples(st.sampled_from(["", "-"]), st.integers(1, 12), st.integers(1, 12)).map(
    lambda each: f"{each[0]}{each[1]}:{each[0]}{each[2]}"
)


@given(st.lists(st.integers(1, 99), unique=True, max_size=10), RANGES)
def test_a_partial_range_is_as_a_naive_one(numbers: list[int], text: str) -> None:
    reader = Reader([b" " + text.encode()])
    found = read_partial(reader)
    reader.read_end()
    low, high = sorted(abs(int(each)) for each in text.split(":"))
    assert found.text == (f"-{low}:-{high}" if text.startswith("-") else f"{low}:{high}").encode()
    assert found.of(numbers) == naive(numbers, text)
    rising = range(5, 5 + len(numbers))
    assert list(found.of(rising)) == naive(list(rising), text)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), max_size=5), RANGES)
def test_a_partial_range_of_ranges_is_that_of_their_numbers(gaps: list[tuple[int, int]], text: str) -> None:
    ranges, at = [], 0
    for size, gap in gaps:
        ranges.append((at + gap, at + gap + size))
        at += gap + size
    numbers = [number for low, high in ranges for number in range(low, high)]
    found = read_partial(Reader([b" " + text.encode()])).of_ranges(ranges)
    assert [number for low, high in found for number in range(low, high)] == naive(numbers, text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b" 1",
        b" 1:",
        b" :1",
        b" 0:1",
        b" 1:0",
        b" -1:2",
        b" 1:-2",
        b" 1:*",
        b" --1:--2",
        b" 1:99999999999",
        b" 01:2",
    ],
)
def test_what_is_no_range_is_refused(text: bytes) -> None:
    reader = Reader([text])
    with pytest.raises(BadSyntax):
        _read_whole(reader)


def _read_whole(reader: Reader) -> None:
    read_partial(reader)
    reader.read_end()


OPTIONS = st.sets(st.sampled_from(["MIN", "MAX", "ALL", "COUNT", "PARTIAL", "SAVE"])).filter(
    lambda names: not {"ALL", "PARTIAL"} <= names
)


@given(st.lists(st.integers(0, 99), unique=True, max_size=8), OPTIONS, RANGES)
def test_what_is_saved_is_as_the_table_says(positions: list[int], names: set[str], text: str) -> None:
    """RFC 9394 table 1, RFC 5182 2.4."""
    match = re.fullmatch(r"(-?)(\d+):-?(\d+)", text)
    assert match is not None
    low, high = sorted((int(match[2]), int(match[3])))
    options = {
        name: PartialRange(text.encode(), low, high, bool(match[1])) if name == "PARTIAL" else None for name in names
    }
    if names & {"ALL", "COUNT"} or not names & {"MIN", "MAX", "PARTIAL"}:
        expected = set(positions)
    else:
        expected = set(naive(positions, text)) if "PARTIAL" in names else set()
        expected |= set(positions[:1]) if "MIN" in names else set()
        expected |= set(positions[-1:]) if "MAX" in names else set()
    assert set(chosen(options, positions)) == expected
