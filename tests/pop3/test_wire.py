from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.pop3.wire import DotStuffer, LineReader, Refused, TopCutter

PIECES = st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"bc", b"\r\n.", b"\r\n.\r\n", b"\x00"])


def cuts(data: bytes, points: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    return [data[a:b] for a, b in pairwise(edges)]


def lines_of(pieces: list[bytes], limit: int = 20) -> list[bytes | Refused]:
    reader = LineReader(limit)
    lines: list[bytes | Refused] = []
    for piece in pieces:
        reader.receive_data(piece)
        while (line := reader.next_line()) is not None:
            lines.append(line)
    return lines


@settings(max_examples=150)
@given(st.lists(PIECES).map(b"".join), st.lists(st.integers(0, 1000)))
def test_lines_do_not_depend_on_chunks(data: bytes, points: list[int]) -> None:
    whole = lines_of([data])
    assert lines_of(cuts(data, points)) == whole
    assert lines_of([data[at : at + 1] for at in range(len(data))]) == whole


def test_lines() -> None:
    data = b"NOOP\r\nLF only\nCR\rinside\r\nNUL\x00\r\n" + b"x" * 19 + b"\r\n" + b"x" * 18 + b"\r\n\r\n"
    assert lines_of([data]) == [
        b"NOOP",
        Refused.MALFORMED,
        Refused.MALFORMED,
        Refused.MALFORMED,
        Refused.TOO_LONG,
        b"x" * 18,
        b"",
    ]


def test_a_line_without_end_takes_no_memory() -> None:
    reader = LineReader(100)
    for _ in range(1000):
        reader.receive_data(b"x" * 1000)
        assert reader.next_line() is None
        assert len(reader._buffer) <= 100
    assert reader.pending
    reader.receive_data(b"\r\nNOOP\r\n")
    assert reader.next_line() is Refused.TOO_LONG
    assert reader.next_line() == b"NOOP"
    assert not reader.pending


def unstuff(answer: bytes) -> bytes:
    """A client's reading of a multi-line answer, by RFC 1939 3, line by line."""
    lines = answer.split(b"\r\n")
    assert lines[-1] == b""
    assert lines[-2] == b"."
    assert b"." not in lines[:-2], "the answer ends too early"
    return b"".join((line[1:] if line.startswith(b".") else line) + b"\r\n" for line in lines[:-2])


def stuffed(pieces: list[bytes]) -> bytes:
    stuffer = DotStuffer()
    return b"".join([*(stuffer.stuff(piece) for piece in pieces), stuffer.finish()])


TEXT = st.lists(st.sampled_from([b"\r\n", b".", b"a", b"..", b"\r\n.\r\n"])).map(b"".join)


@settings(max_examples=150)
@given(TEXT, st.lists(st.integers(0, 1000)))
def test_stuffing_is_undone_by_a_client_at_every_chunk_edge(text: bytes, points: list[int]) -> None:
    whole = stuffed([text])
    assert unstuff(whole) == (text if text.endswith(b"\r\n") or not text else text + b"\r\n")
    assert stuffed(cuts(text, points)) == whole
    assert stuffed([text[at : at + 1] for at in range(len(text))]) == whole


@pytest.mark.parametrize("edge", range(8))
def test_a_dot_at_the_edge_of_a_64_kib_piece(edge: int) -> None:
    text = (b"x" * 65530)[:-edge] + b"\r\n.\r\n.." + b"y" * 100 + b"\r\n"
    assert unstuff(stuffed([text[:65536], text[65536:]])) == text


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
