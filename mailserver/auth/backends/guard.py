"""A guard around a back end: a timeout for each call, a concurrency limit, a circuit breaker, and threads if it blocks.

The problem. A directory on the network may stop answering. Without a guard every login would wait for it, with its turn
and its place, for as long as the client waits; and each login would ask it again.

The rules. A call without an answer within CALL_TIMEOUT is lost, and its caller gets AuthUnavailable. CONCURRENCY calls run at
once; others wait as long for a place, and clients take turns. (The configuration may give a back end other values of both.) Users at known networks have KNOWN_CONCURRENCY more
places, so that no flood of other clients delays them. After several lost calls in a row the circuit is open
(`circuit_breaker`): callers get AuthUnavailable at once, and now and then one call is tried. Time in
the hash pool is not the back end's: it stops the call's timeout and takes no place. An exception is logged and becomes
AuthUnavailable, but is not a loss: it may concern one user, and must not affect others. A back end that answers at
once is never delayed.

A call that blocks the thread cannot be interrupted. So a back end that blocks says so (`IBlocking`), and is called in threads
of its own: one for each call that may run at once. A call that never returns keeps its thread; if all are kept, calls are
lost while they wait for one, and the circuit opens. A back end that blocks the reactor's thread without saying so is logged.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from attrs import define, frozen

from mailserver.auth.asking import ANYBODY, KNOWN, NEW, Asking
from mailserver.auth.backends.blocked_calls import BlockedCalls
from mailserver.auth.backends.circuit_breaker import CircuitBreaker
from mailserver.auth.interfaces import (
    Hasher,
)
from mailserver.auth.throttling.fair_semaphore import FairSemaphore, WaitTimedOut
from mailserver.errors import AuthUnavailable
from mailserver.system.children import Timer, Waiting
from mailserver.types import Secret

CALL_TIMEOUT: Final = 5.0
"""Seconds that a call may take, and that it may wait for its place before."""
CONCURRENCY: Final = 16
"""Calls that run at once."""
KNOWN_CONCURRENCY: Final = 8
"""Additional calls, for users at known networks."""
UNGUARDED: Final = frozenset({"directory", "file", "virtual"})
"""Back ends that answer at once, from memory or a local file: their calls cannot be lost."""

_log = logging.getLogger(__name__)


class Threads(Protocol):
    """Threads for the calls of a back end that blocks."""

    def run(self, function: Callable[[], Any]) -> Any:
        """Run a function in a thread. Return a Deferred of its result; one that is cancelled before is not run."""


@frozen
class GuardSettings:
    """Limits of one back end."""

    timeout: float = CALL_TIMEOUT
    concurrency: int = CONCURRENCY


@frozen
class Scheduler:
    """Access to the reactor's clock, timers, threads and background tasks."""

    clock: Callable[[], float]
    """Monotonic seconds."""
    call_later: Callable[[float, Callable[[], None]], Timer]
    waiting: Callable[[], Waiting]
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    """Run a coroutine in the background."""
    threads: Callable[[int], Threads]
    """Make at most so many threads."""


@frozen
class _Outcome:
    answer: Any = None
    error: AuthUnavailable | None = None


@define(eq=False)
class _Call:
    """A running call."""

    waiting: Waiting
    is_probe: bool
    asking: Asking
    timer: Timer | None = None
    """The timeout; None while the hash pool works for the call, and after its end."""
    answer: Any = None
    """The awaitable that the back end returned."""
    hashing: int = 0
    has_place: bool = True
    ended: bool = False


class Guard:
    """The guard of one back end. All calls are made on one thread."""

    def __init__(self, name: str, scheduler: Scheduler, settings: GuardSettings = GuardSettings()) -> None:
        """`name`: of the back end, for the log."""
        self.name = name
        self._scheduler = scheduler
        self._settings = settings
        self._threads: Threads | None = None
        self._blocked = BlockedCalls(name, scheduler.clock)
        self._places: FairSemaphore[str] = FairSemaphore(settings.concurrency, scheduler.waiting, scheduler.call_later)
        self._known_places: FairSemaphore[str] = FairSemaphore(
            KNOWN_CONCURRENCY, scheduler.waiting, scheduler.call_later
        )
        self._breaker = CircuitBreaker(name, scheduler.clock, settings.timeout)
        self._calls: dict[int, _Call] = {}
        """Calls that verify a password, by the id of the Secret."""

    @property
    def is_open(self) -> bool:
        """Is the circuit open, or tried again by one call?"""
        return self._breaker.is_open

    def use_threads(self) -> None:
        """Make all calls in threads from now on."""
        self._threads = self._scheduler.threads(self._settings.concurrency + KNOWN_CONCURRENCY)

    async def ask(self, function: Callable[[], Any], password: Secret | None = None, asking: Asking = ANYBODY) -> Any:
        """Call the back end, which may return an awaitable. Return the answer. Raises: AuthUnavailable."""
        self._breaker.refuse_if_open()
        try:
            await self._places_of(asking).acquire("", asking.share, self._settings.timeout)
        except WaitTimedOut:
            raise AuthUnavailable from None
        call = self._begin(password, asking)
        try:
            given = self._blocked.call(function) if self._threads is None else self._threads.run(function)
        except BaseException as error:
            self._end(call, password)
            if isinstance(error, Exception):
                raise self._unavailable(error) from error
            raise
        if not inspect.isawaitable(given):
            self._end(call, password)
            self._breaker.answered()
            return given
        call.answer = given
        self._scheduler.spawn(self._wait_for(call, given, password))
        outcome: _Outcome = await call.waiting
        if outcome.error is not None:
            raise outcome.error
        return outcome.answer

    def ask_now(self, function: Callable[[], Any]) -> Any:
        """Call a method that answers at once. Raises: AuthUnavailable."""
        if self.is_open:
            raise AuthUnavailable
        try:
            return self._blocked.call(function)
        except Exception as error:
            raise self._unavailable(error) from error

    def asking_of(self, password: Secret) -> Asking:
        """Class and share of the call that verifies this Secret object."""
        call = self._calls.get(id(password))
        return ANYBODY if call is None else call.asking

    def pause(self, password: Secret) -> Callable[[], None]:
        """Stop the timeout of the call that verifies this Secret object. Return a function that starts it again."""
        call = self._calls.get(id(password))
        if call is None or call.ended:
            return lambda: None
        call.hashing += 1
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        self._give_place(call)

        def resume() -> None:
            call.hashing -= 1
            if not call.hashing and not call.ended:
                self._set_timer(call, password)

        return resume

    def _places_of(self, asking: Asking) -> FairSemaphore[str]:
        return self._known_places if asking.rank == KNOWN else self._places

    def _begin(self, password: Secret | None, asking: Asking) -> _Call:
        """Start a call that has its place. Raises: AuthUnavailable if the circuit was opened meanwhile."""
        try:
            is_probe = self._breaker.begin()
        except AuthUnavailable:
            self._places_of(asking).release("")
            raise
        call = _Call(self._scheduler.waiting(), is_probe=is_probe, asking=asking)
        if password is not None:
            self._calls[id(password)] = call
        self._set_timer(call, password)
        return call

    def _set_timer(self, call: _Call, password: Secret | None) -> None:
        call.timer = self._scheduler.call_later(self._settings.timeout, lambda: self._lose(call, password))

    async def _wait_for(self, call: _Call, given: Any, password: Secret | None) -> None:
        try:
            answer = await given
            if self._threads is not None and inspect.isawaitable(answer):
                call.answer = answer = self._blocked.call(lambda: answer)
                answer = await answer
            outcome = _Outcome(answer)
        except GeneratorExit:
            raise  # this coroutine is being closed
        except BaseException as error:  # of asyncio, CancelledError is no Exception
            if call.ended:
                return
            outcome = _Outcome(error=self._unavailable(error))
        if call.ended:
            # Too late for the caller. The next call shows whether the back end answers in time again.
            return
        self._end(call, password)
        self._breaker.answered()
        call.waiting.callback(outcome)

    def _lose(self, call: _Call, password: Secret | None) -> None:
        """End a call at its timeout."""
        call.timer = None
        self._end(call, password)
        self._breaker.lost(is_probe=call.is_probe)
        call.waiting.callback(_Outcome(error=AuthUnavailable()))
        cancel = getattr(call.answer, "cancel", None)
        if cancel is not None:
            cancel()

    def _end(self, call: _Call, password: Secret | None) -> None:
        call.ended = True
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        self._breaker.end(is_probe=call.is_probe)
        if password is not None and self._calls.get(id(password)) is call:
            del self._calls[id(password)]
        self._give_place(call)

    def _give_place(self, call: _Call) -> None:
        if call.has_place:
            call.has_place = False
            self._places_of(call.asking).release("")

    def _unavailable(self, error: BaseException) -> AuthUnavailable:
        if isinstance(error, AuthUnavailable):
            return error
        _log.error("back end %s raised an exception", self.name, exc_info=error)
        return AuthUnavailable()


@frozen
class GuardedHasher:
    """The hash pool for one guarded back end: the time of a hash does not count as the back end's."""

    hasher: Hasher
    guard: Guard

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        """See Hasher. Class and share are those of the call to the back end."""
        del share, rank
        asking = self.guard.asking_of(password)
        resume = self.guard.pause(password)
        try:
            return await self.hasher.verify(stored, password, asking.share, asking.rank)
        finally:
            resume()
