"""A bound on the memory that all searches of a process hold for large messages between their steps."""

from __future__ import annotations

import threading
from typing import Final


class MemoryBudget:
    """A budget in octets; taken in the store's threads, given back on any."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._lock = threading.Lock()

    def take(self, octets: int) -> bool:
        """Take octets. False if they are not there; the first taker gets any number."""
        with self._lock:
            if self.held and self.held + octets > self.most:
                return False
            self.held += octets
            return True

    def give_back(self, octets: int) -> None:
        """Give octets back."""
        with self._lock:
            self.held -= octets


SEARCHED: Final = MemoryBudget(256 * 1024 * 1024)
"""For messages in the midst of a search."""
