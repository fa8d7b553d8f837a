from __future__ import annotations

from email.headerregistry import AddressHeader, HeaderRegistry

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import BadMessage, TooBig
from mailserver.message.limits import MAX_HEADER
from mailserver.smtp.address import Address
from mailserver.smtp.header import Field, parse_header
from mailserver.smtp.sender import MAX_FIELD, parse_mailboxes

NAMES = frozenset(["a", "c-d", "g", "h"])
ADDRESSES = ["anna@example.test", "b.c@example.org", '"d e"@example.net']
PHRASES = ["", "Anna ", '"Anna, B" ', "(c) Anna (<x@y.test>) ", "=?utf-8?q?x=2C?= "]


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(PHRASES), st.sampled_from(ADDRESSES)), min_size=1, max_size=5))
def test_lists_are_read_as_python_reads_them(mailboxes: list[tuple[str, str]]) -> None:
    body = ", ".join(f"{phrase}<{address}>" for phrase, address in mailboxes)
    theirs = HeaderRegistry()("From", body)
    assert isinstance(theirs, AddressHeader)
    assert [str(address) for address in parse_mailboxes(body)] == [address.addr_spec for address in theirs.addresses]


@settings(max_examples=300)
@given(st.text(st.sampled_from('a@b.<>()[],;:"\\ \t\xe9'), max_size=40))
def test_nothing_else_is_raised(body: str) -> None:
    try:
        addresses = parse_mailboxes(body)
    except BadMessage:
        return
    assert addresses
    assert all(address.local and address.domain for address in addresses)


def test_fields() -> None:
    assert parse_header(b"A: b\r\nC-d :\te\r\n f\r\nG:\r\nX: y\r\n\r\nH: i\r\n", NAMES) == [
        Field("a", "b"),
        Field("c-d", "e f"),
        Field("g", ""),
    ]
    assert parse_header(b"", NAMES) == parse_header(b"\r\nx", NAMES) == []
    assert parse_header(b"A: b\r\n", NAMES) == [Field("a", "b")]


@pytest.mark.parametrize(
    "header", [b"A b\r\n", b": b\r\n", b" A: b\r\n", b"A\xe9: b\r\n", b"A b: c\r\n", b"A" * 201 + b": b\r\n"]
)
def test_what_is_no_header(header: bytes) -> None:
    with pytest.raises(BadMessage):
        parse_header(header + b"\r\n", NAMES)


@pytest.mark.parametrize("line", [b"A: b\r\n", b"A: " + b"x" * 70 + b"\r\n", b"A: b\r\n " + b"x" * 1000 + b"\r\n"])
def test_the_limit_of_a_header(line: bytes) -> None:
    fits = line * (MAX_HEADER // len(line))
    assert len(parse_header((fits + b"\r\n" + b"body" * 100)[: MAX_HEADER + 2], NAMES)) == MAX_HEADER // len(line)
    with pytest.raises(TooBig):
        parse_header((fits + line * 2 + b"\r\n")[: MAX_HEADER + 2], NAMES)


def test_a_field_that_takes_long_to_read_is_refused() -> None:
    assert parse_mailboxes("(" * 8000 + ")" * 8000 + "anna@example.test") == [Address("anna", "example.test")]
    with pytest.raises(BadMessage):
        parse_mailboxes(" " * MAX_FIELD + "anna@example.test")
