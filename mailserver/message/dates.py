"""The Date field (RFC 5322 3.3 with the obsolete forms of 4.3)."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Final

from mailserver.message.headers import strip_comments, unfold

_MONTHS: Final = (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec")
_MONTH: Final = rb"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*+"
_DAY_FIRST: Final = re.compile(rb"(?<!\d)(\d{1,2})[\s-]++" + _MONTH + rb"[\s-]++(\d{2,4})(?!\d)", re.IGNORECASE)
# As asctime writes it: Mon Jan  5 10:00:00 2020.
_MONTH_FIRST: Final = re.compile(
    _MONTH + rb"\s++(\d{1,2})\s++[\d:]++(?:\s++[a-z]{1,5})?+\s++(\d{4})(?!\d)", re.IGNORECASE
)
# As nearly everybody writes it; what follows the year cannot change the day.
_USUAL: Final = re.compile(
    rb"(?:[A-Z][a-z]{2}, )?+(\d{1,2}) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (\d{4})(?!\d)"
)
_USUAL_TIME: Final = re.compile(
    _USUAL.pattern + rb" ([01]\d|2[0-3]):([0-5]\d):([0-5]\d) ([+-]\d{2}[0-5]\d)(?!\d)",
)
_TIME: Final = re.compile(rb"(?<![\d:])(\d{1,2})\s*+:\s*+(\d{2})(?:\s*+:\s*+(\d{2}))?+(?![\d:])")
_OFFSET: Final = re.compile(rb"\s*+([+-])(\d{2})(\d{2})(?!\d)")
_ZONE: Final = re.compile(rb"\s*+([a-z]{2,3})(?![a-z])", re.IGNORECASE)
_ZONES: Final = {b"edt": -4, b"est": -5, b"cdt": -5, b"cst": -6, b"mdt": -6, b"mst": -7, b"pdt": -7, b"pst": -8}
"""Hours from UTC (RFC 5322 4.3). Others are UTC, or mean nothing certain and count as UTC (RFC 5256 2.2)."""
_EPOCH: Final = date(1970, 1, 1).toordinal()
_LONGEST: Final = 256
_DAY: Final = 86400


def sent_day(value: bytes) -> int | None:
    """Return the day of a Date field, days since 1970-01-01, disregarding time and zone; None if it has none."""
    match = _USUAL.match(value)
    if match:
        return _day(match[3], match[2], match[1])
    value = strip_comments(unfold(value[:_LONGEST]))
    match = _DAY_FIRST.search(value)
    if match:
        return _day(match[3], match[2], match[1])
    match = _MONTH_FIRST.search(value)
    return _day(match[3], match[1], match[2]) if match else None


def sent_time(value: bytes) -> int | None:
    """Return the sent date of RFC 5256 2.2: seconds since 1970-01-01 00:00 UTC; None if the field has no day.

    An invalid zone counts as UTC, an invalid time as 00:00:00.
    """
    match = _USUAL_TIME.match(value)
    if match:
        day = _day(match[3], match[2], match[1])
        if day is None:
            return None
        return day * _DAY + int(match[4]) * 3600 + int(match[5]) * 60 + int(match[6]) - _usual_offset(match[7])
    value = strip_comments(unfold(value[:_LONGEST]))
    day = sent_day(value)
    if day is None:
        return None
    time = _TIME.search(value)
    if time is None:
        return day * _DAY
    offset = _OFFSET.match(value, time.end())
    if offset is not None:
        return day * _DAY + _time_of_day(*time.groups()) - _offset(*offset.groups())
    zone = _ZONE.match(value, time.end())
    hours = _ZONES.get(zone[1].lower(), 0) if zone is not None else 0
    return day * _DAY + _time_of_day(*time.groups()) - hours * 3600


def _time_of_day(hour: bytes, minute: bytes, second: bytes | None) -> int:
    """Return the seconds since midnight."""
    hours, minutes, seconds = int(hour), int(minute), int(second or b"0")
    return hours * 3600 + minutes * 60 + seconds if hours < 24 and minutes < 60 and seconds < 61 else 0


@lru_cache(maxsize=64)
def _usual_offset(zone: bytes) -> int:
    return _offset(zone[:1], zone[1:3], zone[3:])


def _offset(sign: bytes, hours: bytes, minutes: bytes) -> int:
    """Return the seconds by which a zone is ahead of UTC."""
    if int(minutes) >= 60:
        return 0
    ahead = int(hours) * 3600 + int(minutes) * 60
    return ahead if sign == b"+" else -ahead


@lru_cache(maxsize=256)
def _day(year: bytes, month: bytes, day: bytes) -> int | None:
    number = int(year)
    if len(year) == 2:
        # RFC 5322 4.3.
        number += 2000 if number < 50 else 1900
    elif len(year) == 3:
        number += 1900
    try:
        return date(number, _MONTHS.index(month.lower()) + 1, int(day)).toordinal() - _EPOCH
    except ValueError:
        return None
