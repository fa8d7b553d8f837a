"""A back end that harms other calls where the guard gives one up: each one here breaks one promise, and that line alone fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from typing import Any

import pytest
from zope.interface import implementer

from mailserver.auth.backends.circuit_breaker import MAX_LOSSES
from mailserver.auth.conformance import Finding, examine
from mailserver.auth.conformance_trial import NoAnswer
from mailserver.auth.interfaces import (
    Entry,
    IAddresses,
    IAuthBackend,
    IBlocking,
    IPasswordsOnly,
    User,
)
from mailserver.config.model import BackendUse
from mailserver.errors import AuthUnavailable
from mailserver.types import Secret
from tests.fakes import run_now

ANNA = "anna@example.test"
USE = BackendUse("remote:x", domains=("example.test",), cache=60.0)


class Pause:
    """A moment in which other calls go on."""

    def __await__(self) -> Generator[Any, Any, Any]:
        yield self


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now


async def within(call: Callable[[], Any]) -> Any:
    """The answer; after many pauses it does not come."""
    given = call()
    if not inspect.isawaitable(given):
        return given
    steps = given.__await__()
    for _ in range(10_000):
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value
    raise NoAnswer


@implementer(IAuthBackend, IAddresses)
class Remote:
    """Answers later, and keeps the contract."""

    def __init__(self) -> None:
        self.time = Time()

    def find_user(self, name: str) -> Any:
        return self._find(name)

    async def _find(self, name: str) -> User | None:
        await Pause()
        return User(name) if name == ANNA else None

    async def verify_password(self, user: User, password: Secret) -> bool:
        await Pause()
        return user.name == ANNA and password.reveal() == b"secret"

    async def find_address(self, name: str) -> Entry | None:
        await Pause()
        return Entry((ANNA,)) if name == ANNA else None

    async def find_domain(self, name: str) -> None:
        await Pause()


def findings(backend: Any, use: BackendUse = USE) -> list[Finding]:
    async def collect() -> list[Finding]:
        clock = backend.time.clock
        return [each async for each in examine(backend, ANNA, Secret(b"secret"), within, use=use, clock=clock)]

    return run_now(collect())


class Blocking(Remote):
    """Its library waits on the server's thread."""

    def find_user(self, name: str) -> Any:
        self.time.now += 0.2
        return self._find(name)


class SharedQuestion(Remote):
    """One variable for the question of all calls."""

    async def _find(self, name: str) -> User | None:
        self.name = name
        await Pause()
        return User(self.name) if self.name == ANNA else None


class OneCall(Remote):
    """Two calls at once wait for each other, for ever."""

    running = 0

    async def _find(self, name: str) -> User | None:
        self.running += 1
        await Pause()
        while self.running > 1:
            await Pause()
        self.running = 0
        return User(name) if name == ANNA else None


class SharedPassword(Remote):
    async def verify_password(self, user: User, password: Secret) -> bool:
        self.password = password
        await Pause()
        return user.name == ANNA and self.password.reveal() == b"secret"


class SharedAddress(Remote):
    async def find_address(self, name: str) -> Entry | None:
        self.address = name
        await Pause()
        return Entry((ANNA,)) if self.address == ANNA else None


class Call:
    """A call of `Remote._find` that can be cancelled, as a Deferred."""

    def __init__(self, coroutine: Any, cancelled: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._cancelled = cancelled

    def cancel(self) -> None:
        self._cancelled()
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


class KeptLock(Remote):
    """A call that is cancelled does not release its lock."""

    busy = False

    def find_user(self, name: str) -> Any:
        return Call(self._find(name), lambda: None)

    async def _find(self, name: str) -> User | None:
        while self.busy:
            await Pause()
        self.busy = True
        found = await super()._find(name)
        self.busy = False
        return found


class OldestAnswer(Remote):
    """The next answer of its server goes to whoever asks, as if it were to the oldest call."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[list[str]] = []

    def find_user(self, name: str) -> Any:
        mine = [name]
        self.pending.append(mine)

        def forget() -> None:
            self.pending = [each for each in self.pending if each is not mine]

        async def find() -> User | None:
            await Pause()
            [oldest] = self.pending[0]
            forget()
            return User(oldest) if oldest == ANNA else None

        return Call(find(), forget)


class LostConnections(Remote):
    """Each cancelled call costs a connection, and the last one costs a call."""

    lost = 0

    def find_user(self, name: str) -> Any:
        return Call(self._find(name), self._lose)

    def _lose(self) -> None:
        self.lost += 1

    async def _find(self, name: str) -> User | None:
        if self.lost >= 2 + MAX_LOSSES:
            self.lost = 0
            raise AuthUnavailable
        return await super()._find(name)


class Exits(Remote):
    async def _find(self, name: str) -> User | None:
        if "\0" in name:
            raise SystemExit(1)
        return await super()._find(name)


class BrokenByAnException(Remote):
    is_broken = False

    async def _find(self, name: str) -> User | None:
        if len(name) > 1000:
            self.is_broken = True
            raise ValueError("the name is too long")
        if self.is_broken and name == ANNA:
            self.is_broken = False
            return None
        return await super()._find(name)


class OncePasswords(Remote):
    """The password is right as often as the trial asks for it before."""

    left = 1 + USE.calls // 2

    async def verify_password(self, user: User, password: Secret) -> bool:
        right = await super().verify_password(user, password)
        self.left -= right
        return right and self.left >= 0


class AnyTestDomain(Remote):
    async def _find(self, name: str) -> User | None:
        await Pause()
        return User(name) if name.startswith("anna@") and name.endswith(".test") else None


def test_one_that_keeps_the_contract() -> None:
    found = findings(Remote())
    assert [each for each in found if each.fault] == []
    assert len([each for each in found if each.offered]) == 17


CASES = [
    (Blocking, "does not block the server", "blocks the server for 0.2 s"),
    (SharedQuestion, "as many calls at once", "of 16 calls at once 8 have the wrong answer"),
    (OneCall, "as many calls at once", "did not answer within 5 s"),
    (SharedPassword, "as many passwords at once", "of 16 passwords at once"),
    (SharedAddress, "as many addresses at once", "have the wrong answer"),
    (KeptLock, "given up at its time limit", "did not answer within 5 s"),
    (
        OldestAnswer,
        "comes too late",
        "while the answer to an earlier call is late the known user is not found: None",
    ),
    (LostConnections, "tried after lost ones", "AuthUnavailable"),
    (Exits, "concerns its own call alone", "raises SystemExit for '\\x00', which would end the server"),
    (BrokenByAnException, "concerns its own call alone", "after names that cannot be the known user is not found"),
    (
        OncePasswords,
        "a right password stays right",
        "answered False when it is asked again: with cache = 60 it passes",
    ),
    (AnyTestDomain, "no user in others", "the user is found in a domain that is not its own: anna@"),
]


@pytest.mark.parametrize(("broken", "promise", "fault"), CASES, ids=[each[0].__name__ for each in CASES])
def test_each_broken_one_fails_its_line_alone(broken: type[Remote], promise: str, fault: str) -> None:
    [found] = [each for each in findings(broken()) if each.fault]
    assert promise in found.promise
    assert fault in found.fault
    assert "secret" not in found.fault


def test_domains_without_that_of_the_user() -> None:
    [found] = [each for each in findings(Remote(), BackendUse("x", domains=("example.org",))) if each.fault]
    assert found.fault == "domains does not have example.test, so it is never asked for the known user"


def test_what_the_settings_do_not_have_is_not_tried() -> None:
    found = findings(OncePasswords(), BackendUse("x"))
    assert [each.promise for each in found if each.fault] == []
    assert not any(each.offered for each in found[-2:])


def test_one_that_says_that_it_blocks_may() -> None:
    @implementer(IBlocking)
    class Honest(Blocking): ...

    assert [each for each in findings(Honest()) if each.fault] == []


def test_one_that_lists_nobody_is_tried_with_passwords() -> None:
    @implementer(IPasswordsOnly)
    class Checker(SharedPassword):
        def find_user(self, name: str) -> None:
            return None

    [found] = [each for each in findings(Checker(), BackendUse("x")) if each.fault]
    assert "as many passwords at once" in found.promise


def test_the_trial_leaves_no_lines_of_a_guard(caplog: pytest.LogCaptureFixture) -> None:
    findings(Remote())
    assert caplog.messages == []
