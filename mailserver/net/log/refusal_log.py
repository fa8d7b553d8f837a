"""A bound on log lines about clients that are refused before a login: a scanner must not fill the disk.

Of one network and one kind of refusal so many lines are written in a minute as no rule of fail2ban needs more of; those
behind them are counted, and the next line that is written has the number (`unsaid=`). Failed logins are not among these:
each has its line, and its delay.
"""

from __future__ import annotations

from typing import Final

from attrs import define

INTERVAL: Final = 60.0
"""Seconds in which MOST lines are written."""
MOST: Final = 30
MOST_REMEMBERED: Final = 1000
"""Pairs of network and event."""

EVENTS: Final = frozenset(
    {
        "tls-failed",
        "cleartext-at-tls-port",
        "tls-at-starttls-port",
        "http-request",
        "starttls-refused",
        "plaintext-behind-starttls",
        "plaintext-behind-stls",
        "client-certificate-refused",
        "too-many-errors",
        "timeout",
    }
)
"""Events that any client can cause, as often as it connects."""


@define
class _Lines:
    began: float
    written: int = 0
    unsaid: int = 0


class RefusalLog:
    """The refusals of one process."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], _Lines] = {}

    def count(self, network: str, event: str, now: float) -> int | None:
        """One more: is a line written? Then how many were left out before it; else None."""
        key = (network, event)
        lines = self._lines.get(key)
        if lines is None:
            if len(self._lines) >= MOST_REMEMBERED:
                self._lines.clear()
            lines = self._lines[key] = _Lines(now)
        elif now - lines.began >= INTERVAL:
            lines.began, lines.written = now, 0
        if lines.written >= MOST:
            lines.unsaid += 1
            return None
        lines.written += 1
        unsaid, lines.unsaid = lines.unsaid, 0
        return unsaid


def is_refusal(event: str, fields: dict[str, object]) -> bool:
    """Is an event one of those; or a request of HTTP that got an error as its answer?"""
    status = fields.get("status")
    return event in EVENTS or (event == "request" and isinstance(status, int) and status >= 400)
