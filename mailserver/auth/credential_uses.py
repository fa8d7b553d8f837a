"""The last use of each app password: gathered beside the logins, and reported now and then, with the client's network.

A program may log in every minute. So the same app password is reported once in REPORT_INTERVAL, by its last use; a login costs an
entry in a table. Nothing waits for a report, and uses that are too many are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from math import inf
from typing import Final, NamedTuple

from mailserver.auth.throttling.penalties import network_of
from mailserver.system.children import Timer

GATHERING_TIME: Final = 5.0
"""Seconds between a first use and its report."""
REPORT_INTERVAL: Final = 300.0
"""Seconds until the same app password is reported again."""
MAX_WAITING: Final = 5000
"""App passwords whose use waits to be reported."""


class CredentialUse(NamedTuple):
    """One use of an app password."""

    credential: str
    """Its identifier."""
    account: str
    network: str
    """The /24 (IPv4) or /48 (IPv6) of the client; "local" for a Unix socket."""
    protocol: str
    at: int
    """Seconds since 1970."""


class CredentialUses:
    """The uses in one process, for its whole life."""

    def __init__(
        self,
        clock: Callable[[], float],
        wall: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        """`clock`: monotonic seconds; `wall`: seconds since 1970."""
        self._clock = clock
        self._wall = wall
        self._call_later = call_later
        self._waiting: dict[str, CredentialUse] = {}
        self._reported: dict[str, float] = {}
        """When each was reported last, the oldest first; those of the last REPORT_INTERVAL."""
        self._timer: Timer | None = None
        self._due_at = inf
        """When the timer ends."""
        self.report: Callable[[Sequence[CredentialUse]], None] = lambda _uses: None
        """Called with the uses that are due, for the ledger."""

    def note(self, credential: str, account: str, peer: IPv4Address | IPv6Address | None, protocol: str) -> None:
        """Note a login with an app password. Raises nothing."""
        if credential not in self._waiting and len(self._waiting) >= MAX_WAITING:
            return
        self._waiting[credential] = CredentialUse(credential, account, network_of(peer), protocol, int(self._wall()))
        before = self._reported.get(credential)
        self._set_timer(GATHERING_TIME if before is None else before + REPORT_INTERVAL - self._clock())

    def flush(self) -> None:
        """Report all uses now: this process serves no clients any more."""
        waiting, self._waiting = list(self._waiting.values()), {}
        if waiting:
            self.report(waiting)

    def _set_timer(self, seconds: float) -> None:
        """Report within that time, or earlier if that is due."""
        seconds = max(seconds, GATHERING_TIME)
        if self._clock() + seconds < self._due_at:
            if self._timer is not None:
                self._timer.cancel()
            self._due_at = self._clock() + seconds
            self._timer = self._call_later(seconds, self._report_due)

    def _report_due(self) -> None:
        self._timer, self._due_at = None, inf
        now = self._clock()
        while self._reported and now - (oldest := next(iter(self._reported.items())))[1] >= REPORT_INTERVAL:
            del self._reported[oldest[0]]
        due = [each for each in self._waiting.values() if each.credential not in self._reported]
        for each in due:
            del self._waiting[each.credential]
            self._reported[each.credential] = now
        if due:
            self.report(due)
        if self._waiting:
            first = min(self._reported[each] for each in self._waiting)
            self._set_timer(first + REPORT_INTERVAL - now)
