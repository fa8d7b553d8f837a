"""Summaries: BODY and BODYSTRUCTURE (RFC 3501 7.4.2), kept fields, searchable text, the day it was sent."""

from __future__ import annotations

import gc
import weakref
from datetime import date
from typing import Any

import pytest

from mailserver.message import render
from mailserver.message import structure as structures
from mailserver.message.header_summary import HeaderSummary
from mailserver.message.limits import SEEN
from mailserver.message.render import render_structure, summarise
from mailserver.message.structure import parse_structure
from mailserver.message.summary import INCOMPLETE, KEPT_FIELDS, KEPT_LIMIT
from tests.corpus import crlf
from tests.message import notation


def structure(source: bytes) -> Any:
    summary = summarise(source)
    value = notation.read(summary.body_structure)
    notation.check_body(value, extended=True)
    notation.check_body(notation.read(summary.body), extended=False)
    return value


def test_the_example_of_rfc_3501() -> None:
    """RFC 3501 7.4.2: "a two part message consisting of a text and a BASE64-encoded text attachment"."""
    text = b"0123456789 0123456789 0123456789 0123456789 0123456789\n"
    source = crlf(
        b"Content-Type: multipart/mixed; boundary=x\n\n"
        b"--x\nContent-Type: TEXT/PLAIN; CHARSET=US-ASCII\nContent-Transfer-Encoding: 7BIT\n\n" + text * 23 + b"\n"
        b'--x\nContent-Type: TEXT/PLAIN; CHARSET=US-ASCII; NAME="cc.diff"\n'
        b"Content-ID: <960723163407.20117h@cac.washington.edu>\nContent-Description: Compiler diff\n"
        b"Content-Transfer-Encoding: BASE64\n\n" + text * 73 + b"\n--x--\n"
    )
    assert notation.read(summarise(source).body) == [
        [b"TEXT", b"PLAIN", [b"CHARSET", b"US-ASCII"], None, None, b"7BIT", 23 * 56, 23],
        [
            b"TEXT", b"PLAIN", [b"CHARSET", b"US-ASCII", b"NAME", b"cc.diff"],
            b"<960723163407.20117h@cac.washington.edu>", b"Compiler diff", b"BASE64", 73 * 56, 73,
        ],
        b"mixed",
    ]  # fmt: skip


def test_extension_data() -> None:
    source = crlf(
        b"Content-Type: application/pdf; name=a.pdf\nContent-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==\n"
        b'Content-Disposition: attachment; filename="a \\"b\\".pdf"; size=3\n'
        b"Content-Language: de, en-GB\nContent-Location: http://example.test/a\n"
        b"Content-Transfer-Encoding: base64 (really)\n\nabc"
    )
    assert structure(source) == [
        b"application", b"pdf", [b"name", b"a.pdf"], None, None, b"base64", 3,
        b"Q2hlY2sgSW50ZWdyaXR5IQ==",
        [b"attachment", [b"filename", b'a "b".pdf', b"size", b"3"]],
        [b"de", b"en-GB"], b"http://example.test/a",
    ]  # fmt: skip


def test_a_message_in_a_message() -> None:
    source = crlf(
        b"Content-Type: multipart/digest; boundary=x\nContent-Language: en\n\n"
        b"--x\n\nSubject: inner\nFrom: a@b.test\n\none\ntwo\n\n--x--\n"
    )
    anna = [[None, None, b"a", b"b.test"]]
    assert structure(source) == [
        [
            b"message", b"rfc822", None, None, None, b"7bit", len(b"Subject: inner\r\nFrom: a@b.test\r\n\r\none\r\ntwo\r\n"),
            [None, b"inner", anna, anna, anna, None, None, None, None, None],
            [b"text", b"plain", [b"charset", b"us-ascii"], None, None, b"7bit", 10, 2, None, None, None, None],
            5, None, None, None, None,
        ],
        b"digest", [b"boundary", b"x"], None, [b"en"], None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # RFC 2045 5.2: what is absent or not valid is plain US-ASCII text
        (b"Subject: x\n", [b"text", b"plain", [b"charset", b"us-ascii"]]),
        (b"Content-Type: text\n", [b"text", b"plain", [b"charset", b"us-ascii"]]),
        (b"Content-Type:\n", [b"text", b"plain", [b"charset", b"us-ascii"]]),
        (b"Content-Type: multipart/mixed\n", [b"text", b"plain", [b"charset", b"us-ascii"]]),
        (b"Content-Type: text/html; a=b\n", [b"text", b"html", [b"a", b"b", b"charset", b"us-ascii"]]),
        (b"Content-Type: image/gif\n", [b"image", b"gif", None]),
        # RFC 2231 forms are the client's to put together
        (
            b"Content-Type: text/plain; charset*=utf-8''utf-8; n*0*=us-ascii''a%20; n*1=b\n",
            [b"text", b"plain", [b"charset*", b"utf-8''utf-8", b"n*0*", b"us-ascii''a%20", b"n*1", b"b"]],
        ),
        (b"Content-Type: text/plain; charset=\xe4\n", [b"text", b"plain", [b"charset", b"\xe4"]]),
        (b'Content-Type: text/plain; charset="a\\"b"\n', [b"text", b"plain", [b"charset", b'a"b']]),
        (b"Content-Type: text/plain; charset=a\nContent-Type: text/html\n", [b"text", b"plain", [b"charset", b"a"]]),
    ],
)
def test_types(header: bytes, expected: list[Any]) -> None:
    assert structure(crlf(header) + b"\r\nbody")[:3] == expected


def test_an_empty_multipart_has_an_empty_part() -> None:
    found = structure(crlf(b"Content-Type: multipart/mixed; boundary=a\n\nnothing here\n"))
    assert found[0][:2] == [b"text", b"plain"]
    assert found[0][6:8] == [0, 0]
    assert found[1] == b"mixed"


def test_kept_fields_are_the_lines_as_they_stand() -> None:
    source = crlf(
        b"Received: by example.test\nFROM: a@b.test\nX-Other: no\nSubject: =?utf-8?q?=C3=84?=\n b\nsubject: two\n"
        b"Date: Wed, 31 Dec 1969 00:00:00 +1200\n\nFrom: body\n"
    )
    summary = summarise(source)
    assert summary.fields == crlf(
        b"FROM: a@b.test\nSubject: =?utf-8?q?=C3=84?=\n b\nsubject: two\nDate: Wed, 31 Dec 1969 00:00:00 +1200\n"
    )
    text, sent = HeaderSummary.of_message(source).text()
    assert text == "\nfrom: a@b.test\nsubject: ä b\nsubject: two\ndate: wed, 31 dec 1969 00:00:00 +1200"
    assert sent == (date(1969, 12, 31) - date(1970, 1, 1)).days == -1


def test_a_torn_last_line_is_kept_whole() -> None:
    assert summarise(b"Subject: x").fields == b"Subject: x\r\n"


def test_too_many_kept_lines_are_not_kept() -> None:
    assert summarise(b"Subject: x\r\n" * (KEPT_LIMIT // 12 + 1) + b"\r\n").fields == INCOMPLETE.encode("ascii")
    whole = summarise(b"Subject: x\r\n" * (KEPT_LIMIT // 12) + b"\r\n")
    assert whole.fields.startswith(b"Subject: x\r\nSubject: x\r\n")


def test_field_names_are_lower_case() -> None:
    assert all(name == name.lower() and name.isascii() for name in KEPT_FIELDS)


@pytest.mark.parametrize("length", [10, 1000])
def test_nothing_long_is_remembered_of_a_message(length: int) -> None:
    field = b"\r\nContent-Description: " + b"y" * length
    source = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a" + field + b"\r\n\r\n\r\n--a--\r\n"
    root = parse_structure(source)
    _body, structure = render_structure(source, root)
    assert b'"' + b"y" * length + b'"' in structure
    content = weakref.ref(root.children[0].content)
    del root
    gc.collect()
    assert (content() is None) == (length > 512)


def test_of_headers_that_are_too_long_the_first_octets_are_told() -> None:
    """What another program has delivered: APPEND and deliveries refuse it."""
    filler = b"X-Filler: yyyyy\r\n" * (SEEN // 17)
    header = b"Subject: seen\r\n" + filler + b"To: unseen@example.test\r\nContent-Type: text/html\r\n\r\n"
    told = summarise(header + b"body\r\n")
    assert told.envelope == b'(NIL "seen" NIL NIL NIL NIL NIL NIL NIL NIL)'
    assert told.body == b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 1)'
    assert told.fields == b"*", "the file must be read for fields"
    assert HeaderSummary.of_message(header + b"body\r\n").text().text == "*"
    nested = summarise(b"Content-Type: message/rfc822\r\n\r\n" + header + b"body\r\n")
    assert told.envelope in nested.body_structure
    assert b"unseen" not in nested.body_structure


def test_all_headers_together_are_looked_at_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    part = b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nbody\r\n"
    source = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 20 + b"--b--\r\n"
    assert summarise(source).body.count(b'"inner"') == 20
    monkeypatch.setattr(render, "ENVELOPES_SEEN", 100)
    assert summarise(source).body.count(b'"inner"') == 5
    assert summarise(source).body.count(b'"rfc822"') == 20
    monkeypatch.setattr(structures, "ALL_SEEN", 500)
    told = summarise(source).body
    assert 5 < told.count(b'"rfc822"') < 15
    assert told.count(b"(") == told.count(b")")


class Counted(bytes):
    """Octets that know how many of them were looked at for line ends."""

    looked = 0
    largest = 0

    def count(self, what: Any, start: Any = 0, end: Any = None) -> int:
        octets = (len(self) if end is None else end) - start
        self.looked += octets
        self.largest = max(self.largest, octets)
        return super().count(what, start, end)


def test_lines_of_messages_within_each_other_are_counted_once() -> None:
    """Not once a level: ninety levels around the largest message would take half a minute."""
    levels, lines = 90, 600_000
    head = b"Content-Type: message/rfc822\r\n\r\n"
    source = Counted(head * levels + b"Subject: inner\r\n\r\n" + b"x\r\n" * lines)
    _, found = render_structure(source, parse_structure(source))
    value = notation.read(found)
    for level in range(1, levels + 1):
        assert value[9] == 2 * (levels - level) + 2 + lines
        value = value[8]
    assert value[7] == lines
    assert source.looked < 3 * len(source)
    assert source.largest <= 1024 * 1024, "no other thread had its turn meanwhile"


def test_lines_of_messages_beside_each_other() -> None:
    part = b"--x\r\nContent-Type: message/rfc822\r\n\r\nSubject: a\r\n\r\nline\r\nline\r\n"
    value = structure(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + part * 3 + b"--x--\r\n")
    assert [message[9] for message in value[:3]] == [3, 3, 3]
