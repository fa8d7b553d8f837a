"""A bound on the memory that all searches of a process hold for large messages between their steps."""

from __future__ import annotations

import threading
from typing import Final


class MemoryBudget:
    """Octets that may be held; taken in threads of the store, given back anywhere."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._lock = threading.Lock()

    def take(self, octets: int) -> bool:
        """Take that much if there is room; the first taker always has it, however large."""
        with self._lock:
            if self.held and self.held + octets > self.most:
                return False
            self.held += octets
            return True

    def give_back(self, octets: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self.held -= octets


SEARCHED: Final = MemoryBudget(256 * 1024 * 1024)
"""Of messages that are searched."""
