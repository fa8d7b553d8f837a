"""Searchable text: decoded, folded, from text parts alone."""

from __future__ import annotations

import base64

import pytest

from mailserver.message.text import MessageText, fold
from tests.corpus import crlf


def body(header: bytes, data: bytes) -> str:
    return MessageText(crlf(header) + b"\r\n" + data).body


@pytest.mark.parametrize(
    ("one", "other"),
    [("GROSS", "groß"), ("Ä", "ä"), ("A\u0308", "ä"), ("ÉCOLE", "école"), ("ﬁn", "FIN"), ("Ａ", "a"), ("ΣΑΣ", "σας")],
)
def test_folding(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_other_letters_stay_other() -> None:
    assert fold("a") != fold("ä")
    assert fold("o") != fold("ö")


def test_transfer_encodings_and_charsets() -> None:
    assert body(b"Content-Type: text/plain; charset=iso-8859-1\n", b"\xc4rger") == "ärger"
    quoted = b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: Quoted-Printable\n"
    assert body(quoted, b"=C3=84r=\r\nger") == "ärger"
    encoded = b"Content-Type: text/plain; charset=KOI8-R\nContent-Transfer-Encoding: BASE64\n"
    assert body(encoded, base64.encodebytes("Привет".encode("koi8-r"))) == "привет"
    assert body(b"Content-Type: text/plain; charset*=utf-8''iso-8859-2\n", b"\xb1") == "ą"


def test_html_as_it_stands_and_as_it_looks() -> None:
    found = body(b"Content-Type: text/html\n", b'<a href="http://x.test/y">f&uuml;r</a> <b>d</b>ich &#8364;')
    assert "http://x.test/y" in found
    assert "für dich €" in found


def test_which_parts_are_text() -> None:
    source = crlf(
        b"Subject: not the body\nContent-Type: multipart/mixed; boundary=a\n\npreamble\n"
        b"--a\n\nfirst\n"
        b"--a\nContent-Type: application/octet-stream; name=secret.bin\n\nbinary\n"
        b"--a\nContent-Type: message/rfc822\n\nSubject: =?utf-8?q?inner_=C3=84?=\n\ninner text\n"
        b"--a\nContent-Type: message/delivery-status\n\nAction: failed\n--a--\n"
    )
    found = MessageText(source).body
    for present in ("first", "inner text", "action: failed"):
        assert present in found
    for absent in ("not the body", "binary", "preamble", "secret.bin", "inner ä"):
        assert absent not in found
    inner = MessageText(source).inner_headers
    for present in ("\nsubject: inner ä", "name=secret.bin"):
        assert present in inner
    assert "not the body" not in inner


def test_header_text_has_every_field() -> None:
    source = crlf(b"Received: a\n by b\nX-Thing: =?iso-8859-1?q?=C4?=\n\nbody: no\n")
    assert MessageText(source).header == "\nreceived: a by b\nx-thing: ä"


def test_a_huge_text_is_looked_at_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailserver.message.text.TEXT_LIMIT", 1000)
    parts = b"".join(b"--a\n\n%b\n" % (b"%d" % number * 400) for number in range(1, 5))
    found = MessageText(crlf(b"Content-Type: multipart/mixed; boundary=a\n\n" + parts + b"--a--\n")).body
    assert [found.count(digit) for digit in "1234"] == [400, 400, 200, 0]
