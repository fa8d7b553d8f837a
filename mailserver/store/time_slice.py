"""How much is read in one call of a store that could go on for long.

Callers make one for a turn of the account's thread. What is read behind its end is left for another turn: so others of the
account come in between, and a client that has gone is noticed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SLICE: Final = 0.03
"""Seconds of a turn."""


class TimeSlice:
    """Until so many octets have been read, or so much time has passed."""

    __slots__ = ("_seconds", "_until", "full", "left")

    def __init__(
        self, octets: int, seconds: float = SLICE, clock: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        self.left = octets
        """Octets that there is room for."""
        self._seconds = clock
        self._until = clock() + seconds
        self.full = False
        """Is it time to end?"""

    def take(self, octets: int) -> bool:
        """So many more have been read; is it time to end?"""
        self.left -= octets
        if self.left <= 0 or self._seconds() >= self._until:
            self.full = True
        return self.full
