"""The day of a Date field (RFC 5322 3.3, 4.3)."""

from __future__ import annotations

from datetime import date

import pytest

from mailserver.message.dates import sent_day


@pytest.mark.parametrize(
    ("value", "day"),
    [
        (b" Fri, 21 Nov 1997 09:55:06 -0600", date(1997, 11, 21)),
        (b"Tue, 1 Jul 2003 10:52:37 +0200\r\n", date(2003, 7, 1)),
        (b"21 Nov 97 09:55:06 GMT", date(1997, 11, 21)),
        (b"1 Jan 49 00:00 GMT", date(2049, 1, 1)),
        (b"1 Jan 50 00:00 GMT", date(1950, 1, 1)),
        (b"1 Jan 102 00:00 GMT", date(2002, 1, 1)),
        (b"Thu,\r\n      13\r\n        Feb\r\n          1969\r\n      23:32\r\n               -0330 (Newfoundland Time)", date(1969, 2, 13)),
        # the day that is named, whatever the zone makes of it
        (b"Fri, 31 Dec 1999 23:59:59 -1200", date(1999, 12, 31)),
        (b"Mon Jan  5 10:00:00 2020", date(2020, 1, 5)),
        (b"Mon Jan  5 10:00:00 CET 2020", date(2020, 1, 5)),
        (b"(1 Jan 1990) 2 February 2000 00:00", date(2000, 2, 2)),
        (b"29 Feb 2000 00:00:00 +0000", date(2000, 2, 29)),
    ],
)  # fmt: skip
def test_days(value: bytes, day: date) -> None:
    assert sent_day(value) == (day - date(1970, 1, 1)).days


@pytest.mark.parametrize(
    "value", [b"", b"yesterday", b"32 Jan 2000 00:00", b"29 Feb 2001 00:00", b"1 Foo 2000", b"1 Jan 0000", b"1 Jan 20000", b"2000-01-01"]
)  # fmt: skip
def test_no_day(value: bytes) -> None:
    assert sent_day(value) is None
