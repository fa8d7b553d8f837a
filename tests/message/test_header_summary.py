"""The facts of headers, compared with a plain reader."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks import corpus
from mailserver.message.header_summary import NO_LINES, HeaderSummary
from mailserver.message.headers import header_end
from mailserver.message.structure import parse_structure
from mailserver.message.summary import INCOMPLETE, KEPT_LIMIT
from tests.corpus import python_messages
from tests.message import header_reference

NAMES = st.sampled_from(
    [
        b"Subject", b"subject", b"From", b"To", b"CC", b"Bcc", b"Date", b"Message-ID", b"In-Reply-To", b"Sender",
        b"Reply-To", b"X-Other", b"Received", b"Content-Type", b"Content-ID", b"content-disposition", b"References",
        b"no colon", b" To", b"Subject ", b"",
    ]
)  # fmt: skip
VALUES = st.sampled_from(
    [
        b"hello world", b"Anna Example <anna@example.test>", b'"A \\" b" <a@b.test>, c@d.test (x)', b"a @ b.test",
        b"=?utf-8?q?=C3=84?= b", b"=?utf-8?q?=C3?=\r\n =?utf-8?q?=84?=", b"Mon, 1 Jan 2024 10:00:00 +0000", b"<1@a.test>",
        b"a\r\n b", b"a\r\n\tb\r\n  c", b"a : b", b"a\t: b", b"\xe4\xc3\xa4", b"text/plain; charset=utf-8", b"", b"  ",
        b'say "a\\b"', b"x\r\n ", b"\tx\t ", b"group: a@b.test, c@d.test;", b"<1@a.test>", b"Re: a: b", b"KELVIN \xe2\x84\xaa",
        b"1 Jan 2020 (c)", b"first\r\nsecond", b"\x01\x7f",
    ]
)  # fmt: skip
ODD = st.sampled_from([b"\0", b"\r", b"\n", b"\n ", b"\r\r\n ", b" :", b"\r\n"])
FIELDS = st.lists(
    st.tuples(NAMES, st.sampled_from([b": ", b":", b":  ", b""]), VALUES | st.binary(max_size=12), st.just(b"\r\n") | ODD),
    max_size=8,
)  # fmt: skip


def check(header: bytes) -> None:
    """Compare with the plain reader: of the header as sent, of the same with LF line ends, and of its kept lines."""
    envelope, lines, text, sent = header_reference.read(header)
    forms = [header, header.replace(b"\r\n", b"\n")] if b"\r" not in header.replace(b"\r\n", b"") else [header]
    for form in forms:
        summary = HeaderSummary(form)
        assert (summary.envelope(), summary.fields, *summary.text()) == (envelope, lines, text, sent)
    assert summary.content() == parse_structure(header).fields
    if lines != NO_LINES:
        kept = HeaderSummary(lines)
        assert (kept.envelope(), kept.fields, *kept.text()) == (envelope, lines, text, sent)


def as_sent(header: bytes) -> bytes:
    return header.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@given(FIELDS, st.sampled_from([b"", b"\r\n"]))
def test_a_header_is_read_like_field_by_field(fields: list[tuple[bytes, ...]], end: bytes) -> None:
    header = as_sent(b"".join([part for field in fields for part in field]) + end)
    check(header[: header_end(header)])


@given(st.text(alphabet='Subject: To\r\n\t\0a@b<>"(),;=?.\\', max_size=60))
def test_any_octets_are_read_like_field_by_field(text: str) -> None:
    header = as_sent(b"To: " + text.encode())
    check(header[: header_end(header)])


def test_real_mail_is_read_like_field_by_field() -> None:
    for source in [*python_messages().values(), *(corpus.crlf(corpus.message(seed)) for seed in range(100))]:
        check(source[: header_end(source)])


def test_a_header_of_other_line_ends_is_kept_as_sent() -> None:
    assert HeaderSummary(b"Subject: a\r\nTo: b\n c\n\n").fields == b"Subject: a\r\nTo: b\r\n c\r\n"


def test_too_many_lines_are_not_kept() -> None:
    header = b"Subject: x\n" * (KEPT_LIMIT // 12)
    assert HeaderSummary(header).fields == header.replace(b"\n", b"\r\n")
    summary = HeaderSummary(header + b"Date: 1 Jan 2024 00:00:00 +0000\n")
    assert (summary.fields, *summary.text()) == (NO_LINES, INCOMPLETE, 19723)
    assert HeaderSummary(b"Subject: x\n", is_whole=False).fields == NO_LINES


def test_a_long_header_is_read_like_a_short_one() -> None:
    check(
        b"X-Other: x\r\n" * (KEPT_LIMIT // 12)
        + b"SUBJECT : x\r\n y\r\nTo: a@b.test\r\nno field\r\nContent-ID: <x>\r\n\r\n"
    )
