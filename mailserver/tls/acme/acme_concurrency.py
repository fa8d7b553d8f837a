"""How many orders of an ACME authority run at once, so that those that hang hold up no others: no clock, no network.

Each runs in a lane: of its proof, and of whether it has failed before. So a program for TXT records that hangs for two hundred
hosts holds up no page on port 80, and no host that is asked for the first time behind them. What takes long, and has not failed
before, makes way for the next of its lane, and goes on beside; there are few such places, as each order is a process.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Final, TypeAlias

from mailserver.config.model import Acme
from mailserver.tls.acme.schedule import Attempts

Lane: TypeAlias = tuple[str, str]

AT_ONCE: Final = 3
"""Orders of each lane."""
SLOW: Final = 30.0
"""Seconds after which an order makes way."""
SLOW_AT_ONCE: Final = 4
"""Orders that have made way; all of their lanes together."""
HURRIED: Final[Lane] = ("any", "hurried")
"""Of what the administrator asks for."""
_FAILED: Final = "failed before"
_ASIDE: Final[Lane] = ("any", "slow")
MOST: Final = 12
"""Orders in all: more than those of one proof take if all of them hang."""


def challenge_of(acme: Acme, host: str) -> str:
    """How a host is proved; wildcards are by DNS alone."""
    return "dns-01" if host.startswith("*.") else acme.challenge


def lane_of(acme: Acme, host: str, attempts: Attempts) -> Lane:
    """That of a host's next order."""
    return challenge_of(acme, host), _FAILED if attempts.failures else "new"


class Lanes:
    """Those orders that run. Times are of a clock that does not jump."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._begun: dict[str, float] = {}

    def has_place(self, lane: Lane) -> bool:
        """May another begin?"""
        return Counter(self._lanes.values())[lane] < AT_ONCE and len(self._lanes) < MOST

    def enter(self, host: str, lane: Lane, now: float) -> None:
        """Its order begins."""
        self._lanes[host], self._begun[host] = lane, now

    def leave(self, host: str) -> None:
        """It has ended."""
        del self._lanes[host], self._begun[host]

    def until_way(self, now: float) -> float:
        """Seconds until the next one makes way; without end where none will."""
        return min((left for begun in self._begun.values() if (left := begun + SLOW - now) > 0), default=math.inf)

    def make_way(self, now: float) -> None:
        """Have those that take long go on beside their lane, the oldest first, as far as there is room."""
        for host, begun in self._begun.items():
            if (
                self._lanes[host][1] != _FAILED
                and now - begun >= SLOW
                and Counter(self._lanes.values())[_ASIDE] < SLOW_AT_ONCE
            ):
                self._lanes[host] = _ASIDE
