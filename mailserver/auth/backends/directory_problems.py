"""The faults of a directory in the log: once each, and not with every login."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

FORGET_DAMAGE: Final = 60.0
"""Seconds after which damage that no question has met is logged again; others are answered meanwhile."""

_log = logging.getLogger(__name__)


class DirectoryProblems:
    """What keeps a directory from being read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.current = ""
        """The reason why no question is answered; empty while some are."""
        self._clock = clock
        self._damage = ""
        self._damage_met = 0.0
        """When a question last met that damage."""

    def log_outage(self, problem: str) -> None:
        """Log why no question is answered."""
        if problem != self.current:
            self.current = problem
            _log.error("%s; nobody can log in until it can be read", problem)

    def log_damage(self, damage: str) -> None:
        """Log damage at some rows, beside which others are read."""
        now = self._clock()
        if damage != self._damage or now - self._damage_met >= FORGET_DAMAGE:
            _log.error("%s; nobody whose rows are there can log in until it can be read", damage)
        self._damage, self._damage_met = damage, now

    def answered(self) -> None:
        """Note that a question was answered."""
        self.current = ""
