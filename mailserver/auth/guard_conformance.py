"""Conformance of a back end with its guard: calls at once, calls that are given up, late answers, exceptions, cache, domains.

The guard (`backends.guard`) gives calls up at their time limit, and tries again later. That helps only if the back end
stands it: its other calls must not be harmed, nor get the answer of a call that nobody waits for any more.
"""

from __future__ import annotations

import inspect
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from functools import partial
from typing import Any, Final, NoReturn

from mailserver.auth.backends import circuit_breaker
from mailserver.auth.backends.blocked_calls import MAX_BLOCKED
from mailserver.auth.backends.circuit_breaker import MAX_LOSSES, MAX_PAUSE
from mailserver.auth.backends.guard import Guard, GuardSettings, Scheduler, Threads
from mailserver.auth.conformance_trial import Broken, NotOffered, Trial, demand
from mailserver.auth.interfaces import IAddresses, IBlocking, IHashedPasswords, IPasswordsOnly, User
from mailserver.auth.sources import Source
from mailserver.errors import AuthUnavailable
from mailserver.types import Secret

TRIES: Final = 3
"""Calls of which the fastest is taken, as a busy machine may slow down one of them."""
ODD_NAMES: Final = ("\0", "\U0010ffff@example.test", "x" * 65_536, "a@b@c", "\r\n")
"""Names that a back end may answer by an exception."""


class _Begun:
    """A call that has begun, and is awaited later or never."""

    def __init__(self, given: Any) -> None:
        """`given`: what the method has returned."""
        self._given = given
        self._result: Any = None
        self._error: BaseException | None = None
        self._waits_for: Any = None
        self._steps: Any = given.__await__() if inspect.isawaitable(given) else None
        if self._steps is None:
            self._result = given
        else:
            self._step(lambda: next(self._steps))

    def __await__(self) -> Generator[Any, Any, Any]:
        while self._steps is not None:
            try:
                value = yield self._waits_for
            except GeneratorExit:
                raise
            except BaseException as error:  # of asyncio, CancelledError is no Exception
                self._throw(error)
            else:
                self._send(value)
        if self._error is not None:
            raise self._error
        return self._result

    def give_up(self) -> None:
        """Do as the guard does at the time limit."""
        cancel = getattr(self._given, "cancel", None)
        if cancel is not None:
            ignore = getattr(self._given, "addErrback", None)
            if ignore is not None:
                ignore(lambda _failure: None)
            cancel()

    def _send(self, value: Any) -> None:
        send = getattr(self._steps, "send", None)
        self._step(lambda: next(self._steps) if send is None else send(value))

    def _throw(self, error: BaseException) -> None:
        throw = getattr(self._steps, "throw", None)
        self._step(lambda: _raise(error) if throw is None else throw(error))

    def _step(self, go_on: Callable[[], Any]) -> None:
        try:
            self._waits_for = go_on()
        except StopIteration as stop:
            self._steps, self._result = None, stop.value
        except Exception as error:
            self._steps, self._error = None, error


def _itself(begun: _Begun) -> _Begun:
    return begun


def _raise(error: BaseException) -> NoReturn:
    raise error


async def _all(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """Begin all calls, then wait for their answers."""
    begun = [_Begun(call()) for call in calls]
    return [await each for each in begun]


def _listing(trial: Trial) -> None:
    if IPasswordsOnly.providedBy(trial.backend):
        raise NotOffered


def _verifying(trial: Trial) -> None:
    if IHashedPasswords.providedBy(trial.backend):
        raise NotOffered


def _stranger(trial: Trial) -> str:
    return f"{secrets.token_hex(8)}{trial.name[trial.name.find('@') :] if '@' in trial.name else ''}"


def _is_found(user: Any, trial: Trial) -> bool:
    return isinstance(user, User) and user.name == trial.name


async def _still_finds(trial: Trial, after: str) -> None:
    found = await trial.ask(trial.backend.find_user, trial.name)
    demand(_is_found(found, trial), f"{after} the known user is not found: {found!r}")


async def _at_once(trial: Trial) -> None:
    _listing(trial)
    number = trial.use.calls
    names = [trial.name if each % 2 else _stranger(trial) for each in range(number)]
    found = await trial.within(lambda: _all([partial(trial.backend.find_user, each) for each in names]))
    right = [
        _is_found(user, trial) if name == trial.name else user is None for name, user in zip(names, found, strict=True)
    ]
    demand(all(right), f"of {number} calls at once {right.count(False)} have the wrong answer")


async def _verifies_at_once(trial: Trial) -> None:
    _verifying(trial)
    user = User(trial.name)
    if not IPasswordsOnly.providedBy(trial.backend):
        user = await trial.ask(trial.backend.find_user, trial.name) or user
    right = trial.password
    given = [right if each % 2 else Secret(right.reveal() + b"%d" % each) for each in range(trial.use.calls)]
    verify = trial.backend.verify_password
    found = await trial.within(lambda: _all([partial(verify, user, each) for each in given]))
    wrong = [answer for password, answer in zip(given, found, strict=True) if answer is not (password is right)]
    demand(not wrong, f"of {len(given)} passwords at once {len(wrong)} have the wrong answer")


async def _addresses_at_once(trial: Trial) -> None:
    trial.demand_offer(IAddresses)
    ask = trial.backend.find_address
    names = [trial.name, _stranger(trial)] * (trial.use.calls // 2 + 1)
    alone = {name: await trial.ask(ask, name) for name in names[:2]}
    found = await trial.within(lambda: _all([partial(ask, each) for each in names]))
    right = [entry == alone[name] for name, entry in zip(names, found, strict=True)]
    demand(all(right), f"of {len(names)} calls at once {right.count(False)} have the wrong answer")


async def _begin(trial: Trial, name: str) -> _Begun:
    """Begin to look a user up. Raises: NoAnswer if the call blocks for too long."""
    begun: list[_Begun] = []
    await trial.within(lambda: begun.append(_Begun(trial.backend.find_user(name))))
    return begun[0]


async def _given_up(trial: Trial) -> None:
    _listing(trial)
    begun = await _begin(trial, trial.name)
    begun.give_up()
    await _still_finds(trial, "after a call that was given up")


async def _late(trial: Trial) -> None:
    _listing(trial)
    late = await _begin(trial, _stranger(trial))
    try:
        await _still_finds(trial, "while the answer to an earlier call is late")
    finally:
        late.give_up()


class _Wait:
    """A wait of the guard."""

    def __init__(self) -> None:
        self._result: Any = None
        self._done = False
        self.resume: Callable[[], None] = lambda: None

    def callback(self, result: Any) -> None:
        """End the wait."""
        self._result, self._done = result, True
        self.resume()

    def __await__(self) -> Generator[Any, Any, Any]:
        while not self._done:
            yield self
        return self._result


class _Task:
    """A coroutine that waits for the guard's waits alone."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self.result: Any = None
        self.error: Exception | None = None
        self._step()

    def _step(self) -> None:
        try:
            waits_for = self._coroutine.send(None)
        except StopIteration as stop:
            self.result = stop.value
        except Exception as error:
            self.error = error
        else:
            waits_for.resume = self._step


def _start(coroutine: Coroutine[Any, Any, None]) -> None:
    _Task(coroutine)


class _Timer:
    def __init__(self, time: _Time, at: float, call: Callable[[], None]) -> None:
        self._time = time
        self.at = at
        self.call = call

    def cancel(self) -> None:
        """Call it off."""
        self._time.timers.remove(self)


class _Time:
    """A clock that the trial moves: the guard's pauses take no time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[_Timer] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> _Timer:
        """Call something later."""
        self.timers.append(_Timer(self, self.now + seconds, call))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        """Move the clock on."""
        self.now += seconds
        for each in [timer for timer in self.timers if timer.at <= self.now]:
            if each in self.timers:
                self.timers.remove(each)
                each.call()


class _Lost:
    """The awaitable of a call whose answer the guard never sees."""

    def __init__(self, begun: _Begun) -> None:
        self.cancel = begun.give_up

    def __await__(self) -> Generator[Any, Any, Any]:
        while True:
            yield _Wait()


def _no_threads(_most: int) -> Threads:
    raise AssertionError("the trial calls the back end by itself")


async def _broken_circuit(trial: Trial) -> None:
    _listing(trial)
    log = logging.getLogger(circuit_breaker.__name__)
    before, log.disabled = log.disabled, True  # its lines are about a server
    try:
        await _lose_and_try_again(trial)
    finally:
        log.disabled = before


async def _lose_and_try_again(trial: Trial) -> None:
    time, calls, find = _Time(), 0, trial.backend.find_user
    scheduler = Scheduler(lambda: time.now, time.call_later, _Wait, _start, _no_threads)
    guard = Guard("on trial", scheduler, GuardSettings(trial.use.time, trial.use.calls))

    def lose() -> Any:
        nonlocal calls
        calls += 1
        return _Lost(_Begun(find(trial.name)))

    lost = [_Task(guard.ask(lose)) for _ in range(MAX_LOSSES)]
    time.advance(trial.use.time)
    refused = _Task(guard.ask(lose))
    demand(
        guard.is_open
        and calls == MAX_LOSSES
        and all(isinstance(each.error, AuthUnavailable) for each in (*lost, refused)),
        "the guard does not leave it alone",
    )
    time.advance(MAX_PAUSE)
    found = await trial.ask(find, trial.name)
    tried = _Task(guard.ask(lambda: found))
    demand(_is_found(tried.result, trial), f"after {MAX_LOSSES} lost calls the known user is not found: {found!r}")
    demand(not guard.is_open, "the guard does not use it again")


async def _exceptions(trial: Trial) -> None:
    _listing(trial)
    for name in ODD_NAMES:
        try:
            await trial.ask(trial.backend.find_user, name)
        except (SystemExit, KeyboardInterrupt) as error:
            raise Broken(f"it raises {type(error).__name__} for {name[:20]!r}, which would end the server") from error
        except Exception:  # noqa: S112 - the guard makes it AuthUnavailable for this call
            continue
    await _still_finds(trial, "after names that cannot be")


async def _blocking(trial: Trial) -> None:
    if IBlocking.providedBy(trial.backend):
        raise NotOffered
    seconds = []
    for _ in range(TRIES):
        began = trial.clock()
        begun = await _begin(trial, trial.name)
        seconds.append(trial.clock() - began)
        await trial.within(partial(_itself, begun))
    demand(
        min(seconds) <= MAX_BLOCKED,
        f"it blocks the server for {min(seconds):.1f} s: it must provide IBlocking, or answer by an awaitable",
    )


async def _cache(trial: Trial) -> None:
    _verifying(trial)
    if not trial.use.cache:
        raise NotOffered
    user = User(trial.name)
    if not IPasswordsOnly.providedBy(trial.backend):
        user = await trial.ask(trial.backend.find_user, trial.name) or user
    for _ in range(TRIES):
        found = await trial.ask(trial.backend.verify_password, user, trial.password)
        demand(
            found is True,
            f"the right password is answered {found!r} when it is asked again: with cache = {trial.use.cache:g} it passes",
        )


async def _domains(trial: Trial) -> None:
    domains: Sequence[str] = trial.use.domains
    if not domains:
        raise NotOffered
    local, _at, domain = trial.name.partition("@")
    demand(
        Source(trial.backend, trial.use).serves([trial.name]),
        f"domains does not have {domain or 'a bare name'}, so it is never asked for the known user",
    )
    other = f"{local}@{secrets.token_hex(8)}.test"
    found = await trial.ask(trial.backend.find_user, other)
    demand(found is None, f"the user is found in a domain that is not its own: {other}")


GUARD_PROMISES: Final[tuple[tuple[str, Callable[[Trial], Awaitable[None]]], ...]] = (
    ("it does not block the server, or says that it does", _blocking),
    ("it answers as many calls at once as it has places", _at_once),
    ("it verifies as many passwords at once as it has places", _verifies_at_once),
    ("it looks up as many addresses at once as it has places", _addresses_at_once),
    ("a call that is given up at its time limit harms no other", _given_up),
    ("an answer that comes too late is not that to another call", _late),
    ("it answers the call that is tried after lost ones", _broken_circuit),
    ("an exception concerns its own call alone", _exceptions),
    ("a right password stays right, as `cache` supposes", _cache),
    ("it knows the domains that `domains` gives it, and no user in others", _domains),
)
