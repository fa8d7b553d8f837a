"""What is written is well-formed whatever the value holds (RFC 3501 9)."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mailserver.imap.wire import writer


@given(st.binary(max_size=40))
def test_strings_never_break_a_response(value: bytes) -> None:
    written = writer.string(value)
    match = re.fullmatch(rb"\{([0-9]+)\}\r\n(.*)", written, re.DOTALL)
    if match:
        assert int(match[1]) == len(match[2])
        assert b"\0" not in match[2]
    else:
        assert re.fullmatch(rb'"(?:[\x01-\x09\x0b\x0c\x0e-\x21\x23-\x5b\x5d-\x7f]|\\["\\])*"', written)


def test_nil() -> None:
    assert writer.nstring(None) == b"NIL"
    assert writer.nstring(b"") == b'""'


def test_flags() -> None:
    assert writer.flags(0, ()) == b"()"
    assert writer.flags(1 | 8 | 1 << 6, ("a", "b"), True) == b"(\\Answered \\Seen b \\Recent)"


def test_mailbox() -> None:
    assert writer.mailbox("INBOX") == b"INBOX"
    assert writer.mailbox('a"\\') == b'"a\\"\\\\"'
    assert writer.mailbox("Entwürfe") == b'"Entw&APw-rfe"'
