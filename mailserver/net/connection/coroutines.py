"""Coroutines on the reactor: a session's waits on its connection or on Deferreds, without a Deferred for each step.

A session's coroutine yields either a Deferred (a store operation, a login) or the object that will resume it later
by `Task.resume` (its connection). Only a real wait costs more than a generator's step.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from mailserver.cancellation import Cancellation
from mailserver.errors import Cancelled
from mailserver.net.log.events import log

T = TypeVar("T")


def spawn(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in the background; an exception is a bug, and logged with its traceback."""
    Deferred.fromCoroutine(coroutine).addErrback(
        lambda failure: log.failure("background work has failed", failure, event="bug")
    )


def run_concurrently(works: Sequence[Coroutine[Any, Any, T]]) -> Deferred[list[T]]:
    """Run coroutines at the same time; their results, in their order."""
    return gatherResults([Deferred.fromCoroutine(each) for each in works])


def in_thread(reactor: Any, call: Callable[..., T], *arguments: Any) -> Deferred[T]:
    """Call a function in a thread of the reactor's pool."""
    return deferToThreadPool(reactor, reactor.getThreadPool(), call, *arguments)


class TurnOverrun(BaseException):
    """A session has kept the reactor's thread for too long (`turn_limit`).

    It is no Exception, as code that catches these would go on.
    """


class AbandonableDeferred(Deferred[T]):
    """A Deferred whose wait ends when the waiting session is cancelled: Cancelled is raised in its coroutine."""


def abandonable(waiting: Deferred[T]) -> AbandonableDeferred[T]:
    """Make a wait abandonable."""
    outer: AbandonableDeferred[T] = AbandonableDeferred(lambda _outer: waiting.cancel())
    waiting.addBoth(lambda result: None if outer.called else outer.callback(result))
    return outer


class Turn:
    """The task whose coroutine runs on the reactor's thread now."""

    __slots__ = ("task",)

    def __init__(self) -> None:
        self.task: Task | None = None


turn = Turn()


class Task:
    """A running coroutine. `done(failure or None)` is called at its end, `pausing()` each time it waits."""

    __slots__ = ("_coroutine", "_done", "_pausing", "_seconds", "_waits_for", "began", "cancellation")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        done: Callable[[Failure | None], None],
        pausing: Callable[[], None],
        seconds: Callable[[], float],
    ) -> None:
        """`seconds` is the reactor's clock."""
        self._coroutine = coroutine
        self._done = done
        self._pausing = pausing
        self._seconds = seconds
        self._waits_for: Deferred[Any] | None = None
        self.began = 0.0
        """When the coroutine was resumed last, by the reactor's clock."""
        self.cancellation = Cancellation()
        """Obeyed by the store operations that the coroutine waits for."""

    def start(self) -> None:
        """Run to the first wait."""
        self._step(None)

    def resume(self, value: object) -> None:
        """Continue with the result of the awaited object."""
        self._step(value)

    def cancel(self) -> None:
        """End early: store operations that it waits for, and an abandonable wait."""
        self.cancellation.request()
        if isinstance(self._waits_for, AbandonableDeferred):
            self._waits_for.cancel()

    def _step(self, value: object, error: BaseException | None = None) -> None:
        while True:
            self.began = self._seconds()
            before, turn.task = turn.task, self
            try:
                try:
                    waiting = self._coroutine.send(value) if error is None else self._coroutine.throw(error)
                finally:
                    # Before `done`: the turn limit must not cut the connection's own work at a session's end.
                    turn.task = before
            except StopIteration:
                self._done(None)
                return
            except BaseException:
                self._done(Failure())
                return
            self._pausing()
            # isinstance() would call the metaclass of Deferred, twice, for each other object.
            if Deferred not in type(waiting).__mro__ or not self._wait(cast("Deferred[Any]", waiting)):
                return
            value = error = None

    def _wait(self, deferred: Deferred[Any]) -> bool:
        """Wait for a Deferred; True if it has fired already. The caller loops, so that the stack never grows."""
        if deferred.called and not deferred.paused and not isinstance(deferred.result, Deferred):
            return True  # the coroutine takes the result by itself

        def take(result: object) -> None:
            self._waits_for = None
            # A Deferred that is calling back holds no failure: raise it in the coroutine, as Twisted does.
            if isinstance(result, Failure):
                abandoned = self.cancellation.requested and result.check(CancelledError)
                self._step(None, Cancelled() if abandoned else result.value)
            else:
                self._step(result)

        self._waits_for = deferred
        deferred.addBoth(take)
        return False


def start_task(coroutine: Coroutine[Any, Any, None], seconds: Callable[[], float]) -> Task:
    """Run a coroutine beside its session, under the limit of turns. An exception is a bug, and logged with its traceback."""
    task = Task(coroutine, _log_failure, lambda: None, seconds)
    task.start()
    return task


def _log_failure(failure: Failure | None) -> None:
    if failure is not None:
        log.failure("work beside a session has failed", failure, event="bug")


STEP: Final = Task._step.__code__  # noqa: SLF001 - of this module
"""Frames above it on the stack belong to the session's turn."""
