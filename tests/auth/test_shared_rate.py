"""Turns at a rate: who is next."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from mailserver.auth.throttling import shared_rate
from mailserver.auth.throttling.fair_semaphore import WaitTimedOut
from mailserver.auth.throttling.shared_rate import SharedRate


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.rate = SharedRate(0.5, self.clock.seconds, Deferred, self.clock.callLater)
        self.turns: list[str] = []

    def ask(self, share: str, longest: float = 60.0, key: str = "anna") -> Deferred[Any]:
        async def turn() -> None:
            await self.rate.wait_turn(key, share, longest)
            self.turns.append(share)

        return Deferred.fromCoroutine(turn())

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.25] * round(seconds / 0.25))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_turns_come_at_the_rate(bench: Bench) -> None:
    for number in range(10):
        bench.ask(str(number))
    assert len(bench.turns) == 1
    bench.pass_time(2)
    assert len(bench.turns) == 5
    bench.pass_time(60)
    assert len(bench.turns) == 10
    bench.ask("later")
    assert bench.turns[-1] == "later", "nothing is saved up, and nothing is owed"
    bench.ask("at once")
    assert bench.turns[-1] == "later"


def test_keys_have_rates_of_their_own(bench: Bench) -> None:
    bench.ask("a", key="anna")
    bench.ask("a", key="ben")
    assert bench.turns == ["a", "a"]


def test_who_comes_for_the_first_time_goes_ahead_of_all_who_come_again(bench: Bench) -> None:
    attackers = [str(number) for number in range(160)]
    for _ in range(2):
        for each in attackers:
            bench.ask(each)
    bench.pass_time(50)
    bench.turns.clear()
    bench.ask("person")
    bench.pass_time(0.5)
    assert bench.turns == ["person"]


def test_a_burst_of_first_tries_keeps_nobody_waiting_who_comes_behind_it(bench: Bench) -> None:
    for number in range(160):
        bench.ask(str(number))
    bench.ask("person")
    bench.pass_time(0.5)
    assert bench.turns == ["0", "person"]


def test_who_hangs_up_and_comes_back_is_not_new(bench: Bench) -> None:
    bench.ask("first")
    for _ in range(20):
        for number in range(50):
            waiting = bench.ask(str(number))
            waiting.addErrback(lambda failure: failure.trap(CancelledError))
            waiting.cancel()
    for number in range(50):
        bench.ask(str(number))
    bench.ask("person")
    for number in range(50):
        bench.ask(str(number))
    bench.pass_time(0.5)
    assert bench.turns == ["first", "person"]


def test_nobody_waits_longer_than_it_says(bench: Bench) -> None:
    bench.ask("0")
    waiting = [bench.ask(str(number), 10.0) for number in range(1, 50)]
    refused: list[type] = []
    for each in waiting:
        each.addErrback(lambda failure: refused.append(failure.type))
    bench.pass_time(10.25)
    assert len(bench.turns) in (20, 21)
    assert refused == [WaitTimedOut] * (50 - len(bench.turns))
    assert bench.clock.getDelayedCalls() == [] or bench.pass_time(1) is None


def test_memory_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_rate, "MAX_KEYS", 3)
    monkeypatch.setattr(shared_rate, "MAX_SHARES", 3)
    bench.ask("a", key="waited for")
    bench.ask("b", key="waited for")
    for number in range(10):
        bench.ask("a", key=str(number))
    assert len(bench.rate) <= 4
    for number in range(10):
        bench.ask(str(number), key="waited for")
    assert len(bench.rate._keys["waited for"].requests) <= 3
    bench.pass_time(10)
    assert "b" in bench.turns
