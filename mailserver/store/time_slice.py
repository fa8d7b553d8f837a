"""The bound of one read that could take long.

Callers make one for each turn of the account's thread, and read the rest in another turn. So other operations of the
account run in between, and the end of a session is noticed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SLICE: Final = 0.03
"""Seconds of a turn."""


class TimeSlice:
    """A bound of octets and of time, whichever is reached first."""

    __slots__ = ("_seconds", "_until", "full", "left")

    def __init__(
        self, octets: int, seconds: float = SLICE, clock: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        self.left = octets
        """Octets that are left."""
        self._seconds = clock
        self._until = clock() + seconds
        self.full = False
        """True once a bound is reached."""

    def take(self, octets: int) -> bool:
        """Count octets that have been read. True once a bound is reached."""
        self.left -= octets
        if self.left <= 0 or self._seconds() >= self._until:
            self.full = True
        return self.full
