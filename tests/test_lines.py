"""Lines, raw bytes and dot-stuffing, for every cut of the stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.session import lines
from mailserver.session.lines import DotStuffer, LineFault, LineReader, is_http

PIECES = st.sampled_from(
    [b"\r\n", b"\r", b"\n", b".", b"a", b"bc", b"\r\n.", b"\r\n..", b"\r\n.\r\n", b"\r\n.\n", b"\0"]
)
STREAM = st.lists(PIECES).map(b"".join)
POINTS = st.lists(st.integers(0, 1000))
TEXT = st.lists(st.sampled_from([b"\r\n", b".", b"a", b"..", b"\r\n.\r\n"])).map(b"".join)


def cuts(data: bytes, points: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    return [data[a:b] for a, b in pairwise(edges)]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def lines_of(pieces: list[bytes], limit: int = 20) -> list[tuple[bytes | LineFault, bytes]]:
    """Every line, with the head that was known when it was given out."""
    reader = LineReader(limit)
    lines: list[tuple[bytes | LineFault, bytes]] = []
    for piece in pieces:
        reader.receive_data(piece)
        while (line := reader.next_line()) is not None:
            lines.append((line, reader.head))
    return lines


def by_the_book(stream: bytes, limit: int) -> list[bytes | LineFault]:
    """Lines end at LF; a good one has its CR before it, and no other control character."""
    lines: list[bytes | LineFault] = []
    for line in stream.split(b"\n")[:-1]:
        if len(line) + 1 > limit:
            lines.append(LineFault.TOO_LONG)
        elif not line.endswith(b"\r") or any(octet < 32 or octet == 127 for octet in line[:-1]):
            lines.append(LineFault.MALFORMED)
        else:
            lines.append(line[:-1])
    return lines


@settings(max_examples=150)
@given(STREAM, POINTS)
def test_lines_by_the_book_for_every_cut(stream: bytes, points: list[int]) -> None:
    expected = by_the_book(stream, 20)
    for pieces in ([stream], cuts(stream, points), bytewise(stream)):
        assert [line for line, _ in lines_of(pieces)] == expected


def test_lines() -> None:
    data = b"NOOP\r\nLF only\nCR\rinside\r\nNUL\0\r\nDEL\x7f\r\n" + b"x" * 19 + b"\r\n" + b"x" * 18 + b"\r\n\r\n"
    refused = [LineFault.MALFORMED] * 4 + [LineFault.TOO_LONG]
    assert [line for line, _ in lines_of([data])] == [b"NOOP", *refused, b"x" * 18, b""]


def test_the_head_of_a_refused_line_is_known() -> None:
    data = b"GET / HTTP/1.1\n" + b"POST /" + b"x" * 100 + b"\r\n"
    for pieces in ([data], bytewise(data)):
        (first, head), (second, long_head) = lines_of(pieces)
        assert (first, second) == (LineFault.MALFORMED, LineFault.TOO_LONG)
        assert head.startswith(b"GET ")
        assert long_head.startswith(b"POST ")


def test_a_line_without_end_takes_no_memory() -> None:
    reader = LineReader(100)
    for _ in range(1000):
        reader.receive_data(b"x" * 1000)
        assert reader.next_line() is None
        assert len(reader._buffer) <= 100
    assert reader.pending
    reader.receive_data(b"\r\nNOOP\r\n")
    assert reader.next_line() is LineFault.TOO_LONG
    assert reader.next_line() == b"NOOP"
    assert not reader.pending


def test_raw_bytes() -> None:
    reader = LineReader(100)
    reader.receive_data(b"12345NOOP\r\n")
    assert reader.take(3) == b"123"
    assert reader.take(2) == b"45"
    reader.give_back(b"RSET\r\n")
    assert reader.next_line() == b"RSET"
    assert reader.take() == b"NOOP\r\n"
    assert reader.take(5) == b""
    assert not reader.pending


@pytest.mark.parametrize("word", [b"GET", b"POST", b"OPTIONS", b"PRI", b"HOST:", b"CONTENT-TYPE:", b":"])
def test_what_a_browser_sends(word: bytes) -> None:
    assert is_http(word)


@pytest.mark.parametrize("word", [b"", b"EHLO", b"MAIL", b"RETR", b"GETS", b"CAPA", b"QUIT"])
def test_what_a_browser_does_not_send(word: bytes) -> None:
    assert not is_http(word)


def unstuff(sent: bytes) -> bytes:
    """A client's reading, by RFC 1939 3 and RFC 5321 4.5.2, line by line."""
    lines = sent.split(b"\r\n")
    assert lines[-1] == b""
    assert lines[-2] == b"."
    assert b"." not in lines[:-2], "it ends too early"
    return b"".join((line[1:] if line.startswith(b".") else line) + b"\r\n" for line in lines[:-2])


def dot_stuffed(pieces: list[bytes]) -> bytes:
    stuffer = DotStuffer()
    return b"".join([*(stuffer.stuff(piece) for piece in pieces), stuffer.finish()])


@settings(max_examples=150)
@given(TEXT, POINTS)
def test_stuffing_is_undone_by_the_reader_at_every_edge(text: bytes, points: list[int]) -> None:
    whole = dot_stuffed([text])
    assert unstuff(whole) == (text if text.endswith(b"\r\n") or not text else text + b"\r\n")
    assert dot_stuffed(cuts(text, points)) == whole
    assert dot_stuffed(bytewise(text)) == whole
    assert lines.dot_stuffed(text) == whole


@pytest.mark.parametrize("edge", range(8))
def test_a_dot_at_the_edge_of_a_64_kib_piece(edge: int) -> None:
    text = b"x" * (65530 - edge) + b"\r\n.\r\n.." + b"y" * 100 + b"\r\n"
    assert unstuff(dot_stuffed([text[:65536], text[65536:]])) == text
