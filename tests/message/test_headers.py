"""Header fields against the examples of RFC 2045, 2047, 2231 and 5322."""

from __future__ import annotations

import pytest

from mailserver.message.headers import (
    decode_line,
    header_end,
    iterate_fields,
    parameter,
    parse_content_type,
    parse_disposition,
    strip_comments,
    unfold,
)


def fields(source: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value, _, _ in iterate_fields(source, 0, len(source))]


def test_the_header_ends_at_the_first_empty_line() -> None:
    assert header_end(b"A: b\r\n\r\nx\r\n\r\ny") == 8
    assert header_end(b"\r\nA: b\r\n\r\n") == 2
    assert header_end(b"A: b\r\n") == 6
    assert header_end(b"") == 0


def test_fields_keep_their_lines() -> None:
    source = b"From x@y Tue\r\nA: b\r\n c\r\n\td\r\nno field\r\nB : e\r\n: f\r\nC:\r\nD: last"
    found = list(iterate_fields(source, 0, len(source)))
    assert [name for name, _, _, _ in found] == [b"a", b"b", b"c", b"d"]
    assert source[found[0][2] : found[0][3]] == b"A: b\r\n c\r\n\td\r\n"
    assert source[found[3][2] : found[3][3]] == b"D: last"
    assert unfold(found[0][1]) == b"b c\td"


def test_unfolding_removes_only_the_line_ends() -> None:
    """RFC 5322 2.2.3: "simply removing any CRLF that is immediately followed by WSP"."""
    assert unfold(b" This\r\n is a test\r\n") == b"This is a test"
    assert unfold(b" a\r\n\t b \r\n") == b"a\t b"
    assert unfold(b" a\0b\r\n") == b"ab"


def test_comments() -> None:
    assert strip_comments(b"a (b (c) d) e") == b"a   e"
    assert strip_comments(b'"(a)" b') == b'"(a)" b'
    assert strip_comments(rb"a (b \) c) d") == b"a   d"
    assert strip_comments(b"a (b") == b"a  "


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        # RFC 2047 8
        ("=?US-ASCII?Q?Keith_Moore?= <moore@cs.utk.edu>", "Keith Moore <moore@cs.utk.edu>"),
        ("=?ISO-8859-1?Q?Keld_J=F8rn_Simonsen?= <keld@dkuug.dk>", "Keld Jørn Simonsen <keld@dkuug.dk>"),
        ("=?ISO-8859-1?Q?Andr=E9?= Pirard <PIRARD@vm1.ulg.ac.be>", "André Pirard <PIRARD@vm1.ulg.ac.be>"),
        (
            "=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=\r\n =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
            "If you can read this you understand the example.",
        ),
        ("(=?ISO-8859-1?Q?a?=)", "(a)"),
        ("(=?ISO-8859-1?Q?a?= b)", "(a b)"),
        ("(=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=)", "(ab)"),
        ("(=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=)", "(ab)"),
        ("(=?ISO-8859-1?Q?a?=\r\n    =?ISO-8859-1?Q?b?=)", "(ab)"),
        ("(=?ISO-8859-1?Q?a_b?=)", "(a b)"),
        ("(=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=)", "(a b)"),
        # RFC 2231 5
        ("=?US-ASCII*EN?Q?Keith_Moore?= <moore@cs.utk.edu>", "Keith Moore <moore@cs.utk.edu>"),
        # a character cut in two, as many programs do
        ("=?utf-8?Q?a=C3?= =?utf-8?Q?=A4b?=", "aäb"),
        ("=?utf-8?B?YcM=?= =?utf-8?B?pGI=?=", "aäb"),
        # not encoded words, or of unknown charsets: left as they are
        ("=?x-unknown?Q?a?= b", "=?x-unknown?Q?a?= b"),
        ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
        ("=?utf-8?Q?a", "=?utf-8?Q?a"),
        ("a = ? b", "a = ? b"),
        # Python's own codecs that are no charsets
        ("=?zlib?B?eJw=?=", "=?zlib?B?eJw=?="),
        ("=?unicode_escape?Q?=5Cx41?=", "=?unicode_escape?Q?=5Cx41?="),
        # broken inside
        ("=?utf-8?B?YQ?=", "a"),
        ("=?utf-8?B?Y?=", ""),
        ("=?utf-8?Q?=ZZ=4?=", "=ZZ=4"),
        ("=?utf-8?Q?=FF?=", "\ufffd"),
        ("=?utf-8?Q?a=0D=0Ab=00c?=", "a  b c"),
    ],
)
def test_encoded_words(text: str, decoded: str) -> None:
    assert decode_line(unfold(text.encode("ascii"))) == decoded


def test_raw_eight_bit() -> None:
    assert decode_line("für".encode()) == "für"
    assert decode_line("für".encode("latin-1")) == "für"


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (b" text/plain; charset=us-ascii (Plain text)", (b"text", b"plain", ((b"charset", b"us-ascii"),))),
        (b' text/plain; charset="us-ascii"', (b"text", b"plain", ((b"charset", b"us-ascii"),))),
        (b"TEXT / HTML", (b"TEXT", b"HTML", ())),
        (b' a/b; c="d;e\\"f"; g=h', (b"a", b"b", ((b"c", b'd;e"f'), (b"g", b"h")))),
        (b" a/b; c=d e ; f", (b"a", b"b", ((b"c", b"d e"),))),
        (b' a/b; c="d', (b"a", b"b", ((b"c", b"d"),))),
        (b" a/b;\r\n\tc=d", (b"a", b"b", ((b"c", b"d"),))),
        (b" text", None),
        (b" text/", None),
        (b" /plain", None),
        (b"", None),
    ],
)
def test_content_type(value: bytes, parsed: object) -> None:
    assert parse_content_type(value) == parsed


def test_disposition() -> None:
    assert parse_disposition(b" attachment; filename=genome.jpeg") == (b"attachment", ((b"filename", b"genome.jpeg"),))
    assert parse_disposition(b" inline") == (b"inline", ())
    assert parse_disposition(b" ;a=b") is None


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        # RFC 2231 3, 4 and 4.1
        (b'message/x; URL*0="ftp://"; URL*1="cs.utk.edu/pub/x"', "ftp://cs.utk.edu/pub/x"),
        (b"a/x; url*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A", "This is ***fun***"),
        (
            b"a/x; url*0*=us-ascii'en'This%20is%20even%20more%20; url*1*=%2A%2A%2Afun%2A%2A%2A%20; url*2=\"isn't it!\"",
            "This is even more ***fun*** isn't it!",
        ),
        (b"a/x; url*1=b; url*0=a", "ab"),
        (b"a/x; url*0=a; url*2=c", "a"),
        (b"a/x; url*1=b", None),
        (b"a/x; url*=utf-8''%C3%A4", "ä"),
        (b"a/x; url*=zlib''%C3%A4", "ä"),
        (b"a/x; url*=%41%", "A%"),
        (b"a/x; URL=plain; url*=utf-8''other", "plain"),
        (b"a/x", None),
    ],
)
def test_extended_parameters(value: bytes, decoded: str | None) -> None:
    parsed = parse_content_type(value)
    assert parsed is not None
    assert parameter(parsed[2], b"url") == decoded
