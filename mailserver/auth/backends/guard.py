"""A guard around a back end: a timeout for each call, a concurrency limit, a circuit breaker, and threads if it blocks.

The problem. A directory on the network may stop answering. Without a guard every login would wait for it, with its turn
and its place, for as long as the client waits; and each login would ask it again.

The rules. A call without an answer within CALL_TIMEOUT is lost, and its caller gets AuthUnavailable. CONCURRENCY calls run at
once; others wait as long for a place, and clients take turns. (The configuration may give a back end other values of both.) Users at known networks have KNOWN_CONCURRENCY more
places, so that no flood of other clients delays them. After MAX_LOSSES lost calls in a row the circuit is open: callers
get AuthUnavailable at once. After a pause one call is tried. Its answer closes the circuit; its loss doubles the pause. Time in
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
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Protocol, cast

from attrs import define, frozen
from zope.interface import alsoProvides, providedBy

from mailserver.auth.credential_store import CredentialStore
from mailserver.auth.interfaces import (
    ANYBODY,
    KNOWN,
    NEW,
    Asking,
    ChangedUsers,
    DomainEntry,
    Entry,
    FoundAppPassword,
    Hasher,
    IBlocking,
    IReadsAhead,
    IReloadable,
    TypicalScram,
    User,
)
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
MAX_BLOCKED: Final = 0.1
"""Seconds of the reactor's thread after which a call is logged."""
BLOCKED_LOG_PAUSE: Final = 60.0
"""Seconds between two such lines about one back end."""
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
        self._blocked_log_at = -BLOCKED_LOG_PAUSE
        self._blocked_calls = 0
        """Calls that blocked the reactor's thread since the last line about them."""
        self._places: FairSemaphore[str] = FairSemaphore(settings.concurrency, scheduler.waiting, scheduler.call_later)
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

    def use_threads(self) -> None:
        """Make all calls in threads from now on."""
        self._threads = self._scheduler.threads(self._settings.concurrency + KNOWN_CONCURRENCY)

    async def ask(self, function: Callable[[], Any], password: Secret | None = None, asking: Asking = ANYBODY) -> Any:
        """Call the back end, which may return an awaitable. Return the answer. Raises: AuthUnavailable."""
        self._refuse_if_open()
        try:
            await self._places_of(asking).acquire("", asking.share, self._settings.timeout)
        except WaitTimedOut:
            raise AuthUnavailable from None
        call = self._begin(password, asking)
        try:
            given = self._call(function) if self._threads is None else self._threads.run(function)
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
            return self._call(function)
        except Exception as error:
            raise self._unavailable(error) from error

    def _call(self, function: Callable[[], Any]) -> Any:
        """Call a function on the reactor's thread. A coroutine that it returns is watched, too."""
        began = self._scheduler.clock()
        try:
            given = function()
        finally:
            self._note_blocked(began)
        return _Watched(given, self._scheduler.clock, self._note_blocked) if inspect.iscoroutine(given) else given

    def _note_blocked(self, began: float) -> None:
        """Log code of the back end that has kept the reactor's thread for too long."""
        now = self._scheduler.clock()
        if now - began <= MAX_BLOCKED:
            return
        self._blocked_calls += 1
        if now - self._blocked_log_at < BLOCKED_LOG_PAUSE:
            return
        _log.warning(
            "back end %s has blocked the server for %.1f s (%d such calls since the last line): all clients waited; it must"
            " provide IBlocking, or answer by a Deferred",
            self.name,
            now - began,
            self._blocked_calls,
        )
        self._blocked_log_at, self._blocked_calls = now, 0

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
        call.timer = self._scheduler.call_later(self._settings.timeout, lambda: self._lose(call, password))

    async def _wait_for(self, call: _Call, given: Any, password: Secret | None) -> None:
        try:
            answer = await given
            if self._threads is not None and inspect.isawaitable(answer):
                call.answer = answer = self._call(lambda: answer)
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
        self._answered()
        call.waiting.callback(outcome)

    def _lose(self, call: _Call, password: Secret | None) -> None:
        """End a call at its timeout."""
        call.timer = None
        self._end(call, password)
        self._losses += 1
        if call.is_probe or self._losses == MAX_LOSSES:
            self._closed_until = self._scheduler.clock() + self._pause
            _log.error("back end %s does not answer: logins that need it are refused for %d s", self.name, self._pause)
            self._pause = min(self._pause * 2, MAX_PAUSE)
        elif self._losses < MAX_LOSSES:
            _log.warning("back end %s has not answered within %g s", self.name, self._settings.timeout)
        call.waiting.callback(_Outcome(error=AuthUnavailable()))
        cancel = getattr(call.answer, "cancel", None)
        if cancel is not None:
            cancel()

    def _answered(self) -> None:
        if self.is_open:
            _log.warning("back end %s answers again", self.name)
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
        _log.error("back end %s raised an exception", self.name, exc_info=error)
        return AuthUnavailable()


@frozen
class _Watched:
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

    @classmethod
    def of(cls, backend: Any, guard: Guard) -> GuardedBackend:
        """A new back end with its guard, which calls it in threads if it blocks."""
        if IBlocking.providedBy(backend):
            guard.use_threads()
        return cls(backend, guard)

    @property
    def name(self) -> str:
        """The back end's name, without its argument."""
        return self._guard.name

    def with_asking(self, asking: Asking) -> GuardedBackend:
        """The same back end and guard, with the class and share of a login attempt."""
        return GuardedBackend(self._backend, self._guard, asking)

    def changed_users(self) -> ChangedUsers | None:
        """See IChanges. A back end that fails there has no changed users."""
        try:
            changed: ChangedUsers | None = self._backend.changed_users()
        except Exception:
            _log.exception("a back end raised an exception in changed_users()")
            return frozenset()
        return changed

    @property
    def unguarded(self) -> object:
        """The back end itself."""
        return self._backend

    def position(self) -> object:
        """See IRecordsChanges. Raises: AuthUnavailable."""
        return self._guard.ask_now(self._backend.position)

    def changed_since(self, position: object) -> ChangedUsers | None:
        """See IRecordsChanges. Raises: AuthUnavailable."""
        return cast("ChangedUsers | None", self._guard.ask_now(lambda: self._backend.changed_since(position)))

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

    @property
    def credentials(self) -> CredentialStore:
        """See IStoresCredentials. Its methods are called in a thread, without the guard."""
        return cast("CredentialStore", self._backend.credentials)

    def find_app_password(self, probe: str) -> FoundAppPassword | None:
        """See IAppPasswords. Raises: AuthUnavailable."""
        return cast("FoundAppPassword | None", self._guard.ask_now(lambda: self._backend.find_app_password(probe)))

    def app_password(self, credential: str, user: User) -> FoundAppPassword | None:
        """See IAppPasswords. Raises: AuthUnavailable."""
        return cast(
            "FoundAppPassword | None", self._guard.ask_now(lambda: self._backend.app_password(credential, user))
        )

    async def may_act_for(self, delegate: str, user: str, domain: str) -> bool:
        """See IDelegates."""
        return bool(await self._ask(lambda: self._backend.may_act_for(delegate, user, domain)))

    async def find_address(self, name: str) -> Entry | None:
        """See IAddresses."""
        return cast("Entry | None", await self._ask(lambda: self._backend.find_address(name)))

    async def find_owners(self, address: str) -> frozenset[str]:
        """See IOwnAddresses."""
        return cast("frozenset[str]", await self._ask(lambda: self._backend.find_owners(address)))

    async def find_domain(self, name: str) -> DomainEntry | None:
        """See IAddresses."""
        return cast("DomainEntry | None", await self._ask(lambda: self._backend.find_domain(name)))

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
