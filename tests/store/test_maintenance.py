"""Work that can wait: only in quiet accounts, a share of the time, and over at once when somebody comes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mailserver.store.live import LiveAccounts
from mailserver.store.maildir.account import text_index
from mailserver.store.maildir.account.index_report import report
from mailserver.store.maintenance import BURST, LASTING_SHARE, PATIENCE, QUIET, SHARE, Maintenance
from mailserver.store.query import Text
from tests.fakes import DirectRunner, run_now
from tests.store.disk import USER, open_store, scratch
from tests.store.samples import message, put


class Clock:
    """Sleepers, and what they wait for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeper: Coroutine[Any, Any, None] | None = None
        self.slept: list[float] = []
        self.done = 0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await _Suspend()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        assert self.sleeper is None
        self.sleeper = coroutine
        self.wake()

    def wake(self) -> None:
        """The sleep is over."""
        assert self.sleeper is not None
        if self.slept:
            self.now += self.slept[-1]
        sleeper = self.sleeper
        try:
            sleeper.send(None)
        except StopIteration:
            self.sleeper = None
            self.done += 1
        except BaseException:
            self.sleeper = None
            raise


class _Suspend:
    def __await__(self) -> Any:
        yield


class Account:
    """What `Maintenance` sees of a `LiveAccount`."""

    def __init__(self, *answers: tuple[float | None, float]) -> None:
        self.answers = list(answers)
        self.users = 1
        self.operations = 0
        self.opened = True
        self.slices = 0
        self.during: Callable[[], None] = lambda: None
        self.stopped: list[bool] = []

    async def maintain(self, stop: Callable[[], bool]) -> tuple[float | None, float]:
        self.slices += 1
        self.during()
        self.stopped.append(stop())
        return self.answers.pop(0) if self.answers else (None, 0.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def upkeep(clock: Clock) -> Maintenance:
    return Maintenance(clock.sleep, clock.spawn, lambda: clock.now)


def test_a_used_account_is_looked_after_once_it_is_quiet(clock: Clock, upkeep: Maintenance) -> None:
    account: Any = Account()
    account.operations = 1
    upkeep.wake(account)
    upkeep.wake(account)
    clock.wake()
    assert account.slices == 0, "it has just been used"
    account.operations = 2
    clock.wake()
    assert account.slices == 0
    clock.wake()
    assert account.slices == 1
    assert clock.slept == [QUIET] * 3
    assert clock.done == 1, "nothing goes on for nothing"
    upkeep.wake(account)
    assert clock.sleeper is not None


def test_after_each_slice_comes_a_pause(clock: Clock, upkeep: Maintenance) -> None:
    account: Any = Account((0.0, 0.02), (0.0, 0.0), (0.0, 0.08))
    upkeep.wake(account)
    clock.wake()
    for _ in range(4):
        clock.wake()
    assert account.slices == 4
    assert clock.slept[2:] == pytest.approx([0.02 * (1 / SHARE - 1), 0.002, 0.08 * (1 / SHARE - 1)])
    assert clock.done == 1


def test_a_burst_of_work_is_followed_by_a_small_share_of_the_time(clock: Clock, upkeep: Maintenance) -> None:
    """As of two hundred accounts that have been searched: the server is at rest all the same."""
    slice_ = 0.03
    account: Any = Account(*[(0.0, slice_)] * 10_000)
    upkeep.wake(account)
    clock.wake()
    while upkeep.spent < BURST:
        clock.wake()
    assert clock.now < 1.5 * BURST / SHARE
    while clock.now < 2 * BURST / SHARE:
        clock.wake()
    assert upkeep.spent < BURST + clock.now * LASTING_SHARE + slice_
    assert upkeep.due == 1
    begun, spent = clock.now, upkeep.spent
    while clock.now < begun + 300:
        clock.wake()
    assert upkeep.spent - spent == pytest.approx(300 * LASTING_SHARE, rel=0.1)
    assert upkeep.spent == pytest.approx(account.slices * slice_)


def test_the_burst_comes_back(clock: Clock, upkeep: Maintenance) -> None:
    first: Any = Account((0.0, BURST))
    upkeep.wake(first)
    while clock.sleeper is not None:
        clock.wake()
    clock.now += BURST / LASTING_SHARE
    second: Any = Account((0.0, BURST / 2))
    upkeep.wake(second)
    while clock.sleeper is not None:
        clock.wake()
    assert max(clock.slept[-2:]) == pytest.approx(BURST / 2 * (1 / SHARE - 1))
    assert upkeep.due == 0


def test_whoever_comes_ends_it(clock: Clock, upkeep: Maintenance) -> None:
    account: Any = Account((0.0, 0.05), (0.0, 0.05))
    upkeep.wake(account)
    clock.wake()

    def use() -> None:
        account.operations += 1

    account.during = use
    clock.wake()
    assert account.stopped == [True]
    account.during = lambda: None
    clock.wake()
    assert account.slices == 1, "it waits until the account is quiet again"
    clock.wake()
    assert account.slices == 2


def test_an_account_that_is_never_quiet_is_looked_after_in_the_end(clock: Clock, upkeep: Maintenance) -> None:
    """Its mail would be read again for each search of a text, and the more the busier it is."""
    account: Any = Account((0.0, 0.01), (0.0, 0.01), (None, 0.0))
    upkeep.wake(account)

    def use() -> None:
        account.operations += 1

    account.during = use
    for _ in range(PATIENCE):
        use()
        clock.wake()
    assert account.slices == 0
    for slices in (1, 2, 3):
        use()
        clock.wake()
        assert account.slices == slices
    assert account.stopped == [True] * 3, "each lets those go first who wait"
    assert clock.now == pytest.approx(QUIET * (PATIENCE + 1) + 2 * 0.01 * (1 / SHARE - 1))
    assert clock.done == 1
    # What comes after that waits for quiet again.
    account.during = lambda: None
    upkeep.wake(account)
    for _ in range(PATIENCE):
        use()
        clock.wake()
    assert account.slices == 3
    clock.wake()
    assert account.slices == 4


def test_one_that_is_quiet_at_times_is_left_alone_while_it_is_busy(clock: Clock, upkeep: Maintenance) -> None:
    account: Any = Account((0.0, 0.01), (0.0, 0.01), (0.0, 0.01))
    upkeep.wake(account)

    def use() -> None:
        account.operations += 1

    account.during = use
    for slices in (1, 2):
        for _ in range(PATIENCE - 1):
            clock.wake()
            use()
        clock.wake()
        assert account.slices == slices - 1
        clock.wake()
        assert account.slices == slices, "it was quiet for once"


def test_without_a_session_nothing_goes_on(clock: Clock, upkeep: Maintenance) -> None:
    account: Any = Account()
    upkeep.wake(account)
    account.users = 0
    clock.wake()
    assert (account.slices, clock.done) == (0, 1)


def test_it_ends_with_the_service(clock: Clock, upkeep: Maintenance) -> None:
    account: Any = Account((0.0, 0.05))
    upkeep.wake(account)
    clock.wake()
    clock.wake()
    upkeep.stop()
    clock.wake()
    assert (account.slices, clock.done) == (1, 1)
    upkeep.wake(account)
    assert clock.sleeper is None


def test_accounts_take_turns_and_pauses(clock: Clock, upkeep: Maintenance) -> None:
    busy: Any = Account(*[(0.0, 0.03)] * 40)
    waits: Any = Account((5.0, 0.001), (None, 0.0))
    upkeep.wake(busy)
    upkeep.wake(waits)
    while waits.slices == 0:
        clock.wake()
    assert 5 < busy.slices < 20
    begun = clock.now
    while waits.slices == 1:
        clock.wake()
    assert clock.now - begun >= 5
    while clock.sleeper is not None:
        clock.wake()
    assert (busy.slices, waits.slices) == (41, 2)


def test_a_failure_ends_the_work_on_that_account_alone(clock: Clock, upkeep: Maintenance) -> None:
    account: Any = Account()
    other: Any = Account()

    def fail() -> None:
        raise ZeroDivisionError

    account.during = fail
    upkeep.wake(account)
    upkeep.wake(other)
    clock.wake()
    with pytest.raises(ZeroDivisionError):
        clock.wake()
    upkeep.wake(other)
    while clock.sleeper is not None:
        clock.wake()
    assert (account.slices, other.slices) == (1, 1)


def test_a_searched_account_is_indexed(clock: Clock, upkeep: Maintenance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_index, "WORTH", 30)
    with scratch() as root:
        accounts = LiveAccounts(open_store(root), DirectRunner, wake=upkeep.wake)
        account = run_now(accounts.open(USER))
        for number in range(30):
            put(account.account, data=message(body=f"needle {number}"))
        live = run_now(account.select("INBOX"))
        assert clock.sleeper is None, "there is no index"
        assert list(run_now(live.run(lambda mailbox: mailbox.search(Text("needle 7"), list(range(1, 31)))))) == [8]
        run_now(live.run(lambda _mailbox: None))
        while clock.sleeper is not None:
            clock.wake()
        assert [mailbox.indexed for mailbox in report(account.account.root).mailboxes] == [30]
        put(account.account, data=message(body="needle late"))
        run_now(live.refresh())
        while clock.sleeper is not None:
            clock.wake()
        assert [mailbox.indexed for mailbox in report(account.account.root).mailboxes] == [31]
        run_now(next(iter(accounts.close())))
