"""Needles in octets: what is said to be lacking is not in the folded text."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.encodings import CHARSETS
from mailserver.message.octet_search import FOLDED_1252, ORDINARY, lacks
from mailserver.message.text import MessageText, fold

CODECS = sorted({*CHARSETS.values()})


def test_ordinary_characters_are_those_that_no_ascii_comes_of() -> None:
    ordinary = [
        character
        for character in map(chr, [*range(0x80, 0xD800), *range(0xE000, 0x11000)])
        if ORDINARY.fullmatch(character.encode())
    ]
    assert len(ordinary) > 500
    assert [character for character in ordinary if any(each.isascii() for each in fold(character))] == ["ß"]
    assert set("äöüÄÖÜéñłŁčøå’“”–—€яΩ") <= set(ordinary)


def test_octets_of_windows_1252_that_ascii_comes_of() -> None:
    expected = [
        octet
        for octet in range(0x80, 0x100)
        if any(each.isascii() for each in fold(bytes([octet]).decode("cp1252", "replace")))
    ]
    assert sorted({*FOLDED_1252, 0xDF}) == expected


@pytest.mark.parametrize(("one", "other"), list(product("eﬁſ\u212a ß", "x\u0301é\xa0")))
def test_neighbours_change_nothing(one: str, other: str) -> None:
    text = f"a{one}{other}b"
    for needle in ("fi", "s", "k", "ss", "a ", "e", "x"):
        if lacks(text.encode(), needle.encode(), "utf-8", is_html=False):
            assert needle not in fold(text)


PIECES = st.sampled_from(
    [b"be", b"ta", b"<b>", b"</b>", b"&#98;", b"&nbsp;", b"<", b">", b"\xc3\x9f", b"\xc3", b"\xa9", b"\xe2\x80\x93", b"\xef\xac\x81",
     b"\xa0", b"\xdf", b"\xcc\x81", b"+AGI-", b"\x1b$B", b"\r\n", b" "]
)  # fmt: skip


@given(
    st.lists(PIECES, max_size=6).map(b"".join),
    st.sampled_from(["beta", "b", "ss", "be ta", "fi", " "]),
    st.sampled_from(["utf-8", "iso-8859-1", "us-ascii", "", "utf-7", "iso-8859-15", "unknown", "shift_jis"]),
    st.sampled_from(["plain", "html"]),
)
def test_what_is_lacking_in_octets_is_in_no_text(data: bytes, needle: str, charset: str, subtype: str) -> None:
    parameter = f"; charset={charset}" if charset else ""
    source = f"Content-Type: text/{subtype}{parameter}\r\n\r\n".encode() + data
    if MessageText(source).body_lacks(needle):
        assert needle not in MessageText(source).body


def test_most_texts_show_what_they_lack() -> None:
    text = "Grüße aus København – „schön“, Łódź: 5 €"
    assert lacks(text.encode(), b"winter", "utf-8", is_html=False)
    assert lacks("Grüße".encode("cp1252"), b"winter", "cp1252", is_html=False)
    assert not lacks(text.encode(), b"aus", "utf-8", is_html=False)
    assert not lacks(text.encode(), b"grusse"[3:], "utf-8", is_html=False)
    assert not lacks("Maße".encode("cp1252"), b"masse", "cp1252", is_html=False)
    assert lacks(b"<p>win<b>d</b>ow</p>", b"winter", "utf-8", is_html=True)
    assert not lacks(b"<p>win<b>t</b>er</p>", b"winter", "utf-8", is_html=True)
    assert not lacks(b"<p>&#119;inter</p>", b"winter", "utf-8", is_html=True)
    for codec in CODECS:
        if codec not in ("utf-8", "cp1252", "ascii"):
            assert not lacks(b"text", b"winter", codec, is_html=False)
