"""Concurrency limits for ACME orders, so that hanging orders do not delay others. Pure: no clock, no network.

Orders are limited in groups, by the kind of challenge and by whether the host has failed before. A hanging program for TXT
records thus blocks neither http-01 orders nor hosts that are tried for the first time. A slow order that has not failed
before moves to the group of slow orders, and the next of its group starts. Each order is a process, so limits are low.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Final, TypeAlias

from mailserver.config.model import Acme
from mailserver.tls.acme.schedule import Attempts

Group: TypeAlias = tuple[str, str]

AT_ONCE: Final = 3
"""Maximum orders of each group."""
SLOW: Final = 30.0
"""Seconds after which an order is slow."""
SLOW_AT_ONCE: Final = 4
"""Maximum slow orders of all groups together."""
URGENT: Final[Group] = ("any", "urgent")
"""The group of orders that the administrator asks for."""
_FAILED: Final = "failed before"
_SLOW: Final[Group] = ("any", "slow")
MOST: Final = 12
"""Maximum orders in all: if all orders of one kind of challenge hang, orders of another kind still start."""


def challenge_of(acme: Acme, host: str) -> str:
    """Return the kind of challenge for a host; wildcards need dns-01."""
    return "dns-01" if host.startswith("*.") else acme.challenge


def group_of(acme: Acme, host: str, attempts: Attempts) -> Group:
    """Return the group of a host's next order."""
    return challenge_of(acme, host), _FAILED if attempts.failures else "new"


class OrderLimits:
    """The running orders by group. Times are of a monotonic clock."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._started: dict[str, float] = {}

    def may_start(self, group: Group) -> bool:
        """May another order of the group start?"""
        return Counter(self._groups.values())[group] < AT_ONCE and len(self._groups) < MOST

    def start(self, host: str, group: Group, now: float) -> None:
        """Count a host's order."""
        self._groups[host], self._started[host] = group, now

    def end(self, host: str) -> None:
        """Forget a host's order."""
        del self._groups[host], self._started[host]

    def until_slow(self, now: float) -> float:
        """Return the seconds until the next order becomes slow; infinity if none will."""
        return min((left for start in self._started.values() if (left := start + SLOW - now) > 0), default=math.inf)

    def move_slow(self, now: float) -> None:
        """Move slow orders to the slow group, the oldest first, up to its limit."""
        for host, start in self._started.items():
            if (
                self._groups[host][1] != _FAILED
                and now - start >= SLOW
                and Counter(self._groups.values())[_SLOW] < SLOW_AT_ONCE
            ):
                self._groups[host] = _SLOW
