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
_EPOCH: Final = date(1970, 1, 1).toordinal()
_LONGEST: Final = 256


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
