"""The guard around a back end: what a call that is never answered costs, and whom."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from typing import Any

import pytest
from zope.interface import implementer

from mailserver.auth.asking import GUESSING, KNOWN, NEW, Asking
from mailserver.auth.backends.blocked_calls import BLOCKED_LOG_PAUSE
from mailserver.auth.backends.circuit_breaker import FIRST_PAUSE, MAX_LOSSES, MAX_PAUSE
from mailserver.auth.backends.guard import (
    CALL_TIMEOUT,
    CONCURRENCY,
    KNOWN_CONCURRENCY,
    Guard,
    GuardedHasher,
    GuardSettings,
    Scheduler,
)
from mailserver.auth.backends.guarded_backend import GuardedBackend
from mailserver.auth.interfaces import IAuthBackend, IBlocking, IHashedPasswords, IPasswordsOnly, IReadsAhead, User
from mailserver.errors import AuthUnavailable
from mailserver.types import Secret
from tests.auth.waiting import Task, Timers, Waiting

PASSWORD = Secret(b"secret")
DEFAULTS = GuardSettings()


@implementer(IAuthBackend)
class Remote:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Waiting] = []
        self.at_once = False

    def find_user(self, name: str) -> Any:
        waiting = Waiting()
        self.asked.append(waiting)
        return User(name) if self.at_once else waiting

    def verify_password(self, user: User, password: Secret) -> Any:
        raise KeyError("a mistake")


class Pool:
    """Threads that run their calls when the test says so."""

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self.calls: list[tuple[Callable[[], Any], Waiting]] = []

    def run(self, function: Callable[[], Any]) -> Waiting:
        self.calls.append((function, Waiting()))
        return self.calls[-1][1]

    def work(self) -> None:
        function, waiting = self.calls.pop(0)
        waiting.callback(function())


class Site:
    def __init__(self, backend: Any = None, settings: GuardSettings = DEFAULTS) -> None:
        self.timers = Timers()
        self.pools: list[Pool] = []
        self.remote = backend or Remote()
        scheduler = Scheduler(self.timers.clock, self.timers.call_later, Waiting, Task, self._threads)
        self.guard = Guard("remote", scheduler, settings)
        self.backend = GuardedBackend.of(self.remote, self.guard)

    def _threads(self, most: int) -> Pool:
        self.pools.append(Pool(most))
        return self.pools[-1]

    def find(self) -> Task:
        task = Task(self.backend.find_user("anna"))
        self.timers.advance(0.0)
        return task

    def lose(self, number: int = MAX_LOSSES) -> None:
        tasks = [self.find() for _ in range(number)]
        self.timers.advance(CALL_TIMEOUT)
        assert all(map(unavailable, tasks))


def unavailable(task: Task) -> bool:
    with pytest.raises(AuthUnavailable):
        task.outcome()
    return True


def test_an_answer_passes_and_leaves_nothing() -> None:
    site = Site()
    task = site.find()
    site.remote.asked[0].callback(User("anna"))
    assert task.outcome() == User("anna")
    site.remote.at_once = True
    assert site.find().outcome() == User("anna")
    assert not site.timers.pending


def test_a_call_without_an_answer_ends_in_time() -> None:
    site = Site()
    task = site.find()
    site.timers.advance(CALL_TIMEOUT - 0.1)
    assert not task.done
    site.timers.advance(0.1)
    assert unavailable(task)
    site.remote.asked[0].callback(None)
    assert not site.guard.is_open, "one may happen"


def test_a_lost_back_end_is_left_alone_and_tried_by_one_call() -> None:
    site = Site()
    site.lose()
    assert site.guard.is_open
    asked = len(site.remote.asked)
    assert unavailable(site.find()), "at once"
    assert len(site.remote.asked) == asked
    site.timers.advance(FIRST_PAUSE)
    probe = site.find()
    assert unavailable(site.find()), "one at a time"
    assert len(site.remote.asked) == asked + 1
    site.remote.asked[-1].callback(User("anna"))
    assert probe.outcome() == User("anna")
    task = site.find()
    site.remote.asked[-1].callback(None)
    assert task.outcome() is None, "it is closed again"


def test_each_lost_try_doubles_the_while_up_to_a_minute() -> None:
    site = Site()
    site.lose()
    rest = FIRST_PAUSE
    for _ in range(6):
        site.timers.advance(rest - 0.1)
        assert unavailable(site.find())
        site.timers.advance(0.1)
        site.lose(1)
        rest = min(rest * 2, MAX_PAUSE)
    assert rest == MAX_PAUSE


def test_an_answer_between_ends_the_row() -> None:
    site = Site()
    for _ in range(3):
        site.lose(MAX_LOSSES - 1)
        task = site.find()
        site.remote.asked[-1].callback(None)
        assert task.outcome() is None
    assert not site.guard.is_open


def test_some_run_at_once_and_the_others_wait_for_a_place() -> None:
    site = Site()
    tasks = [site.find() for _ in range(CONCURRENCY + 2)]
    assert len(site.remote.asked) == CONCURRENCY
    site.remote.asked[0].callback(User("anna"))
    site.timers.advance(0.0)
    assert len(site.remote.asked) == CONCURRENCY + 1
    assert [task.done for task in tasks].count(True) == 1
    site.timers.advance(2 * CALL_TIMEOUT)
    assert all(task.done for task in tasks)
    assert len(site.remote.asked) == CONCURRENCY + 1, "who waited learns at once that it is lost"


def test_whoever_hangs_up_gives_no_call_back() -> None:
    site = Site()
    for _ in range(MAX_LOSSES):
        site.find().cancel()
    site.timers.advance(CALL_TIMEOUT)
    assert site.guard.is_open, "the calls went on, and had no answer"


def test_an_exception_is_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    for _ in range(2 * MAX_LOSSES):
        assert unavailable(Task(site.backend.verify_password(User("anna"), PASSWORD)))
    assert not site.guard.is_open, "it may be about one user"
    assert "KeyError" in caplog.text


@implementer(IAuthBackend)
class Leaving:
    """Raises what is no Exception."""

    def find_user(self, name: str) -> Any:
        raise SystemExit(name)

    async def verify_password(self, user: User, password: Secret) -> bool:
        raise CancelledError


def test_what_is_no_exception_is_no_loss_either() -> None:
    """A call that was never ended would keep its place until its timeout, and count as one without an answer."""
    site = Site(Leaving())
    for _ in range(MAX_LOSSES + CONCURRENCY):
        with pytest.raises(SystemExit):
            site.find()
        assert unavailable(Task(site.backend.verify_password(User("anna"), PASSWORD)))
    assert not site.timers.pending
    assert not site.guard.is_open


class Slow:
    """A pool in which checks take as long as the test likes."""

    def __init__(self) -> None:
        self.waiting: list[Waiting] = []

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = 1) -> bool:
        self.waiting.append(Waiting())
        return bool(await self.waiting[-1])


@implementer(IAuthBackend, IHashedPasswords)
class Hashing:
    hasher: Any = None

    def __init__(self) -> None:
        self.looking = Waiting()

    def find_user(self, name: str) -> User | None:
        return User(name)

    async def verify_password(self, user: User, password: Secret) -> bool:
        return bool(await self.hasher.verify("{SSHA}x", password)) and bool(await self.looking)

    def password_hash(self, user: User) -> str | None:
        raise ValueError

    def typical_hash(self) -> str | None:
        return "{SSHA}x"


def test_the_time_of_a_hash_is_not_the_back_ends() -> None:
    site, pool = Site(Hashing()), Slow()
    site.remote.hasher = GuardedHasher(pool, site.guard)
    tasks = [Task(site.backend.verify_password(User("anna"), Secret(b"secret"))) for _ in range(CONCURRENCY + 1)]
    assert len(pool.waiting) == CONCURRENCY + 1, "it takes no place either"
    site.timers.advance(10 * CALL_TIMEOUT)
    assert not any(task.done for task in tasks)
    pool.waiting[0].callback(True)
    site.timers.advance(CALL_TIMEOUT - 0.1)
    assert not tasks[0].done
    site.timers.advance(0.1)
    assert unavailable(tasks[0]), "its clock goes on behind the check"
    pool.waiting[1].callback(True)
    site.remote.looking.callback(True)
    assert tasks[1].outcome() is True


def test_it_provides_what_the_back_end_does_and_words_its_exceptions() -> None:
    site = Site(Hashing())
    assert IHashedPasswords.providedBy(site.backend)
    assert not IPasswordsOnly.providedBy(site.backend)
    assert site.backend.typical_hash() == "{SSHA}x"
    with pytest.raises(AuthUnavailable):
        site.backend.password_hash(User("anna"))


def test_a_flood_leaves_known_users_their_calls_and_clients_take_turns() -> None:
    site = Site()
    for number in range(3 * CONCURRENCY):
        Task(site.backend.with_asking(Asking(f"198.51.100.{number % 3}", GUESSING)).find_user(f"user{number}"))
    assert len(site.remote.asked) == CONCURRENCY
    known = Task(site.backend.with_asking(Asking("anna", KNOWN)).find_user("anna"))
    assert len(site.remote.asked) == CONCURRENCY + 1
    site.remote.asked[-1].callback(User("anna"))
    assert known.outcome() == User("anna")
    other = Task(site.backend.with_asking(Asking("203.0.113.1", NEW)).find_user("ben"))
    for waiting in site.remote.asked[:4]:
        waiting.callback(None)
    site.timers.advance(0.0)
    site.remote.asked[CONCURRENCY + 4].callback(User("ben"))
    assert other.outcome() == User("ben"), "after one of each client, not after all that wait"


def test_hashes_are_checked_in_the_class_of_whoever_asks_the_back_end() -> None:
    class Pool:
        def __init__(self) -> None:
            self.asked: list[tuple[str, int]] = []

        async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
            self.asked.append((share, rank))
            return True

    site = Site(Hashing())
    pool = Pool()
    site.remote.hasher = GuardedHasher(pool, site.guard)
    Task(site.backend.with_asking(Asking("anna", KNOWN)).verify_password(User("anna"), Secret(b"one")))
    Task(site.backend.verify_password(User("anna"), Secret(b"two")))
    assert pool.asked == [("anna", KNOWN), ("", NEW)]


def test_a_back_end_whose_reload_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    @implementer(IReadsAhead)
    class Failing(Remote):
        def reload(self) -> None:
            raise KeyError("a mistake")

        def read_ahead(self) -> None:
            raise OSError("gone")

    site = Site(Failing())
    site.backend.read_ahead()
    site.backend.reload()
    assert "KeyError" in caplog.text
    assert "gone" in caplog.text


def test_the_configuration_sets_time_and_places() -> None:
    site = Site(settings=GuardSettings(timeout=2.0, concurrency=1))
    first, second = site.find(), site.find()
    assert len(site.remote.asked) == 1
    site.timers.advance(1.9)
    assert not first.done
    site.timers.advance(0.1)
    assert unavailable(first)
    site.timers.advance(0.0)
    assert len(site.remote.asked) == 2, "it has the place now"
    site.timers.advance(2.0)
    assert unavailable(second)


@implementer(IAuthBackend, IBlocking)
class Blocking:
    """Blocks in find_user; verifies by a coroutine."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def find_user(self, name: str) -> Any:
        self.found.append(name)
        if name == "faulty":
            raise KeyError(name)
        return User(name)

    async def verify_password(self, user: User, password: Secret) -> bool:
        return password.reveal() == b"secret"


def test_a_back_end_that_blocks_is_called_in_threads() -> None:
    site = Site(Blocking())
    (pool,) = site.pools
    assert pool.most == CONCURRENCY + KNOWN_CONCURRENCY
    task = site.find()
    assert not site.remote.found, "not on this thread"
    pool.work()
    assert task.outcome() == User("anna")
    verified = Task(site.backend.verify_password(User("anna"), PASSWORD))
    pool.work()
    assert verified.outcome() is True, "an awaitable is awaited here"
    assert not site.timers.pending


def test_a_thread_that_hangs_is_a_lost_call() -> None:
    site = Site(Blocking())
    site.lose()
    assert site.guard.is_open
    (pool,) = site.pools
    site.timers.advance(FIRST_PAUSE)
    probe = site.find()
    for _ in range(MAX_LOSSES + 1):
        pool.work()
    assert probe.outcome() == User("anna")
    assert not site.guard.is_open


@implementer(IAuthBackend)
class Slowing(Remote):
    """Keeps the reactor's thread, in a call or in a step of a coroutine."""

    timers: Timers

    def find_user(self, name: str) -> Any:
        self.timers.now += 0.3
        return User(name)

    async def verify_password(self, user: User, password: Secret) -> bool:
        waiting = Waiting()
        self.asked.append(waiting)
        await waiting
        self.timers.now += 0.2
        return True


def test_a_back_end_that_blocks_the_server_is_logged_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(Slowing())
    site.remote.timers = site.timers
    for _ in range(5):
        assert site.find().outcome() == User("anna")
    assert caplog.text.count("back end remote has blocked the server for 0.3 s") == 1
    site.timers.now += BLOCKED_LOG_PAUSE
    verified = Task(site.backend.verify_password(User("anna"), PASSWORD))
    site.remote.asked[0].callback(None)
    assert verified.outcome() is True
    assert "blocked the server for 0.2 s (5 such calls since the last line)" in caplog.text


def test_a_quick_back_end_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.remote.at_once = True
    for _ in range(5):
        site.find()
    assert not caplog.text
