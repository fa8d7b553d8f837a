"""Who is to be told that a certificate ends soon: once for each threshold, and after a restart not twice a day."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable
from typing import Final

from attrs import frozen

from mailserver.tls.context.contexts import Certificate
from mailserver.tls.state.history import CannotRecord, History

THRESHOLDS: Final = (0, 1, 7, 14, 30)
"""Days left, or fewer; 0: it has ended."""
AGAIN: Final = 24 * 3600
"""Seconds in which a restart does not say the same again."""


@frozen
class Warning:  # noqa: A001 - what it is
    """A certificate that ends soon."""

    host: str
    threshold: int
    days_left: int
    """Whole days; negative when it has ended."""
    not_after: dt.datetime
    origin: str

    def __str__(self) -> str:
        when = f"{self.not_after:%Y-%m-%d %H:%M} UTC"
        if self.threshold == 0:
            return f"{self.host}: the certificate ended on {when}; clients refuse it ({self.origin})"
        return f"{self.host}: the certificate ends in {in_days(self.days_left)}, on {when} ({self.origin})"


def in_days(whole: int) -> str:
    """Whole days that are left, in words."""
    return "less than a day" if whole < 1 else "1 day" if whole == 1 else f"{whole} days"


def threshold(not_after: dt.datetime, now: dt.datetime) -> int | None:
    """The least number of THRESHOLDS that the days left do not exceed."""
    left = not_after - now
    return next((days for days in THRESHOLDS if left <= dt.timedelta(days=days)), None)


class Expiry:
    """What was told since the process began, and in the history what was told before. One thread at a time."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._told: set[tuple[str, str, int]] = set()

    def look(self, served: Iterable[Certificate], now: dt.datetime) -> list[Warning]:
        """Those to be told now. Raises nothing: what cannot be recorded may be told once more."""
        new = []
        for each in served:
            days = threshold(each.not_after, now)
            key = (each.host, each.fingerprint, days or 0)
            if days is not None and key not in self._told:
                self._told.add(key)
                left = (each.not_after - now).days
                new.append((key, Warning(each.host, days, left, each.not_after, each.origin)))
        moment = int(now.timestamp())
        due = []
        with contextlib.suppress(CannotRecord):
            # A clock that jumps back must not silence what was told "later".
            due = [(key, each) for key, each in new if not self._told_lately(key, moment)]
            if due:
                with self._history.transaction():
                    for key, _each in due:
                        self._history.warned(*key, moment)
            return [each for _key, each in due]
        return [each for _key, each in due or new]

    def _told_lately(self, key: tuple[str, str, int], moment: int) -> bool:
        told = self._history.warned_at(*key)
        return told is not None and abs(moment - told) < AGAIN
