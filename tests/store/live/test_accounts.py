"""Accounts that are opened, shared, kept and closed."""

from __future__ import annotations

import pytest

from mailserver.errors import StoreUnavailable
from mailserver.store.memory import MemoryAccount
from tests.store.live.world import USER, Task, World


def test_two_that_open_one_user_at_once_share_one_runner(world):
    first, second = Task(world.accounts.open(USER)), Task(world.accounts.open(USER))
    assert len(world.runners) == 1
    world.settle()
    assert first.result() is second.result()
    assert first.result().users == 2
    assert first.result().account is world.store.account(USER)


def test_an_account_that_is_open_costs_no_hop(world, account):
    ran = world.runners[0].ran
    assert Task(world.accounts.open(USER)).result() is account
    assert world.runners[0].ran == ran


def test_an_account_that_cannot_be_opened_leaves_nothing(world, monkeypatch):
    tries = []

    def fail(_user: str, _home: str | None) -> MemoryAccount:
        tries.append(1)
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "account", fail)
        first, second = Task(world.accounts.open(USER)), Task(world.accounts.open(USER))
        world.settle()
        for task in (first, second):
            with pytest.raises(StoreUnavailable):
                task.result()
        assert len(tries) == 2
        assert world.accounts.get(USER) is None
    assert world.account().users == 1


def test_an_account_that_one_cannot_open_and_the_next_can(world, monkeypatch):
    real, answers = world.store.account, [StoreUnavailable()]

    def once(user: str, home: str | None) -> MemoryAccount:
        if answers:
            raise answers.pop()
        return real(user, home)

    monkeypatch.setattr(world.store, "account", once)
    first, second = Task(world.accounts.open(USER)), Task(world.accounts.open(USER))
    world.settle()
    with pytest.raises(StoreUnavailable):
        first.result()
    assert second.result().users == 1
    assert world.accounts.get(USER) is second.result()


def test_an_account_that_was_moved_away_is_opened_anew():
    world = World()
    first = world.do(world.accounts.open(USER))
    assert world.do(world.accounts.open(USER)) is first
    first.account.is_there = False
    assert world.do(world.accounts.open(USER)) is first, "its sessions have it"
    for _ in range(3):
        world.accounts.release(first)
    second = world.do(world.accounts.open(USER))
    assert second is not first


def test_unused_accounts_are_closed_oldest_first(monkeypatch):
    world = World(max_unused_accounts=1)
    closed = []
    monkeypatch.setattr(MemoryAccount, "close", lambda self: closed.append(self.user))
    opened = [world.do(world.accounts.open(f"u{n}@example.test")) for n in range(3)]
    for live in opened[:2]:
        world.accounts.release(live)
        world.settle()
    assert closed == ["u0@example.test"]
    assert world.accounts.get("u0@example.test") is None
    assert world.accounts.get("u2@example.test") is opened[2]
    # It opens again, on a runner of its own.
    assert world.do(world.accounts.open("u0@example.test")) is not opened[0]
