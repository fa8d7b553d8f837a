from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.pop3.wire import TopCutter


def cuts(data: bytes, points: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    return [data[a:b] for a, b in pairwise(edges)]


TEXT = st.lists(st.sampled_from([b"\r\n", b".", b"a", b"..", b"\r\n.\r\n"])).map(b"".join)


def top_of(pieces: list[bytes], count: int) -> bytes:
    cutter = TopCutter(count)
    return b"".join(cutter.cut(piece) for piece in pieces)


@settings(max_examples=150)
@given(TEXT, st.integers(0, 5), st.lists(st.integers(0, 1000)))
def test_top_does_not_depend_on_chunks(text: bytes, count: int, points: list[int]) -> None:
    whole = top_of([text], count)
    assert text.startswith(whole)
    assert top_of(cuts(text, points), count) == whole
    assert top_of([text[at : at + 1] for at in range(len(text))], count) == whole


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        (b"A: b\r\n\r\n1\r\n2\r\n3\r\n", 2, b"A: b\r\n\r\n1\r\n2\r\n"),
        (b"A: b\r\n\r\n1\r\n2\r\n3\r\n", 0, b"A: b\r\n\r\n"),
        (b"A: b\r\n\r\n1\r\n2", 9, b"A: b\r\n\r\n1\r\n2"),
        (b"\r\n1\r\n2\r\n", 1, b"\r\n1\r\n"),
        (b"A: b\r\n", 1, b"A: b\r\n"),
    ],
)
def test_top(text: bytes, count: int, expected: bytes) -> None:
    assert top_of([text], count) == expected
