"""The budget of a FETCH for work on the reactor's thread, where every other client of the worker waits for it.

The unit is an octet that is examined field by field: about 0.1 microseconds of a processor. Each step is charged before it
begins.
"""

from __future__ import annotations

from typing import Final

AT_ONCE: Final = 64 * 1024
"""Octets times items: some milliseconds."""
EACH: Final = 32
"""The cost of an item none of whose octets is examined."""
COPIED: Final = 16
"""Octets that are copied for the cost of one that is examined."""


class NotCached(Exception):
    """The answer needs data that is not cached."""


class BudgetExceeded(NotCached):
    """The answer needs more work than the budget allows."""


class Budget:
    """The budget of one turn of the reactor's thread."""

    __slots__ = ("_left",)

    def __init__(self, octets: int = AT_ONCE) -> None:
        self._left = octets

    def has(self, octets: int) -> bool:
        """Is so much left?"""
        return octets <= self._left

    def spend(self, octets: int) -> None:
        """Charge work that is about to be done. Raises: BudgetExceeded."""
        self._left -= octets
        if self._left < 0:
            raise BudgetExceeded

    def copy(self, octets: int) -> None:
        """Charge the copying of octets. Raises: BudgetExceeded."""
        self.spend(octets // COPIED)


class UnlimitedBudget(Budget):
    """The budget of an account's thread, whose work is limited by time instead."""

    __slots__ = ()

    def has(self, octets: int) -> bool:  # noqa: ARG002 - as in the parent
        """Accept any amount."""
        return True

    def spend(self, octets: int) -> None:
        """Accept any amount."""
