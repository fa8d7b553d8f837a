"""Readers against the grammar of RFC 3501 9: what they take, what they refuse, and every truncation."""

from __future__ import annotations

import calendar
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.errors import BadMailboxName, BadSyntax, LimitReached, MailError
from mailserver.imap.wire import writer
from mailserver.imap.wire.reader import MAX_FLAGS, Reader
from mailserver.store.flags import SYSTEM_FLAGS


def all_of(read: Callable[[Reader], object], *parts: bytes) -> object:
    reader = Reader(parts)
    value = read(reader)
    reader.read_end()
    return value


ASTRINGS = st.binary(max_size=30).map(lambda value: value.replace(b"\0", b""))


@given(ASTRINGS)
def test_strings_read_back(value: bytes) -> None:
    written = writer.astring(value)
    if written.startswith(b"{"):
        head, _, body = written.partition(b"\r\n")
        assert head == b"{%d}" % len(value)
        assert all_of(Reader.read_astring, b"", body, b"") == value
    else:
        assert all_of(Reader.read_astring, written) == value
        assert all_of(Reader.read_string, written) == value


@pytest.mark.parametrize(
    "text", [b'"a', b'"a\\', b'"a\\b"', b'"', b"", b" ", b"(", b"a(", b"a{", b'a"b', b"a\\b", b"\x80", b"a%"]
)
def test_astring_refuses(text: bytes) -> None:
    with pytest.raises(BadSyntax):
        all_of(Reader.read_astring, text)


def test_astring_takes_resp_specials_and_atom_does_not() -> None:
    assert all_of(Reader.read_astring, b"a]b") == b"a]b"
    with pytest.raises(BadSyntax):
        all_of(Reader.read_atom, b"a]b")


def test_literal_with_nul_is_refused() -> None:
    with pytest.raises(BadSyntax):
        all_of(Reader.read_astring, b"", b"a\0b", b"")


def test_literal_comes_only_at_the_end_of_its_text() -> None:
    reader = Reader([b"LOGIN ", b"anna", b" ", b"secret", b""], 5)
    reader.read_sp()
    assert reader.read_astring() == b"anna"
    assert not reader.at_end
    reader.read_sp()
    assert reader.read_string() == b"secret"
    reader.read_end()


def test_rest_is_refused_where_a_literal_stands() -> None:
    assert Reader([b"FLAGS", b"x", b""]).rest() is None
    assert Reader([b"FETCH 1 FLAGS"], 6).rest() == b"1 FLAGS"


@pytest.mark.parametrize(("text", "value"), [(b"0", 0), (b"007", 7), (b"4294967295", 2**32 - 1)])
def test_number(text: bytes, value: int) -> None:
    assert all_of(Reader.read_number, text) == value


@pytest.mark.parametrize("text", [b"", b"-1", b"+1", b"1_0", b"4294967296", b"9" * 5000, b"\xb2"])
def test_number_refuses(text: bytes) -> None:
    with pytest.raises(BadSyntax):
        all_of(Reader.read_number, text)


def test_nstring() -> None:
    assert all_of(Reader.read_nstring, b"nil") is None
    assert all_of(Reader.read_nstring, b'"nil"') == b"nil"


def test_flags() -> None:
    assert all_of(Reader.read_flags, b"(\\sEEN $Forwarded \\DELETED)") == ["\\Seen", "$Forwarded", "\\Deleted"]
    assert all_of(Reader.read_flags, b"()") == []
    assert all_of(lambda reader: reader.read_flags(bare=True), b"\\Draft x") == ["\\Draft", "x"]


@pytest.mark.parametrize(
    "text",
    [
        b"(\\Recent)",
        b"(\\*)",
        b"(\\Foo)",
        b"(a",
        b"(a )",
        b"( a)",
        b"(a  b)",
        b"(a]b)",
        b"a",
        b"(\\)",
        b"(\xe4)",
        b"(%b)" % (b"k" * 300),
    ],
)
def test_flags_refuse(text: bytes) -> None:
    """RFC 3501 2.3.2: \\Recent cannot be altered by the client; no other backslash name is defined."""
    with pytest.raises(BadSyntax):
        all_of(Reader.read_flags, text)


@pytest.mark.parametrize("text", [b"(%b)", b"%b"])
def test_flags_are_counted(text: bytes) -> None:
    """A line's worth of flags of one letter takes other clients' time, and is none of a message."""
    most, more = (text % b" ".join([b"a"] * count) for count in (MAX_FLAGS, MAX_FLAGS + 1))
    assert all_of(lambda reader: reader.read_flags(bare=True), most) == ["a"] * MAX_FLAGS
    with pytest.raises(LimitReached):
        all_of(lambda reader: reader.read_flags(bare=True), more)


def test_flag_names_are_those_of_the_store() -> None:
    assert [SYSTEM_FLAGS[name] for name in writer.FLAG_NAMES] == [1 << bit for bit in range(len(writer.FLAG_NAMES))]
    assert len(SYSTEM_FLAGS) == len(writer.FLAG_NAMES)


@given(st.integers(-62135596800, 253402300799))
def test_date_times_read_back(seconds: int) -> None:
    assert all_of(Reader.read_date_time, writer.date_time(seconds)) == seconds


def test_date_time_of_the_rfc() -> None:
    """RFC 3501 7.4.2 and 6.3.11 show these."""
    assert all_of(Reader.read_date_time, b'"17-Jul-1996 02:44:25 -0700"') == calendar.timegm((1996, 7, 17, 9, 44, 25))
    assert all_of(Reader.read_date_time, b'" 7-Feb-1994 21:52:25 -0800"') == calendar.timegm((1994, 2, 8, 5, 52, 25))
    assert all_of(Reader.read_date_time, b'"7-Feb-1994 21:52:25 -0800"') == calendar.timegm((1994, 2, 8, 5, 52, 25))
    assert writer.date_time(calendar.timegm((1994, 2, 8, 5, 52, 25))) == b'" 8-Feb-1994 05:52:25 +0000"'


@pytest.mark.parametrize(
    "text",
    [
        b'"007-Feb-1994 21:52:25 -0800"',
        b'"31-Feb-1994 21:52:25 -0800"',
        b'" 7-Feb-1994 24:52:25 -0800"',
        b'" 7-Feb-1994 21:60:25 -0800"',
        b'" 7-Feb-1994 21:52:25 0800"',
        b'" 7-Foo-1994 21:52:25 +0800"',
        b'" 7-Feb-0000 21:52:25 +0800"',
        b'" 7-Feb-1994 21:52:25 +0860"',
        b" 7-Feb-1994 21:52:25 +0800",
    ],
)
def test_date_time_refuses(text: bytes) -> None:
    with pytest.raises(BadSyntax):
        all_of(Reader.read_date_time, text)


def test_date() -> None:
    day = calendar.timegm((1994, 2, 1, 0, 0, 0)) // 86400
    assert all_of(Reader.read_date, b"1-Feb-1994") == all_of(Reader.read_date, b'"01-feb-1994"') == day
    for text in (b'1-Feb-1994"', b'"1-Feb-1994', b"30-Feb-1994", b"1-2-1994", b"1-Feb-94"):
        with pytest.raises(BadSyntax):
            all_of(Reader.read_date, text)


@pytest.mark.parametrize(
    "name",
    [
        b'"Entw\xc3\xbcrfe"',
        b"&",
        b"a&b",
        b"&AAk-",
        b"&AAA-",
        b"&ZeVnLIqe",
        b"&AGE-",
        b"&2D0-",
        b"x" * 1025,
    ],
)
def test_mailbox_refuses(name: bytes) -> None:
    """Eight-bit names, broken or needless modified UTF-7 (RFC 3501 5.1.3), controls, lone surrogates, too long."""
    with pytest.raises(BadMailboxName):
        all_of(Reader.read_mailbox, name)


def test_list_mailbox() -> None:
    assert all_of(Reader.read_list_mailbox, b"a%/*]") == "a%/*]"
    assert all_of(Reader.read_list_mailbox, b'""') == ""


COMMANDS = [
    (b'(\\Seen a) " 7-Feb-1994 21:52:25 -0800"', lambda reader: (reader.read_flags(), reader.read_sp(), reader.read_date_time())),
    (b'"a\\"b" &ZeVnLIqe- 1:*,4', lambda reader: (reader.read_string(), reader.read_sp(), reader.read_mailbox(), reader.read_sp(), reader.read_sequence_set())),
]  # fmt: skip


@pytest.mark.parametrize(("text", "read"), COMMANDS)
def test_truncated_anywhere(text: bytes, read: Callable[[Reader], object]) -> None:
    """Only declared failures come out, whatever is missing or damaged."""
    all_of(read, text)
    refused = 0
    for end in range(len(text)):
        for damaged in (text[:end], text[:end] + b"\xff" + text[end + 1 :], text[:end] + text[end + 1 :]):
            try:
                all_of(read, damaged)
            except MailError:
                refused += 1
    assert refused > 0
