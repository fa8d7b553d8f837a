"""The two readers of headers: the one for nearly all of them must say what the one for any says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.mail import message
from mailserver.message import header_summary
from mailserver.message.headers import header_end
from mailserver.message.structure import parse_structure
from tests.corpus import python_messages

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


def both_agree(header: bytes) -> bool:
    """Whether the usual reader took it; what it says is compared."""
    usual = header_summary._read_usual(header)
    if usual is None:
        return False
    assert usual[:4] == header_summary._read_any(header)[:4]
    assert usual.content == parse_structure(header).fields
    return True


@given(FIELDS, st.sampled_from([b"", b"\r\n"]))
def test_both_readers_say_the_same(fields: list[tuple[bytes, ...]], end: bytes) -> None:
    header = b"".join([part for field in fields for part in field]) + end
    both_agree(header[: header_end(header)])


@given(st.text(alphabet='Subject: To\r\n\t\0a@b<>"(),;=?.\\', max_size=60))
def test_both_readers_say_the_same_of_any_octets(text: str) -> None:
    header = b"To: " + text.encode()
    both_agree(header[: header_end(header)])


def test_both_readers_say_the_same_of_real_mail() -> None:
    messages = [*python_messages().values(), *(message(seed) for seed in range(30))]
    taken = [both_agree(source[: header_end(source)]) for source in messages]
    # What is left to the other reader is the exception.
    assert sum(taken) > len(taken) // 2


@pytest.mark.parametrize(
    "header",
    [
        b"Subject: a\0b\r\n\r\n", b"Subject : a\r\n\r\n", b"Subject\t: a\r\n\r\n", b"Subject: a\rb\r\n\r\n",
        b"X: a\nSubject: b\r\n\r\n", b"Subject: a\r\r\n b\r\n\r\n",
    ],
)  # fmt: skip
def test_what_it_could_get_wrong_is_left_alone(header: bytes) -> None:
    assert header_summary._read_usual(header) is None
    assert header_summary.parse_header_summary(header).fields
