"""A circuit breaker: after several lost calls in a row callers are refused at once, until one call has tried again.

After MAX_LOSSES the circuit is open. After a pause one call, the probe, is let through. Its answer closes the circuit; its
loss doubles the pause.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from mailserver.errors import AuthUnavailable

MAX_LOSSES: Final = 3
"""Lost calls in a row that open the circuit."""
FIRST_PAUSE: Final = 5.0
"""Seconds for which the circuit is open at first."""
MAX_PAUSE: Final = 60.0

_log = logging.getLogger(__name__)


class CircuitBreaker:
    """The circuit of one back end."""

    def __init__(self, name: str, clock: Callable[[], float], timeout: float) -> None:
        """`name`: of the back end. `clock`: monotonic seconds. `timeout`: of a call, for the log."""
        self._name = name
        self._clock = clock
        self._timeout = timeout
        self._losses = 0
        self._pause = FIRST_PAUSE
        self._open_until = 0.0
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Is the circuit open, or tried again by one call?"""
        return self._losses >= MAX_LOSSES

    def refuse_if_open(self) -> None:
        """Raises: AuthUnavailable, unless a call may be made now."""
        if self.is_open and (self._is_probing or self._clock() < self._open_until):
            raise AuthUnavailable

    def begin(self) -> bool:
        """Begin a call. Return whether it is the probe. Raises: AuthUnavailable."""
        self.refuse_if_open()
        self._is_probing = self._is_probing or self.is_open
        return self.is_open

    def end(self, *, is_probe: bool) -> None:
        """End a call, whatever has become of it."""
        if is_probe:
            self._is_probing = False

    def answered(self) -> None:
        """Close the circuit: a call was answered."""
        if self.is_open:
            _log.warning("back end %s answers again", self._name)
        self._losses = 0
        self._pause = FIRST_PAUSE

    def lost(self, *, is_probe: bool) -> None:
        """Count a lost call."""
        self._losses += 1
        if is_probe or self._losses == MAX_LOSSES:
            self._open_until = self._clock() + self._pause
            _log.error("back end %s does not answer: logins that need it are refused for %d s", self._name, self._pause)
            self._pause = min(self._pause * 2, MAX_PAUSE)
        elif self._losses < MAX_LOSSES:
            _log.warning("back end %s has not answered within %g s", self._name, self._timeout)
