"""Warnings of certificates that end soon: once for each threshold, and after a restart at most once a day."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable
from typing import Final

from attrs import frozen

from mailserver.tls.context.context_map import Certificate
from mailserver.tls.state.history import CannotRecord, History

THRESHOLDS: Final = (0, 1, 7, 14, 30)
"""Days left, or fewer; 0 means that it has ended."""
AGAIN: Final = 24 * 3600
"""Seconds in which a restart does not repeat a warning."""


@frozen
class ExpiryWarning:
    """A certificate that ends soon."""

    host: str
    threshold: int
    days_left: int
    """Whole days; negative if it has ended."""
    not_after: dt.datetime
    origin: str

    def __str__(self) -> str:
        when = f"{self.not_after:%Y-%m-%d %H:%M} UTC"
        if self.threshold == 0:
            return f"{self.host}: the certificate ended on {when}; clients refuse it ({self.origin})"
        return f"{self.host}: the certificate ends in {in_days(self.days_left)}, on {when} ({self.origin})"


def in_days(whole: int) -> str:
    """Spell out a number of whole days that are left."""
    return "less than a day" if whole < 1 else "1 day" if whole == 1 else f"{whole} days"


def threshold(not_after: dt.datetime, now: dt.datetime) -> int | None:
    """Return the smallest of THRESHOLDS that the days left do not exceed."""
    left = not_after - now
    return next((days for days in THRESHOLDS if left <= dt.timedelta(days=days)), None)


class Expiry:
    """Warnings given by this process, and in the history those given before. One thread at a time."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._given: set[tuple[str, str, int]] = set()

    def due_warnings(self, served: Iterable[Certificate], now: dt.datetime) -> list[ExpiryWarning]:
        """Return new warnings. Raises nothing: a warning that cannot be recorded may be repeated."""
        new = []
        for each in served:
            days = threshold(each.not_after, now)
            key = (each.host, each.fingerprint, days or 0)
            if days is not None and key not in self._given:
                self._given.add(key)
                left = (each.not_after - now).days
                new.append((key, ExpiryWarning(each.host, days, left, each.not_after, each.origin)))
        moment = int(now.timestamp())
        due = []
        with contextlib.suppress(CannotRecord):
            # A warning recorded in the future, before the clock jumped back, must not suppress this one.
            due = [(key, each) for key, each in new if not self._given_lately(key, moment)]
            if due:
                with self._history.transaction():
                    for key, _each in due:
                        self._history.record_warning(*key, moment)
            return [each for _key, each in due]
        return [each for _key, each in due or new]

    def _given_lately(self, key: tuple[str, str, int], moment: int) -> bool:
        given = self._history.warned_at(*key)
        return given is not None and abs(moment - given) < AGAIN
