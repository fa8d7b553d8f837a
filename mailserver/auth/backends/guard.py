"""A guard around a back end: a timeout for each call, a concurrency limit, and a circuit breaker.

The problem. A directory on the network may stop answering. Without a guard every login would wait for it, with its turn
and its place, for as long as the client waits; and each login would ask it again.

The rules. A call without an answer within CALL_TIMEOUT is lost, and its caller gets AuthUnavailable. CONCURRENCY calls run at
once; others wait as long for a place, and clients take turns. Users at known networks have KNOWN_CONCURRENCY more
places, so that no flood of other clients delays them. After MAX_LOSSES lost calls in a row the circuit is open: callers
get AuthUnavailable at once. After a pause one call is tried. Its answer closes the circuit; its loss doubles the pause. Time in
the hash pool is not the back end's: it stops the call's timeout and takes no place. An exception is logged and becomes
AuthUnavailable, but is not a loss: it may concern one user, and must not affect others. A back end that answers at
once is never delayed.

A back end that blocks the thread cannot be interrupted: it should answer by a Deferred, from a thread of its own.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

from attrs import define, frozen
from zope.interface import alsoProvides, providedBy

from mailserver.auth.interfaces import ANYBODY, KNOWN, NEW, Asking, Hasher, IReadsAhead, IReloadable, TypicalScram, User
from mailserver.auth.throttling.fair_semaphore import FairSemaphore, WaitTimedOut
from mailserver.errors import AuthUnavailable
from mailserver.sasl.scram_keys import ScramKeys
from mailserver.system.children import Timer, Waiting
from mailserver.types import Secret

CALL_TIMEOUT: Final = 5.0
"""Seconds that a call may take, and that it may wait for its place before."""
CONCURRENCY: Final = 16
"""Calls that run at once."""
KNOWN_CONCURRENCY: Final = 8
"""Additional calls, for users at known networks."""
MAX_LOSSES: Final = 3
"""Lost calls in a row that open the circuit."""
FIRST_PAUSE: Final = 5.0
"""Seconds for which the circuit is open at first."""
MAX_PAUSE: Final = 60.0
UNGUARDED: Final = frozenset({"file"})
"""Back ends that answer from memory: their calls cannot be lost."""

_log = logging.getLogger(__name__)


@frozen
class Scheduler:
    """Access to the reactor's clock, timers and background tasks."""

    clock: Callable[[], float]
    """Monotonic seconds."""
    call_later: Callable[[float, Callable[[], None]], Timer]
    waiting: Callable[[], Waiting]
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    """Run a coroutine in the background."""


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

    def __init__(self, name: str, scheduler: Scheduler) -> None:
        """`name`: of the back end, for the log."""
        self._name = name
        self._scheduler = scheduler
        self._places: FairSemaphore[str] = FairSemaphore(CONCURRENCY, scheduler.waiting, scheduler.call_later)
        self._known_places: FairSemaphore[str] = FairSemaphore(
            KNOWN_CONCURRENCY, scheduler.waiting, scheduler.call_later
        )
        self._losses = 0
        self._pause = FIRST_PAUSE
        self._closed_until = 0.0
        self._probing = False
        self._calls: dict[int, _Call] = {}
        """Calls that verify a password, by the id of the Secret."""

    @property
    def is_open(self) -> bool:
        """Is the circuit open, or tried again by one call?"""
        return self._losses >= MAX_LOSSES

    async def ask(self, function: Callable[[], Any], password: Secret | None = None, asking: Asking = ANYBODY) -> Any:
        """Call the back end, which may return an awaitable. Return the answer. Raises: AuthUnavailable."""
        self._refuse_if_open()
        try:
            await self._places_of(asking).acquire("", asking.share, CALL_TIMEOUT)
        except WaitTimedOut:
            raise AuthUnavailable from None
        call = self._begin(password, asking)
        try:
            given = function()
        except BaseException as error:
            self._end(call, password)
            if isinstance(error, Exception):
                raise self._unavailable(error) from error
            raise
        if not inspect.isawaitable(given):
            self._end(call, password)
            self._answered()
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
            return function()
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

    def _refuse_if_open(self) -> None:
        if self.is_open and (self._probing or self._scheduler.clock() < self._closed_until):
            raise AuthUnavailable

    def _places_of(self, asking: Asking) -> FairSemaphore[str]:
        return self._known_places if asking.rank == KNOWN else self._places

    def _begin(self, password: Secret | None, asking: Asking) -> _Call:
        """Start a call that has its place. Raises: AuthUnavailable if the circuit was opened meanwhile."""
        try:
            self._refuse_if_open()
        except AuthUnavailable:
            self._places_of(asking).release("")
            raise
        self._probing = self._probing or self.is_open
        call = _Call(self._scheduler.waiting(), is_probe=self.is_open, asking=asking)
        if password is not None:
            self._calls[id(password)] = call
        self._set_timer(call, password)
        return call

    def _set_timer(self, call: _Call, password: Secret | None) -> None:
        call.timer = self._scheduler.call_later(CALL_TIMEOUT, lambda: self._lose(call, password))

    async def _wait_for(self, call: _Call, given: Any, password: Secret | None) -> None:
        try:
            outcome = _Outcome(await given)
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
        self._answered()
        call.waiting.callback(outcome)

    def _lose(self, call: _Call, password: Secret | None) -> None:
        """End a call at its timeout."""
        call.timer = None
        self._end(call, password)
        self._losses += 1
        if call.is_probe or self._losses == MAX_LOSSES:
            self._closed_until = self._scheduler.clock() + self._pause
            _log.error("back end %s does not answer: logins that need it are refused for %d s", self._name, self._pause)
            self._pause = min(self._pause * 2, MAX_PAUSE)
        elif self._losses < MAX_LOSSES:
            _log.warning("back end %s has not answered within %d s", self._name, CALL_TIMEOUT)
        call.waiting.callback(_Outcome(error=AuthUnavailable()))
        cancel = getattr(call.answer, "cancel", None)
        if cancel is not None:
            cancel()

    def _answered(self) -> None:
        if self.is_open:
            _log.warning("back end %s answers again", self._name)
        self._losses = 0
        self._pause = FIRST_PAUSE

    def _end(self, call: _Call, password: Secret | None) -> None:
        call.ended = True
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        if call.is_probe:
            self._probing = False
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
        _log.error("back end %s raised an exception", self._name, exc_info=error)
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


class GuardedBackend:
    """A back end behind its guard. It provides the back end's interfaces."""

    def __init__(self, backend: Any, guard: Guard, asking: Asking = ANYBODY) -> None:
        self._backend = backend
        self._guard = guard
        self._asking = asking
        alsoProvides(self, *providedBy(backend))

    def with_asking(self, asking: Asking) -> GuardedBackend:
        """The same back end and guard, with the class and share of a login attempt."""
        return GuardedBackend(self._backend, self._guard, asking)

    async def find_user(self, name: str) -> User | None:
        """See IAuthBackend."""
        return cast("User | None", await self._ask(lambda: self._backend.find_user(name)))

    async def verify_password(self, user: User, password: Secret) -> bool:
        """See IAuthBackend."""
        return bool(await self._ask(lambda: self._backend.verify_password(user, password), password))

    def password_hash(self, user: User) -> str | None:
        """See IHashedPasswords. Raises: AuthUnavailable."""
        return cast("str | None", self._guard.ask_now(lambda: self._backend.password_hash(user)))

    def typical_hash(self) -> str | None:
        """See IHashedPasswords. Raises: AuthUnavailable."""
        return cast("str | None", self._guard.ask_now(self._backend.typical_hash))

    async def scram_keys(self, user: User, hash_name: str) -> ScramKeys | None:
        """See IScramKeys."""
        return cast("ScramKeys | None", await self._ask(lambda: self._backend.scram_keys(user, hash_name)))

    def typical_scram(self, hash_name: str) -> TypicalScram | None:
        """See IScramKeys. Raises: AuthUnavailable."""
        return cast("TypicalScram | None", self._guard.ask_now(lambda: self._backend.typical_scram(hash_name)))

    async def may_log_in(self, user: User) -> bool:
        """See ITrustsCertificates."""
        return bool(await self._ask(lambda: self._backend.may_log_in(user)))

    async def _ask(self, function: Callable[[], Any], password: Secret | None = None) -> Any:
        return await self._guard.ask(function, password, self._asking)

    def reload(self) -> None:
        """See IReloadable. Exceptions are logged."""
        try:
            cast("IReloadable", self._backend).reload()
        except Exception:
            _log.exception("a back end raised an exception in reload()")

    def read_ahead(self) -> None:
        """See IReadsAhead. Exceptions are logged."""
        try:
            cast("IReadsAhead", self._backend).read_ahead()
        except Exception:
            _log.exception("a back end raised an exception in read_ahead()")
