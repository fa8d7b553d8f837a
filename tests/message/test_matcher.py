"""Needles in messages: in pieces as at once, whatever the pieces' ends cut; in bounded memory, and with pauses."""

from __future__ import annotations

import base64
import codecs
import quopri
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message import matcher, text_pieces
from mailserver.message.encodings import CHARSETS
from mailserver.message.matcher import MessageMatcher, SearchTerm
from mailserver.message.text import MessageText, fold
from mailserver.message.text_pieces import Stream

WORDS = ["alpha", "Äpfel", "größe", "naïve", "&uuml;ber", "<b>bold</b>", "x" * 30, "=?utf-8?q?=C3=84?=", "日本", "ﬁn"]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map(" ".join)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        text = draw(texts)
        kind = draw(st.sampled_from(["plain", "html"]))
        charset = draw(st.sampled_from(["utf-8", "", "utf-16", "koi8-r", "utf-7"]))
        data = text.encode(charset or "utf-8", "replace")
        encoding = draw(st.sampled_from(["base64", "quoted-printable", "8bit"]))
        if encoding == "base64":
            data = base64.encodebytes(data).replace(b"\n", b"\r\n")
        elif encoding == "quoted-printable":
            data = quopri.encodestring(data).replace(b"\n", b"\r\n")
        label = f"; charset={charset}" if charset else ""
        parts.append(
            f"Content-Type: text/{kind}{label}\r\nContent-Transfer-Encoding: {encoding}\r\nX-Part: {draw(texts)}\r\n\r\n".encode()
            + data
        )
    head = (
        f"From: a@example.test\r\nSubject: {draw(texts)}\r\nX-Foo: {draw(texts)}\r\nX-Foo: {draw(texts)}\r\n".encode()
    )
    body = b"".join(b"\r\n--frontier\r\n" + part for part in parts) + b"\r\n--frontier--\r\n"
    return head + b'Content-Type: multipart/mixed; boundary="frontier"\r\n\r\n' + body


needles = st.lists(
    st.sampled_from(
        [fold(word) for word in WORDS] + ["ü", "über", "pf", "bold", "alpha äpfel", "x x", "a", "zz", "@ex"]
    ),
    min_size=1,
    max_size=8,
)


def run(source: bytes, sought: list[SearchTerm], small: int = 0) -> list[bool]:
    match = MessageMatcher(source, sought, small)
    for _ in match.run():
        pass
    return match.found


@pytest.mark.parametrize("piece", [7, 64, 64 * 1024])
@given(source=messages(), wanted=needles)
@settings(max_examples=60)
def test_pieces_find_what_the_whole_text_has(piece: int, source: bytes, wanted: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_pieces, "PIECE", piece)
        sought = [
            kind
            for needle in wanted
            for kind in (SearchTerm(needle), SearchTerm(needle, body_only=True), SearchTerm(needle, field="x-foo"))
        ]
        text = MessageText(source)
        assert run(source, sought) == [key.is_in(text) for key in sought]


def test_a_needle_across_pieces_of_a_long_text() -> None:
    body = b"a" * 200_000 + b"needle" + b"b" * 200_000
    source = b"Subject: x\r\n\r\n" + body
    for start in range(0, 200_000, 9973):
        moved = b"Subject: " + b"y" * (start + 1) + b"\r\n\r\n" + body
        assert run(moved, [SearchTerm("needle"), SearchTerm("aneedleb"), SearchTerm("needlf"), SearchTerm("yyy", field="subject")]) == [
            True, True, False, start >= 2,
        ]  # fmt: skip
    assert run(source, [SearchTerm("", field="subject"), SearchTerm("", field="absent")]) == [True, False]


def test_many_needles_pause_often() -> None:
    source = b"Subject: x\r\n\r\n" + b"lorem ipsum " * 100_000
    match = MessageMatcher(source, [SearchTerm(f"absent {number}") for number in range(990)])
    pauses = sum(1 for _ in match.run())
    assert match.work >= 990 * 1_200_000
    assert pauses >= match.work // (2 * matcher._COMPARED)
    assert not any(match.found)


def test_a_huge_header_is_not_decoded_whole() -> None:
    source = b"X-Foo: " + b"b" * (12 << 20) + b"\r\nX-Foo: needle\r\n\r\n" + b"" + b"text"
    lines = b"a:b\r\n" * 60_000 + b"X-Foo: needle\r\n\r\ntext"
    tracemalloc.start()
    try:
        for each in (source, lines):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            assert run(each, [SearchTerm("needle", field="x-foo"), SearchTerm("nowhere")]) == [True, False]
            assert tracemalloc.get_traced_memory()[1] - before < 8 << 20
    finally:
        tracemalloc.stop()


HOSTILE = {
    "utf-7": b"Content-Type: text/plain; charset=utf-7\r\n\r\n" + b"+AAAA" * 2_000_000,
    "torn addresses": b"To: " + b"".join(b"a(b)@(c)d%d, " % n for n in range(70_000)) + b"\r\n\r\n",
    "letters that grow": b"Content-Type: text/html; charset=utf-8\r\n\r\n" + "\ufdfa".encode() * 20_000,
    "references": b"Content-Type: text/html\r\n\r\n" + b"&" * 2_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_piece_takes_seconds(name: str) -> None:
    """Each of the first two took nine and nineteen seconds in one piece."""
    last, longest = time.thread_time(), 0.0
    for _ in text_pieces.iterate_pieces(HOSTILE[name]):
        now = time.thread_time()
        last, longest = now, max(longest, now - last)
    assert longest < 5, f"a piece took {longest:.1f} s of the processor"


ODD = (
    b"\x1b$", b"\x1b$B", b"\x1b(B", b"\x1b$)C", b"~{", b"~}", b"~", b"\xff", b"\xfe", b"\0", b"a", b"\xd8\0", b"\x81", b"\x30",
    b"\x0e", b"\x0f", b"\x1b", b"\x1b.A", b"\x1bN", b"\xa4", codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(set(CHARSETS.values()) - {"utf-7"})), st.lists(st.sampled_from(ODD), max_size=20))
def test_octets_that_no_charset_has_are_told_as_at_once(codec: str, octets: list[bytes]) -> None:
    """Python's decoders by pieces raise for some: without a byte order mark, or within an escape sequence."""
    charset = next(name for name, found in CHARSETS.items() if found == codec)
    source = b"Content-Type: text/plain; charset=%b\r\n\r\n" % charset.encode() + b"".join(octets)
    pieces = text_pieces.iterate_pieces(source, header=False, inner=False)
    told = "".join([piece.text for piece in pieces if piece.stream is Stream.BODY])
    assert told[1:] == MessageText(source).body


@pytest.mark.parametrize("codec", sorted(set(CHARSETS.values())))
def test_torn_escape_sequences_at_the_end_of_a_piece(codec: str) -> None:
    charset = next(name for name, found in CHARSETS.items() if found == codec)
    for odd in (b"\x1b$", b"~{~", b"\xff", b"\xd8\0\0"):
        source = b"Content-Type: text/plain; charset=%b\r\n\r\n" % charset.encode() + odd * 50_000 + b"\r\nend"
        pieces = text_pieces.iterate_pieces(source, header=False, inner=False)
        told = "".join([piece.text for piece in pieces if piece.stream is Stream.BODY])
        # Where a piece ends the damage may be read otherwise, as the decoder begins anew.
        assert told[1:60_001] == MessageText(source).body[:60_000]
