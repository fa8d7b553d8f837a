"""Indexes of accounts at rest are closed, and freed memory is returned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from mailserver.store.live import OpenIndexes
from mailserver.store.live.open_indexes import AT_ONCE, PAUSE, REST, TRIM_AFTER, TRIM_EVERY
from mailserver.store.memory import MemoryAccount
from mailserver.system.free_memory import return_free_memory
from tests.store.live.world import World


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trims() -> list[float]:
    return []


@pytest.fixture
def world(clock: Clock, trims: list[float]) -> World:
    return World(
        open_indexes=OpenIndexes(
            1000,
            call_later=clock.callLater,
            seconds=clock.seconds,
            trim=lambda: trims.append(clock.seconds()),
        )
    )


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(MemoryAccount, "close", lambda self: names.append(self.user.partition("@")[0]))
    return names


def open_accounts(world: World, count: int) -> list[Callable[[], None]]:
    """Open accounts with a session each; return what uses them."""
    accounts = [world.do(world.accounts.open(f"{number}@example.test")) for number in range(count)]
    return [lambda account=account: account.run(lambda: None) for account in accounts]  # type: ignore[misc]


def wait(world: World, clock: Clock, seconds: float) -> None:
    clock.advance(seconds)
    world.settle()


def test_an_account_at_rest_closes_its_index_and_then_nothing_is_left_to_do(
    world: World, clock: Clock, closed: list[str]
) -> None:
    first, _second = open_accounts(world, 2)
    wait(world, clock, REST / 2)
    first()
    wait(world, clock, REST / 2)
    assert closed == ["1"]
    assert world.accounts.usage().indexes == 1
    wait(world, clock, REST / 2)
    assert closed == ["1", "0"]
    assert world.accounts.usage().indexes == 0
    assert world.accounts.usage().accounts_in_use == 2
    assert clock.getDelayedCalls() == [], "an account at rest costs nothing"


def test_an_account_that_is_used_again_rests_again(world: World, clock: Clock, closed: list[str]) -> None:
    (use,) = open_accounts(world, 1)
    for times in range(1, 4):
        wait(world, clock, REST)
        assert closed == ["0"] * times
        use()
        world.settle()


def test_maintenance_counts_as_use(world: World, clock: Clock, closed: list[str]) -> None:
    account = world.do(world.accounts.open("0@example.test"))
    wait(world, clock, REST)
    assert closed == ["0"]
    account.maintain(lambda: False)
    wait(world, clock, REST)
    assert closed == ["0", "0"], "what maintenance has opened is closed"


def test_many_accounts_are_closed_a_few_at_a_time(world: World, clock: Clock, closed: list[str]) -> None:
    open_accounts(world, 2 * AT_ONCE + 1)
    wait(world, clock, REST)
    assert len(closed) == AT_ONCE
    wait(world, clock, PAUSE)
    assert len(closed) == 2 * AT_ONCE
    wait(world, clock, PAUSE)
    assert len(closed) == 2 * AT_ONCE + 1


def test_freed_memory_is_returned_after_the_last_and_not_too_often(
    world: World, clock: Clock, closed: list[str], trims: list[float]
) -> None:
    uses = open_accounts(world, TRIM_AFTER)
    for use in uses[:-1]:
        use()
    wait(world, clock, REST)
    assert trims == []
    wait(world, clock, PAUSE)
    assert trims == [REST + PAUSE]
    for use in uses:
        use()
    wait(world, clock, REST)
    assert len(closed) == 2 * TRIM_AFTER
    wait(world, clock, TRIM_EVERY - REST - PAUSE)
    assert len(trims) == 1
    wait(world, clock, 2 * PAUSE)
    assert len(trims) == 2
    assert clock.getDelayedCalls() == []


def test_few_closed_accounts_are_not_worth_it(world: World, clock: Clock, trims: list[float]) -> None:
    open_accounts(world, TRIM_AFTER - 1)
    wait(world, clock, REST)
    wait(world, clock, TRIM_EVERY)
    assert trims == []
    assert clock.getDelayedCalls() == []


def test_an_account_that_is_closed_for_good_does_not_rest(world: World, clock: Clock, closed: list[str]) -> None:
    account = world.do(world.accounts.open("0@example.test"))
    world.accounts.max_unused_accounts = 0
    world.accounts.release(account)
    world.settle()
    assert closed == ["0"]
    wait(world, clock, REST)
    assert closed == ["0"]


def test_the_system_can_be_asked() -> None:
    return_free_memory()


def test_no_sweep_and_no_return_of_memory_is_left_after_the_end_of_the_service(
    world: World, clock: Clock, trims: list[float]
) -> None:
    use, *_others = open_accounts(world, TRIM_AFTER + 1)
    world.accounts.close()
    world.settle()
    use()  # as of a session that ends late
    assert clock.getDelayedCalls() == []
    wait(world, clock, REST + TRIM_EVERY)
    assert trims == []
