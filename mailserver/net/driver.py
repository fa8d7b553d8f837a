"""Runs a coroutine that waits on its own connection or on Deferreds, without a Deferred for each step.

A session's coroutine yields either a Deferred (a store operation, a login) or the object that will resume it later
by `Task.resume` (its connection). Only what really waits costs more than a generator's step.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class Task:
    """One coroutine being driven. `done(failure or None)` is called at its end, `pausing()` each time it waits."""

    __slots__ = ("_coroutine", "_done", "_pausing", "_running", "_waiting")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        done: Callable[[Failure | None], None],
        pausing: Callable[[], None],
    ) -> None:
        self._coroutine = coroutine
        self._done = done
        self._pausing = pausing
        self._waiting: object = None
        self._running = False

    def start(self) -> None:
        """Run to the first wait."""
        self._step(None)

    def resume(self, value: object) -> None:
        """Go on with what the awaited object has to say."""
        self._step(value)

    def _step(self, value: object) -> None:
        while True:
            self._running = True
            try:
                waiting = self._coroutine.send(value)
            except StopIteration:
                self._done(None)
                return
            except BaseException:
                self._done(Failure())
                return
            finally:
                self._running = False
            self._pausing()
            if not isinstance(waiting, Deferred):
                return
            value = None
            if not self._wait(waiting):
                return

    def _wait(self, deferred: Deferred[Any]) -> bool:
        """True if it had fired already; else the task goes on when it fires. A loop, so that depth never grows."""
        fired = False
        returned = False

        def take(result: object) -> object:
            nonlocal fired
            fired = True
            if not returned:
                return result  # the coroutine reads it from the Deferred itself
            self._step(None)
            return None

        deferred.addBoth(take)
        returned = True
        return fired
