"""Transfer encodings and charsets (RFC 2045 6)."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message.encodings import CHARSETS, codec_of, decode_text, decode_transfer


def test_every_charset_is_a_text_encoding_of_python() -> None:
    for codec in set(CHARSETS.values()):
        assert codecs.lookup(codec)._is_text_encoding, codec


@pytest.mark.parametrize(
    "name", ["zlib", "rot13", "unicode_escape", "raw_unicode_escape", "idna", "punycode", "hex", "", "../x"]
)
def test_other_codecs_are_unknown(name: str) -> None:
    assert codec_of(name) is None


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        (b"\xe4", "ISO-8859-1", "ä"),
        (b"\x80", "iso-8859-1", "€"),
        (b"\xa4", "ISO-8859-15", "€"),
        (b"\xd0\xd2", "KOI8-R", "пр"),
        (b"\x1b$B$3$l\x1b(B", "ISO-2022-JP", "これ"),
        (b"\xc4\xe3", "GB2312", "你"),
        (b"\xc3\xa4", "x-unknown", "ä"),
        (b"\xe4", "x-unknown", "ä"),
        (b"\xc3\xa4", "us-ascii", "ä"),
        (b"\xe4", None, "ä"),
        (b"a\xffb", "utf-8", "a\ufffdb"),
        (b"+2AA-", "utf-7", "\ufffd"),
    ],
)
def test_charsets(data: bytes, charset: str | None, text: str) -> None:
    assert decode_text(data, charset) == text


@pytest.mark.parametrize(
    ("data", "encoding", "decoded"),
    [
        (b"SGVs\r\nbG8=\r\n", b"base64", b"Hello"),
        (b"SGVs!bG8", b"base64", b"Hello"),
        (b"SGVsbG8=SGVs", b"base64", b"Hello"),
        (b"SGVsb", b"base64", b"Hel"),
        (b"====", b"base64", b""),
        (b"a=3D=\r\nb=\r\n", b"quoted-printable", b"a=b"),
        (b"a=ZZ=", b"quoted-printable", b"a=ZZ"),
        (b"begin 644 a\r\n#0V%T\r\n`\r\nend\r\n", b"x-uuencode", b"Cat"),
        (b"no uuencode", b"x-uuencode", b"no uuencode"),
        (b"as it is", b"7bit", b"as it is"),
        (b"as it is", b"x-unknown", b"as it is"),
    ],
)
def test_transfer_encodings(data: bytes, encoding: bytes, decoded: bytes) -> None:
    assert decode_transfer(data, encoding) == decoded


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(sorted(set(CHARSETS.values()))))
def test_whatever_is_decoded_can_be_written(data: bytes, codec: str) -> None:
    text = decode_text(data, codec)
    assert text.encode("utf-8").decode("utf-8") == text


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b"base64", b"quoted-printable", b"x-uuencode"]))
def test_nothing_raises(data: bytes, encoding: bytes) -> None:
    for text in (data, b"begin 644 x\r\n" + data):
        assert isinstance(decode_transfer(text, encoding), bytes)
