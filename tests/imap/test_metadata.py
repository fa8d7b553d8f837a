"""Annotations (RFC 5464): limits, binary values, and what DEPTH and MAXSIZE choose."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.imap.metadata import MetadataRequest
from tests.fakes import Client
from tests.imap.sessions import logged_in, services
from tests.store.disk import open_store

SMALL = {"metadata_entries": 10, "metadata_size": 1024}


def client(settings: dict[str, Any] = SMALL) -> Client:
    return logged_in(services(imap=settings))


def test_a_value_may_be_as_large_as_the_setting_says() -> None:
    one = client()
    assert (
        one.ask(b"a SETMETADATA INBOX (/private/x {1024+}\r\n%b)\r\n" % (b"x" * 1024))
        == b"a OK SETMETADATA completed\r\n"
    )
    answer = one.ask(b'b SETMETADATA INBOX (/private/y "1" /private/x {1025+}\r\n%b)\r\n' % (b"x" * 1025))
    assert answer == b"b NO [METADATA MAXSIZE 1024] the annotation is too large\r\n"
    assert b"/private/y NIL" in one.ask(b"c GETMETADATA INBOX /private/y\r\n")


def test_a_literal_that_no_value_can_be_is_not_read() -> None:
    answer = client().ask(b"a SETMETADATA INBOX (/private/x {1000000}\r\n")
    assert answer == b"a NO [METADATA MAXSIZE 1024] the annotation is too large\r\n"


def test_there_may_be_as_many_as_the_setting_says() -> None:
    one = client()
    for place in (b"INBOX", b'""'):
        for number in range(10):
            assert b"a OK" in one.ask(b'a SETMETADATA %b (/private/%d "x")\r\n' % (place, number))
        answer = one.ask(b'b SETMETADATA %b (/private/0 "y" /private/10 "x")\r\n' % place)
        assert answer == b"b NO [METADATA TOOMANY] too many annotations\r\n"
        assert b'(/private/0 "x")' in one.ask(b"c GETMETADATA %b /private/0\r\n" % place)
        assert b"d OK" in one.ask(b'd SETMETADATA %b (/private/0 NIL /private/10 "x")\r\n' % place)


def test_binary_values_go_both_ways() -> None:
    one = client()
    assert b"a OK" in one.ask(b"a SETMETADATA INBOX (/private/x ~{4+}\r\n\x00\xff\r\n)\r\n")
    assert b"(/private/x ~{4}\r\n\x00\xff\r\n)\r\n" in one.ask(b"b GETMETADATA INBOX /private/x\r\n")
    assert b"c OK" in one.ask(b'c SETMETADATA INBOX (/private/x "\xc3\xbc")\r\n')
    assert b"(/private/x {2}\r\n\xc3\xbc)\r\n" in one.ask(b"d GETMETADATA INBOX /private/x\r\n")


def test_the_administrator_sets_what_all_users_read_of_the_server() -> None:
    one = client({"server_comment": "Closed on Sundays", "server_admin": "mailto:postmaster@example.org"})
    assert one.ask(b'a GETMETADATA "" (/shared/comment /SHARED/admin)\r\n').startswith(
        b'* METADATA "" (/shared/comment "Closed on Sundays" /SHARED/admin "mailto:postmaster@example.org")\r\n'
    )
    assert b"b NO [NOPERM]" in one.ask(b'b SETMETADATA "" (/shared/admin NIL)\r\n')


def test_too_many_entries_in_one_command_are_refused() -> None:
    one = client()
    names = b" ".join(b"/private/%d" % number for number in range(257))
    assert b"a NO [LIMIT]" in one.ask(b"a GETMETADATA INBOX (%b)\r\n" % names)
    assert b"b NO [LIMIT]" in one.ask(b'b LIST "" * RETURN (METADATA (%b))\r\n' % names)
    assert b"c NO [LIMIT]" in one.ask(b"c SETMETADATA INBOX (%b)\r\n" % (names.replace(b" ", b" NIL ") + b" NIL"))


def test_a_damaged_file_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    one = logged_in(services(store=open_store(str(tmp_path))))
    assert b"a OK" in one.ask(b'a SETMETADATA INBOX (/private/x "1")\r\n')
    path = next(
        Path(folder) / "mailserver-metadata" for folder, _, files in os.walk(tmp_path) if "mailserver-metadata" in files
    )
    for damage in (b"", b"{", b"[]", b'{"/private/x": 1}', b'{"/private/x": {"base64": "!"}}', b"\xff"):
        path.write_bytes(damage)
        assert b"b NO [UNAVAILABLE]" in one.ask(b"b GETMETADATA INBOX /private/x\r\n")
        assert b"c NO [UNAVAILABLE]" in one.ask(b'c SETMETADATA INBOX (/private/x "2")\r\n')
        assert path.read_bytes() == damage
        assert b"d OK LIST completed" in one.ask(b'd LIST "" INBOX RETURN (METADATA (/private/x))\r\n')


LEVELS = st.lists(st.sampled_from("aAb"), min_size=1, max_size=4)
NAMES = LEVELS.map(lambda levels: "/private/" + "/".join(levels))


@given(
    known=st.dictionaries(NAMES.map(str.lower), st.binary(max_size=5), max_size=12),
    entries=st.lists(NAMES, min_size=1, max_size=4, unique=True),
    depth=st.sampled_from([0, 1, math.inf]),
    max_size=st.none() | st.integers(0, 5),
)
def test_depth_and_maxsize(known: dict[str, bytes], entries: list[str], depth: float, max_size: int | None) -> None:
    sent, longest = MetadataRequest(tuple(entries), depth, max_size).select(known)
    expected: dict[str, bytes | None] = {}
    for entry in entries:
        name = entry.lower()
        if depth == 0:
            expected[name] = known.get(name)
        for key, value in known.items():
            below = key.startswith(name + "/") and key[len(name) + 1 :].count("/") + 1 <= depth
            if key == name or below:
                expected[key] = value
    large = [
        len(value)
        for value in expected.values()
        if value is not None and max_size is not None and len(value) > max_size
    ]
    left = {
        key: value for key, value in expected.items() if value is None or max_size is None or len(value) <= max_size
    }
    assert {name.lower(): value for name, value in sent} == left
    assert len(sent) == len(left)
    assert longest == max(large, default=0)


@pytest.mark.parametrize("name", ["INBOX", ""])
def test_an_entry_without_value_is_nil_only_without_depth(name: str) -> None:
    one = client()
    place = b'"%b"' % name.encode()
    assert b"/private/x NIL" in one.ask(b"a GETMETADATA %b /private/x\r\n" % place)
    assert one.ask(b"b GETMETADATA (DEPTH 1) %b /private/x\r\n" % place) == b"b OK GETMETADATA completed\r\n"
