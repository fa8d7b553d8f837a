"""How much work a FETCH may do at once on the reactor's thread, where every other client of the worker waits for it.

The unit is an octet that is looked at field by field: about 0.1 microseconds of a processor. Each step says what it costs
before it begins.
"""

from __future__ import annotations

from typing import Final

AT_ONCE: Final = 64 * 1024
"""Octets times items: some milliseconds."""
EACH: Final = 32
"""What an item costs of which nothing is looked at."""
COPIED: Final = 16
"""Octets that are copied for the price of one that is looked at."""


class NotCached(Exception):
    """It cannot be answered from what is known."""


class BudgetExceeded(NotCached):
    """It can, by more work than may be done at once."""


class Budget:
    """Of one turn of the reactor's thread."""

    __slots__ = ("_left",)

    def __init__(self, octets: int = AT_ONCE) -> None:
        self._left = octets

    def has(self, octets: int) -> bool:
        """May so much be done?"""
        return octets <= self._left

    def spend(self, octets: int) -> None:
        """That is about to be done. Raises: BudgetExceeded."""
        self._left -= octets
        if self._left < 0:
            raise BudgetExceeded

    def copy(self, octets: int) -> None:
        """So many octets are about to be copied. Raises: BudgetExceeded."""
        self.spend(octets // COPIED)


class UnlimitedBudget(Budget):
    """Of a thread in which nobody else waits; time ends what it does."""

    __slots__ = ()

    def has(self, octets: int) -> bool:  # noqa: ARG002 - as in the parent
        """Anything goes."""
        return True

    def spend(self, octets: int) -> None:
        """Anything goes."""
