"""The values that SORT and THREAD compare."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.collation import casemap
from mailserver.message.dates import sent_day, sent_time
from mailserver.message.envelope import first_address, parse_addresses
from mailserver.message.headers import unfold
from mailserver.message.message_ids import message_ids
from mailserver.message.sort_keys import SortKeys, message_sort_keys, sort_keys
from tests.corpus import crlf, hostile, python_messages


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("abc", "ABC"),
        # UnicodeData.txt has no titlecase of it; SpecialCasing.txt does not count.
        ("straße", "STRAßE"),
        ("é", "E\u0301"),
        ("ǆ", "Dz\u030c"),
        ("\ufb00", "ff"),
        ("\u1fb3", "\u0391\u0345"),
        ("ﾊﾟ", "ハ\u309a"),
        ("가", "가"),
    ],
)
def test_the_forms_of_unicode_casemap(text: str, form: str) -> None:
    assert casemap(text) == form


@given(st.text())
def test_nothing_in_a_form_decomposes(text: str) -> None:
    form = casemap(text)
    assert not any(unicodedata.decomposition(character) for character in form)
    assert casemap(text + "x") == form + "X"


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        # RFC 5256 2.2.
        (b"31 Dec 2000 16:01:33 -0800", 978307293),
        (b"1 Jan 2001 00:01:33 +0000", 978307293),
        (b"Mon, 1 Jan 2001 00:01:33 GMT", 978307293),
        (b"Sun, 31 Dec 00 19:01:33 EST", 978307293),
        (b"Mon, (comment) 1 Jan 2001 (more) 00 : 01 : 33 +0000", 978307293),
        (b"1 Jan 2001 00:01", 978307260),
        # An invalid zone is UTC, an invalid time 00:00:00.
        (b"1 Jan 2001 00:01:33 +0075", 978307293),
        (b"1 Jan 2001 00:01:33 XYZ", 978307293),
        (b"1 Jan 2001 25:01:33 +0000", 978307200),
        (b"1 Jan 2001", 978307200),
        (b"Mon Jan  1 00:01:33 2001", 978307293),
        (b"30 Feb 2001 00:00:00 +0000", None),
        (b"some day", None),
        (b"", None),
    ],
)
def test_sent_dates(date: bytes, seconds: int | None) -> None:
    assert sent_time(date) == seconds


@given(st.text("0123456789 :+-JanFebGMTEST(),", max_size=40).map(str.encode))
def test_a_sent_date_exists_exactly_with_a_day(date: bytes) -> None:
    assert (sent_time(date) is None) == (sent_day(date) is None)


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        (b"<a@b> <c@d>", ["a@b", "c@d"]),
        (b"<a@b><c@d>", ["a@b", "c@d"]),
        # RFC 5256 3: one message ID in two spellings.
        (b'<"01KF8JCEOCBS0045PS"@xxx.yyy.com>', ["01KF8JCEOCBS0045PS@xxx.yyy.com"]),
        (b'<"a\\"b c"@d>', ['a"b c@d']),
        (b"<a (comment) @ b>", ["a@b"]),
        (b"your message of Monday <a@b> from anna@example.test", ["a@b"]),
        (b"a@b", []),
        (b"<a>", []),
        (b"<@b> <a@> <>", []),
        (b"<a@b", []),
        (b"<<a@b>>", ["a@b"]),
        (b"<A@b> <a@b>", ["A@b", "a@b"]),
    ],
)
def test_message_ids(value: bytes, ids: list[str]) -> None:
    assert message_ids(value) == ids


@given(st.text('<>@"\\() ab', max_size=30).map(str.encode))
def test_message_ids_never_have_line_ends_or_nothing(value: bytes) -> None:
    for each in message_ids(value):
        assert "@" in each
        assert "\n" not in each


@given(st.text('<>@"\\(),;: ab.', max_size=30).map(str.encode))
def test_the_first_address_is_that_of_the_list(value: bytes) -> None:
    line = unfold(value)
    assert first_address(line) == next(iter(parse_addresses(line)), None)


def test_the_values_of_a_message() -> None:
    header = (
        b"From: =?utf-8?q?J=C3=BCrgen?= <JJ@example.test>, other@example.test\nTo: undisclosed-recipients:;\n"
        b"Cc: x@example.test\nSubject: Re: =?utf-8?q?h=C3=A4?=\n llo (fwd)\nDate: 1 Jan 2001 00:01:33 +0000\n"
        b"Message-ID: <1@example.test>\nReferences: <2@example.test>\n <3@example.test>\nIn-Reply-To: <4@example.test>\n\n"
    )
    expected = SortKeys(
        978307293, "HA\u0308 LLO", True, "JJ", "UNDISCLOSED-RECIPIENTS", "X", "JU\u0308RGEN", "UNDISCLOSED-RECIPIENTS",
        "1@example.test", "2@example.test\n3@example.test",
    )  # fmt: skip
    assert sort_keys(header) == expected
    assert message_sort_keys(crlf(header) + b"Subject: body\r\n") == expected
    assert sort_keys(b"") == SortKeys(None, "", False, "", "", "", "", "", "", "")
    assert (
        sort_keys(b"References: none\nIn-Reply-To: <4@example.test> <5@example.test>\n\n").references
        == "4@example.test"
    )


def test_any_message_has_values() -> None:
    for source in [*python_messages().values(), *[source for _name, source in hostile()]]:
        keys = message_sort_keys(crlf(source))
        assert all(isinstance(each, str) for each in keys[1:2] + keys[3:])
