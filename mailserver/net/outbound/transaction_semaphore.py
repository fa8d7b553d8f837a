"""The number of transactions that run at once, over all destinations.

A permit bounds how many messages are sent once more after a crash. A hop that keeps a transaction waiting must not hold up the
others: after PATIENCE seconds the permit passes to the next in line, and the transaction needs one again before its final dot.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from twisted.internet.defer import Deferred

PATIENCE: Final = 2.0
"""Seconds that a permit is held before the end of the message: connecting included, so that many dead hosts cost others little."""


class TransactionSemaphore:
    """Permits, first come first served."""

    def __init__(self, clock: Any, limit: int, patience: float = PATIENCE) -> None:
        self.lent = 0
        """Permits that were passed on from transactions that took too long."""
        self._clock = clock
        self._free = limit
        self._patience = patience
        self._waiting: deque[Deferred[None]] = deque()

    @property
    def has_waiting(self) -> bool:
        """Does somebody wait for a permit?"""
        return bool(self._waiting)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def permit(self) -> Permit:
        """Return a permit that is not held yet."""
        return Permit(self, self._clock, self._patience)

    def enter(self) -> Deferred[None]:
        """Wait for a permit."""
        waiting: Deferred[None] = Deferred(self._leave_line)
        if self._free:
            self._free -= 1
            waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    def leave(self) -> None:
        """Pass a permit on."""
        if not self._waiting:
            self._free += 1
            return
        waiting = self._waiting.popleft()

        # In a turn of its own: what it runs may pass its permit on at once, and so on down the line.
        def pass_on() -> None:
            if waiting.called:
                self.leave()
            else:
                waiting.callback(None)

        self._clock.callLater(0, pass_on)

    def _leave_line(self, waiting: Deferred[None]) -> None:
        # One that is not in the line any more gets its permit in a moment, and passes it on.
        if waiting in self._waiting:
            self._waiting.remove(waiting)


class Permit:
    """The permit of one worker, held or not."""

    def __init__(self, semaphore: TransactionSemaphore, clock: Any, patience: float) -> None:
        self._semaphore = semaphore
        self._clock = clock
        self._patience = patience
        self._is_held = False
        self._timer: Any = None

    async def begin(self) -> None:
        """Wait until a transaction may begin. Those that wait already go first."""
        self._stop_timer()
        if self._is_held and self._semaphore.has_waiting:
            self.release()
        await self._hold()
        self._timer = self._clock.callLater(self._patience, self._lend)

    async def end_message(self) -> None:
        """Wait until the final dot may be sent; the permit is then held until the result is recorded."""
        self._stop_timer()
        await self._hold()

    def release(self) -> None:
        """Give it back. Harmless when repeated."""
        self._stop_timer()
        if self._is_held:
            self._is_held = False
            self._semaphore.leave()

    async def _hold(self) -> None:
        if not self._is_held:
            await self._semaphore.enter()
            self._is_held = True

    def _lend(self) -> None:
        self._timer = None
        self._semaphore.lent += 1
        self.release()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
