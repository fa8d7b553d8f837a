"""Searchable text: decoded, folded, from text parts alone."""

from __future__ import annotations

import base64
import unicodedata
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message import text as text_module
from mailserver.message.headers import iterate_fields, unfold
from mailserver.message.text import MessageText, fold, probe_of
from tests.corpus import crlf


def body(header: bytes, data: bytes) -> str:
    return MessageText(crlf(header) + b"\r\n" + data).body


@pytest.mark.parametrize(
    ("one", "other"),
    [("GROSS", "groß"), ("Ä", "ä"), ("A\u0308", "ä"), ("ÉCOLE", "école"), ("ﬁn", "FIN"), ("Ａ", "a"), ("ΣΑΣ", "σας")],
)
def test_folding(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_no_long_run_of_marks_is_put_in_order_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes quadratic time, and all other threads wait: half a second for 16,000 of them."""
    longest = 0

    def normalize(form: Literal["NFKC"], value: str) -> str:
        nonlocal longest
        run = 0
        for each in value:
            run = run + 1 if unicodedata.combining(each) else 0
            longest = max(longest, run)
        return real(form, value)

    real = unicodedata.normalize
    monkeypatch.setattr(unicodedata, "normalize", normalize)
    for marks in ("\u0301\u0316", "\uff9e\u0301", "\u0327\u0301\u3099"):
        for text in ("Größe e" + marks * 3000, marks * 3000 + "Größe", ("e" + marks * 100) * 10):
            folded = fold(text)
            assert len(folded) >= len(text) // 2
            assert ("grösse" in folded) == ("Größe" in text)
    assert 0 < longest < 200
    assert fold("E\u0301\u0316" * 50) == fold("e\u0316\u0301" * 50)


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


def test_what_a_plain_message_lacks_is_seen_without_decoding() -> None:
    with_picture = MessageText(
        crlf(
            b"Subject: One\nContent-Type: multipart/mixed; boundary=a\n\n--a\n\nAlpha\n"
            b"--a\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\nAAAA\n--a--\n"
        )
    )
    assert with_picture.body_lacks("beta")
    assert with_picture.body_lacks("aaaa"), "a picture is no text"
    assert not with_picture.body_lacks("alpha")
    assert with_picture.header_lacks("alpha", b"alpha")
    assert not with_picture.header_lacks("one", b"one")
    for needle in ("", "beta\n", "\xe4"):
        assert not with_picture.body_lacks(needle), "it is not known without decoding"


NEEDLES = (
    *(
        "gr\xfc",
        "beta",
        "b",
        "k",
        "missing_mailbox",
        "be@ta",
        "to:",
        "=?",
        "ta",
        "\uff41",
        "to: be",
        "e",
        "be ta",
        "a beta",
    ),
    *("ta b", ": be ta"),
)
PIECES = st.sampled_from(
    [
        b"=?utf-8?q?b=65ta?=", b"b=\r\neta", b"b=65ta", b"YmV0YQ==", b"b<i>e</i>ta", b"b&#101;ta", b"beta", b"be\r\n ta",
        b"\xe2\x84\xaa", b"be\0ta", b"+AGIAZQB0AGE-", b"be @ ta", b"be@(x)ta", b'"b\\eta" @x', b"\x1b$B", b"\xff", b"~{", b"a",
    ]
)  # fmt: skip
FIELDS = st.sampled_from(
    [
        b"Content-Transfer-Encoding: Base64", b"Content-Transfer-Encoding: quoted-printable (x)", b"Content-Type: text/html",
        b"Content-Transfer-Encoding: x-uue", b"Content-Type: text/plain; charset=utf-7", b"Content-Type: TEXT/PLAIN; CHARSET=UTF-16",
        b"Content-Type: text/plain; charset*=us-ascii''utf%2d7", b"Content-Type: text/plain; charset*0=utf-; charset*1=7",
        b'Content-Type: text/plain; charset="utf-8"', b"Content-Type: text/plain; charset=us-ascii-7",
        b"Content-Type: multipart/mixed; boundary=a", b"Content-Type: message/rfc822", b"Content-Type: text/plain;charset=iso-2022-jp",
        b"Content-Transfer-Encoding:\r\n base64", b"Content-Type: text/plain; charset=hz-gb-2312",
    ]
)  # fmt: skip
HEADERS = st.builds(
    lambda fields, texts: b"".join([field + b"\r\n" for field in fields] + [b"To: %b\r\n" % text for text in texts]) + b"\r\n",
    st.lists(FIELDS, max_size=2),
    st.lists(PIECES, max_size=1),
)  # fmt: skip
SOURCES = st.builds(
    lambda header, text, parts: header + text + b"".join([b"\r\n--a\r\n" + part + body for part, body in parts]),
    HEADERS,
    PIECES,
    st.lists(st.tuples(HEADERS, PIECES), max_size=2),
)


def test_fields_that_need_no_decoding_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    original = text_module.line_text

    def record(name: bytes, line: bytes) -> str:
        decoded.append(name)
        return original(name, line)

    monkeypatch.setattr(text_module, "line_text", record)
    header = b"From: Anna <anna@example.net>\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= of\n spring\nX-Trace: summer\n"
    part = b"--a\nContent-Type: text/plain; name=report\n\nautumn\n"
    message = MessageText(crlf(header + b"Content-Type: multipart/mixed; boundary=a\n\n" + part + b"--a--\n"))
    for needle in ("winter", "winter time", "gr\xfc\xdf", "\xfcber"):
        assert message.header_lacks(fold(needle), probe_of(fold(needle))) == (needle != "gr\xfc\xdf")
        assert message.inner_headers_lack(fold(needle), probe_of(fold(needle)))
    assert not message.header_lacks("summer", b"summer")
    assert not message.inner_headers_lack("report", b"report")
    assert decoded == [b"subject"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                b"A: x",
                b"Subject: =?utf-8?q?a?=",
                b" =?utf-8?q?b?=",
                b"\t\xff",
                b"no field =?",
                b"",
                b" x",
                b": =?",
                b"To : \xe4",
            ]
        )
    ),
    st.sampled_from([b"\r\n", b"\n"]),
    st.booleans(),
)
def test_marked_fields_are_those_of_all_fields(lines: list[bytes], end: bytes, ended: bool) -> None:
    data = end.join(lines) + end * ended
    marked = [
        (name, unfold(value))
        for name, value, _, _ in iterate_fields(data, 0, len(data))
        if b"=?" in value or not value.isascii()
    ]
    assert list(text_module._marked_fields(data)) == marked


@pytest.mark.parametrize(
    ("header", "is_there"),
    [
        (b"Subject: the harbour bridge", True),
        (b"Subject: the harbour\n\t bridge", False),
        (b"Subject: the harbour\n bridge", True),
        (b"Subject: a bridge, a harbour", False),
        (b"Subject: harbour\nX-Bridge: bridge", False),
    ],
)
def test_the_words_of_a_needle_must_be_in_their_order(header: bytes, is_there: bool) -> None:
    message = MessageText(crlf(header + b"\n\nx\n"))
    needle = "harbour bridge"
    assert (needle in message.header) == is_there
    if is_there:
        assert not message.header_lacks(needle, probe_of(needle))
    needle = "bridge harbour of"
    assert message.header_lacks(needle, probe_of(needle)), "though all words may be there"


def test_the_part_of_a_needle_that_is_looked_for_in_octets() -> None:
    assert probe_of("the quarterly report") == b"quarterly"
    assert probe_of("to: anna") == b"anna"
    assert probe_of("\xfcber") == b"ber"
    assert probe_of("\xe4\xf6\xfc :") == b""


def test_what_is_said_to_be_lacking_is_in_no_text() -> None:
    lacking_fields: list[str] = []
    lacking_texts: list[str] = []

    @settings(max_examples=600, deadline=None)
    @given(SOURCES, st.sampled_from(NEEDLES))
    def check(source: bytes, needle: str) -> None:
        needle = fold(needle)
        probe = probe_of(needle)
        whole = MessageText(source)
        if MessageText(source).header_lacks(needle, probe):
            lacking_fields.append(needle)
            assert needle not in whole.header
        if MessageText(source).inner_headers_lack(needle, probe):
            assert needle not in whole.inner_headers
        if MessageText(source).body_lacks(needle):
            lacking_texts.append(needle)
            assert needle not in whole.body

    check()
    # It is said often enough, and of every needle that can be known to be lacking.
    assert len(lacking_fields) >= 60
    assert len(lacking_texts) >= 60
    assert set(lacking_texts) >= {"beta", "k", "be@ta", "e", "to: be"}, set(lacking_texts)
    assert set(lacking_fields) >= {"beta", "be@ta", "gr\xfc"}, set(lacking_fields)
