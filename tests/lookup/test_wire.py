"""Netstrings in whatever pieces they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.lookup import wire
from mailserver.lookup.wire import MAX_KEPT, MAX_REQUEST, ProtocolError, Request, RequestReader, netstring


def read(*pieces: bytes) -> list[Request]:
    reader = RequestReader()
    found = []
    for piece in pieces:
        reader.receive_data(piece)
        found += reader.requests()
        assert len(reader._buffer) <= MAX_KEPT + 1 + wire._MOST_DIGITS
    return found


def test_requests_in_their_order() -> None:
    data = b"17:alias a@b.example,19:mailbox c@d.example,5:a b c,6:domain,"
    with pytest.raises(ProtocolError, match="name of a map, a space and a key"):
        read(data)
    assert read(data[:-9]) == [Request("alias", "a@b.example"), Request("mailbox", "c@d.example"), Request("a", "b c")]
    assert read(netstring(b"alias ")) == [Request("alias", "")]


@pytest.mark.parametrize("key", [b"a\0@b.example", b"\xff@b.example", b"a\r\nb", b"a\tb", b"\xc2\x85", b"\x7f"])
def test_a_key_that_is_no_text_keeps_the_stream_in_step(key: bytes) -> None:
    data = netstring(b"alias " + key) + netstring(b"domain b.example")
    assert read(data) == [Request("alias", None), Request("domain", "b.example")]
    assert read(*(data[at : at + 1] for at in range(len(data)))) == [
        Request("alias", None),
        Request("domain", "b.example"),
    ]


@pytest.mark.parametrize("size", [MAX_KEPT, MAX_KEPT + 1, 65536, MAX_REQUEST])
def test_a_long_request_is_counted_and_not_kept(size: int) -> None:
    content = b"alias ".ljust(size, b"x")
    data = netstring(content) + netstring(b"domain b.example")
    first = Request("alias", "x" * (size - 6)) if size <= MAX_KEPT else Request("", None)
    assert (
        read(data)
        == read(*(data[at : at + 777] for at in range(0, len(data), 777)))
        == [
            first,
            Request("domain", "b.example"),
        ]
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"100001:", "longer than 100000"),
        (b"1073741824:alias a", "longer than 100000"),
        (b"1073741", "longer than 100000"),
        (b"99999999999999999999999999", "longer than 100000"),
        (b"07:alias a,", "begins with a zero"),
        (b"00:,", "begins with a zero"),
        (b"0:,", "name of a map"),
        (b":alias a,", "its length and a colon"),
        (b"-1:,", "its length and a colon"),
        (b"+7:alias a,", "its length and a colon"),
        (b" 7:alias a,", "its length and a colon"),
        (b"7 :alias a,", "its length and a colon"),
        (b"7", None),
        (b"7:alias a", None),
        (b"6:alias a,", "comma"),
        (b"8:alias a,7:alias b,", "comma"),
        (b"7:alias a\n", "comma"),
        (b"2000:" + b"x" * 2000 + b";", "comma"),
        ("\u0667:alias a,".encode(), "its length and a colon"),
        (b"GET / HTTP/1.1\r\n", "its length and a colon"),
        (b"get a@b.example\n", "its length and a colon"),
    ],
)
def test_what_is_no_netstring(data: bytes, words: str | None) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        if words is None:
            assert read(*pieces) == []
        else:
            with pytest.raises(ProtocolError, match=words):
                read(*pieces)


@given(
    st.lists(
        st.tuples(st.sampled_from(["alias", "domain", "x"]), st.binary(max_size=40) | st.just(b"y" * 2000)), max_size=8
    ),
    st.lists(st.integers(1, 60), max_size=40),
)
def test_any_pieces_are_read_alike(asked: list[tuple[str, bytes]], sizes: list[int]) -> None:
    data = b"".join(netstring(name.encode() + b" " + key) for name, key in asked)
    pieces = []
    at = 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    got = read(*pieces, data[at:])
    assert got == read(data)
    assert len(got) == len(asked)
    for request, (name, key) in zip(got, asked, strict=True):
        if len(key) > 1000:
            assert request == Request("", None)
        else:
            assert request.map == name
            assert request.key is None or request.key.encode() == key


@given(st.binary(max_size=200), st.integers(1, 20))
def test_octets_by_chance(data: bytes, size: int) -> None:
    def outcome(*pieces: bytes) -> tuple[list[Request], str]:
        reader, found = RequestReader(), []
        try:
            for piece in pieces:
                reader.receive_data(piece)
                found.extend(reader.requests())
        except ProtocolError as error:
            return found, str(error)
        return found, ""

    assert outcome(data) == outcome(*(data[at : at + size] for at in range(0, len(data), size)))


def test_replies() -> None:
    assert wire.found("anna@example.test") == b"20:OK anna@example.test,"
    assert wire.found("j\u00fcrgen@example.test") == b"23:OK j\xc3\xbcrgen@example.test,"
    assert wire.NOT_FOUND == b"9:NOTFOUND ,"
    assert wire.unavailable("later") == b"10:TEMP later,"
    assert wire.refused("never") == b"10:PERM never,"
