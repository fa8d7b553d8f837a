"""Calls of a back end on the reactor's thread, with a line in the log for those that block it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final

from attrs import frozen

MAX_BLOCKED: Final = 0.1
"""Seconds of the reactor's thread after which a call is logged."""
BLOCKED_LOG_PAUSE: Final = 60.0
"""Seconds between two such lines about one back end."""

_log = logging.getLogger(__name__)


class BlockedCalls:
    """The calls of one back end, each step of which is measured."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        """`name`: of the back end. `clock`: monotonic seconds."""
        self._name = name
        self._clock = clock
        self._logged_at = -BLOCKED_LOG_PAUSE
        self._blocked = 0
        """Calls that blocked the thread since the last line about them."""

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function. A coroutine that it returns is measured, too."""
        began = self._clock()
        try:
            given = function()
        finally:
            self._note(began)
        return _Measured(given, self._clock, self._note) if inspect.iscoroutine(given) else given

    def _note(self, began: float) -> None:
        """Log code of the back end that has kept the thread for too long."""
        now = self._clock()
        if now - began <= MAX_BLOCKED:
            return
        self._blocked += 1
        if now - self._logged_at < BLOCKED_LOG_PAUSE:
            return
        _log.warning(
            "back end %s has blocked the server for %.1f s (%d such calls since the last line): all clients waited; it must"
            " provide IBlocking, or answer by a Deferred",
            self._name,
            now - began,
            self._blocked,
        )
        self._logged_at, self._blocked = now, 0


@frozen
class _Measured:
    """A coroutine of a back end, each step of which is measured."""

    coroutine: Coroutine[Any, Any, Any]
    clock: Callable[[], float]
    note: Callable[[float], None]
    """Called after each step with the time at which it began."""

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        while True:
            began = self.clock()
            try:
                waiting = self.coroutine.send(value) if error is None else self.coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            finally:
                self.note(began)
            value = error = None
            try:
                value = yield waiting
            except GeneratorExit:
                self.coroutine.close()
                raise
            except BaseException as thrown:  # of asyncio, CancelledError is no Exception
                error = thrown
