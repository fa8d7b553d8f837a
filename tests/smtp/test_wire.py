from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import BadMessage
from mailserver.smtp.wire import DataDecoder, LineEnds, reply, reply_to

PIECES = st.sampled_from(
    [b"\r\n", b"\r", b"\n", b".", b"a", b"bc", b"\r\n.", b"\r\n..", b"\r\n.\r\n", b"\r\n.\n", b"\0"]
)
STREAM = st.lists(PIECES).map(b"".join)
POINTS = st.lists(st.integers(0, 1000))


def cuts(data: bytes, points: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    return [data[a:b] for a, b in pairwise(edges)]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def decode(pieces: list[bytes]) -> tuple[bytes, bool, bytes]:
    """The message, whether it ended, and what followed."""
    decoder = DataDecoder()
    message = bytearray()
    rest = b""
    for piece in pieces:
        if decoder.done:
            rest += piece
        else:
            message += decoder.receive_data(piece)
            rest += decoder.rest
    return bytes(message), decoder.done, rest


def by_the_book(stream: bytes) -> tuple[bytes, bool, bytes]:
    """RFC 5321 4.5.2, line by line, lines ending at CRLF only."""
    message = b""
    rest = stream
    while True:
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            return message + line.removeprefix(b"."), False, b""
        if line == b".":
            return message, True, rest
        message += (line[1:] if line.startswith(b".") else line) + b"\r\n"


@settings(max_examples=300)
@given(STREAM, POINTS)
def test_data_by_the_book_for_every_cut(stream: bytes, points: list[int]) -> None:
    message, done, rest = by_the_book(stream + b"\r\n.\r\n")
    assert done
    for pieces in ([stream + b"\r\n.\r\n"], cuts(stream + b"\r\n.\r\n", points), bytewise(stream + b"\r\n.\r\n")):
        assert decode(pieces) == (message, True, rest)


@settings(max_examples=150)
@given(STREAM, POINTS)
def test_data_that_breaks_off_is_never_whole(stream: bytes, points: list[int]) -> None:
    message, done, rest = by_the_book(stream)
    got, got_done, got_rest = decode(cuts(stream, points))
    assert (got_done, got_rest) == (done, rest)
    if done:
        assert got == message
    else:
        assert message.startswith(got)


@pytest.mark.parametrize(
    "smuggled", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\r\n\0.\r\n", b"\n\r.\r\n"]
)
def test_what_is_no_end_of_data(smuggled: bytes) -> None:
    text = b"Subject: a\r\n\r\nb" + smuggled + b"MAIL FROM:<a@example.test>\r\n"
    for pieces in ([text], bytewise(text)):
        message, done, rest = decode([*pieces, b".\r\n"])
        assert done
        assert rest == b""
        with pytest.raises(BadMessage):
            check([message])


def test_an_empty_message() -> None:
    assert decode([b".\r\nQUIT\r\n"]) == (b"", True, b"QUIT\r\n")
    assert decode([b"..\r\n.\r\n"]) == (b".\r\n", True, b"")


def test_a_long_line_stays_data() -> None:
    text = b"x" * 100_000 + b"\r\nRSET\r\n"
    assert decode(cuts(text + b".\r\n", list(range(0, 100_000, 4096)))) == (text, True, b"")


def check(pieces: list[bytes]) -> bool:
    ends = LineEnds()
    for piece in pieces:
        ends.check(piece)
    ends.finish()
    return ends.complete


@settings(max_examples=300)
@given(STREAM, POINTS)
def test_line_ends_for_every_cut(text: bytes, points: list[int]) -> None:
    without = text.replace(b"\r\n", b"")
    good = not any(octet in without for octet in (b"\r", b"\n", b"\0"))
    for pieces in ([text], cuts(text, points), bytewise(text)):
        if good:
            assert check(pieces) is (not text or text.endswith(b"\r\n"))
        else:
            with pytest.raises(BadMessage):
                check(pieces)


def test_replies() -> None:
    assert reply(250, "2.0.0", "OK").write() == b"250 2.0.0 OK\r\n"
    assert reply(250, None, "one", "two").write() == b"250-one\r\n250 two\r\n"
    assert reply(550, "5.1.1", "no", "never").write() == b"550-5.1.1 no\r\n550 5.1.1 never\r\n"
    assert reply_to(BadMessage("it is broken")).write() == b"550 5.6.0 it is broken\r\n"
