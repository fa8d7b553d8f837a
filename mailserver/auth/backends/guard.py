"""A guard around one back end: a call has a time limit, few run at once, and a lost back end is left alone for a while.

The problem. A directory on the network may stop answering. Every login would wait for it, holding its turn and its place,
for as long as the client waits; and each would ask it again.

The rules. A call that has no answer within CALL_TIME is lost, and its caller gets AuthUnavailable. CALLS run at once;
others wait for a place as long, clients in turns; users at networks known for them have KNOWN_CALLS besides, so that no flood of
strangers is in their way. After LOSSES in a row the back end is not asked for a while: AuthUnavailable at once. Then
one call is let through; its answer ends that, its loss doubles the while. Time in the pool that checks hashes is not the back
end's: it stops a call's clock and takes no place. An exception is logged and becomes AuthUnavailable, but is no loss: it may be
about one user, and must not refuse the others. A back end that answers at once is never slowed.

A back end that blocks the thread cannot be ended from outside: it should answer later, by a Deferred, from a thread of its own.
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

CALL_TIME: Final = 5.0
"""Seconds that a call may take, and that one may wait for its place before."""
CALLS: Final = 16
"""Calls that run at once."""
KNOWN_CALLS: Final = 8
"""Calls besides, for users at networks known for them."""
LOSSES: Final = 3
"""Lost calls in a row after which the back end is left alone."""
FIRST_REST: Final = 5.0
"""Seconds for which it is left alone at first."""
LONGEST_REST: Final = 60.0
UNGUARDED: Final = frozenset({"file"})
"""Back ends that answer from memory: nothing of theirs can be lost."""

_log = logging.getLogger(__name__)


@frozen
class Scheduler:
    """Ways to measure time, to wait and to go on in the background."""

    clock: Callable[[], float]
    """Monotonic seconds."""
    call_later: Callable[[float, Callable[[], None]], Timer]
    waiting: Callable[[], Waiting]
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    """Runs a coroutine to its end."""


@frozen
class _Outcome:
    answer: Any = None
    error: AuthUnavailable | None = None


@define(eq=False)
class _Call:
    """One call that runs."""

    waiting: Waiting
    is_probe: bool
    asking: Asking
    timer: Timer | None = None
    """None while hashes are checked for it, and at its end."""
    answer: Any = None
    """What is awaited."""
    hashing: int = 0
    has_place: bool = True
    ended: bool = False


class Guard:
    """Decides about the calls of one back end. All calls are made on one thread."""

    def __init__(self, name: str, scheduler: Scheduler) -> None:
        """`name` is for the log."""
        self._name = name
        self._scheduler = scheduler
        self._places: FairSemaphore[str] = FairSemaphore(CALLS, scheduler.waiting, scheduler.call_later)
        self._known_places: FairSemaphore[str] = FairSemaphore(KNOWN_CALLS, scheduler.waiting, scheduler.call_later)
        self._losses = 0
        self._rest = FIRST_REST
        self._closed_until = 0.0
        self._probing = False
        self._calls: dict[int, _Call] = {}
        """Those that verify a password, by the identity of its object."""

    @property
    def is_lost(self) -> bool:
        """Is the back end left alone, or tried again by one call?"""
        return self._losses >= LOSSES

    async def ask(self, function: Callable[[], Any], password: Secret | None = None, asking: Asking = ANYBODY) -> Any:
        """The answer of a call, which may be awaitable. Raises: AuthUnavailable."""
        self._refuse_if_lost()
        try:
            await self._places_of(asking).acquire("", asking.share, CALL_TIME)
        except WaitTimedOut:
            raise AuthUnavailable from None
        call = self._begin(password, asking)
        try:
            given = function()
        except Exception as error:
            self._end(call, password)
            raise self._unavailable(error) from error
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
        """The answer of a call that answers at once. Raises: AuthUnavailable."""
        if self.is_lost:
            raise AuthUnavailable
        try:
            return function()
        except Exception as error:
            raise self._unavailable(error) from error

    def asking_of(self, password: Secret) -> Asking:
        """Class and share of the call that verifies that very object."""
        call = self._calls.get(id(password))
        return ANYBODY if call is None else call.asking

    def pause(self, password: Secret) -> Callable[[], None]:
        """Stop the clock of the call that verifies that very object. Returns what sets it going again."""
        call = self._calls.get(id(password))
        if call is None or call.ended:
            return lambda: None
        call.hashing += 1
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        self._give_place(call)

        def go_on() -> None:
            call.hashing -= 1
            if not call.hashing and not call.ended:
                self._set_timer(call, password)

        return go_on

    def _refuse_if_lost(self) -> None:
        if self.is_lost and (self._probing or self._scheduler.clock() < self._closed_until):
            raise AuthUnavailable

    def _places_of(self, asking: Asking) -> FairSemaphore[str]:
        return self._known_places if asking.rank == KNOWN else self._places

    def _begin(self, password: Secret | None, asking: Asking) -> _Call:
        """A call that has its place. Raises: AuthUnavailable where the back end was lost meanwhile."""
        try:
            self._refuse_if_lost()
        except AuthUnavailable:
            self._places_of(asking).release("")
            raise
        self._probing = self._probing or self.is_lost
        call = _Call(self._scheduler.waiting(), is_probe=self.is_lost, asking=asking)
        if password is not None:
            self._calls[id(password)] = call
        self._set_timer(call, password)
        return call

    def _set_timer(self, call: _Call, password: Secret | None) -> None:
        call.timer = self._scheduler.call_later(CALL_TIME, lambda: self._lose(call, password))

    async def _wait_for(self, call: _Call, given: Any, password: Secret | None) -> None:
        try:
            outcome = _Outcome(await given)
        except Exception as error:
            if call.ended:
                return
            outcome = _Outcome(error=self._unavailable(error))
        if call.ended:
            # Too late for whoever asked; the next call finds out whether it answers in time again.
            return
        self._end(call, password)
        self._answered()
        call.waiting.callback(outcome)

    def _lose(self, call: _Call, password: Secret | None) -> None:
        """No answer in time."""
        call.timer = None
        self._end(call, password)
        self._losses += 1
        if call.is_probe or self._losses == LOSSES:
            self._closed_until = self._scheduler.clock() + self._rest
            _log.error("back end %s does not answer: logins that need it are refused for %d s", self._name, self._rest)
            self._rest = min(self._rest * 2, LONGEST_REST)
        elif self._losses < LOSSES:
            _log.warning("back end %s has not answered within %d s", self._name, CALL_TIME)
        call.waiting.callback(_Outcome(error=AuthUnavailable()))
        cancel = getattr(call.answer, "cancel", None)
        if cancel is not None:
            cancel()

    def _answered(self) -> None:
        if self.is_lost:
            _log.warning("back end %s answers again", self._name)
        self._losses = 0
        self._rest = FIRST_REST

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

    def _unavailable(self, error: Exception) -> AuthUnavailable:
        if isinstance(error, AuthUnavailable):
            return error
        _log.error("back end %s raised an exception", self._name, exc_info=error)
        return AuthUnavailable()


@frozen
class GuardedHasher:
    """The pool of hashes, for one back end: what a check takes is not the back end's time."""

    hasher: Hasher
    guard: Guard

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        """See Hasher. Whoever asks the back end asks the pool."""
        del share, rank
        asking = self.guard.asking_of(password)
        go_on = self.guard.pause(password)
        try:
            return await self.hasher.verify(stored, password, asking.share, asking.rank)
        finally:
            go_on()


class GuardedBackend:
    """A back end behind its guard. It provides what the back end does."""

    def __init__(self, backend: Any, guard: Guard, asking: Asking = ANYBODY) -> None:
        self._backend = backend
        self._guard = guard
        self._asking = asking
        alsoProvides(self, *providedBy(backend))

    def asked_by(self, asking: Asking) -> GuardedBackend:
        """The same back end behind the same guard, in the name of an attempt to log in."""
        return GuardedBackend(self._backend, self._guard, asking)

    async def find_user(self, name: str) -> User | None:
        """See IAuthBackend."""
        return cast("User | None", await self._ask(lambda: self._backend.find_user(name)))

    async def verify_password(self, user: User, password: Secret) -> bool:
        """See IAuthBackend."""
        return bool(await self._ask(lambda: self._backend.verify_password(user, password), password))

    def password_hash(self, user: User) -> str | None:
        """See IHashedPasswords; AuthUnavailable besides."""
        return cast("str | None", self._guard.ask_now(lambda: self._backend.password_hash(user)))

    def typical_hash(self) -> str | None:
        """See IHashedPasswords; AuthUnavailable besides."""
        return cast("str | None", self._guard.ask_now(self._backend.typical_hash))

    async def scram_keys(self, user: User, hash_name: str) -> ScramKeys | None:
        """See IScramKeys."""
        return cast("ScramKeys | None", await self._ask(lambda: self._backend.scram_keys(user, hash_name)))

    def typical_scram(self, hash_name: str) -> TypicalScram | None:
        """See IScramKeys; AuthUnavailable besides."""
        return cast("TypicalScram | None", self._guard.ask_now(lambda: self._backend.typical_scram(hash_name)))

    async def may_log_in(self, user: User) -> bool:
        """See ITrustsCertificates."""
        return bool(await self._ask(lambda: self._backend.may_log_in(user)))

    async def _ask(self, function: Callable[[], Any], password: Secret | None = None) -> Any:
        return await self._guard.ask(function, password, self._asking)

    def reload(self) -> None:
        """See IReloadable: what it raises is logged."""
        try:
            cast("IReloadable", self._backend).reload()
        except Exception:
            _log.exception("a back end that was told to read again raised an exception")

    def read_ahead(self) -> None:
        """See IReadsAhead: what it raises is logged."""
        try:
            cast("IReadsAhead", self._backend).read_ahead()
        except Exception:
            _log.exception("a back end that was told to read ahead raised an exception")
