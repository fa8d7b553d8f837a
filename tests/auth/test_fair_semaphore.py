"""The fair semaphore, without a reactor."""

from __future__ import annotations

import pytest

from mailserver.auth.throttling.fair_semaphore import FairSemaphore, WaitTimedOut
from tests.auth.waiting import Task, Timers, Waiting


class Bench:
    def __init__(self, places: int = 1) -> None:
        self.timers = Timers()
        self.semaphore: FairSemaphore[str] = FairSemaphore(places, Waiting, self.timers.call_later)

    def enter(self, share: str = "a", purpose: bytes = b"", longest: float = 60.0) -> Task:
        return Task(self.semaphore.acquire("key", share, longest, purpose))

    def leave(self) -> None:
        self.semaphore.release("key")
        self.timers.advance(0)


def states(*tasks: Task) -> str:
    """J joined, P has a place, - waits."""
    return "".join("-" if not task.done else "J" if task.outcome() else "P" for task in tasks)


def test_places_are_bounded_and_the_first_that_waits_comes_next() -> None:
    bench = Bench(places=2)
    tasks = [bench.enter() for _ in range(4)]
    assert states(*tasks) == "PP--"
    bench.leave()
    assert states(*tasks) == "PPP-"
    for _ in range(3):
        bench.leave()
    assert states(*tasks) == "PPPP"
    assert len(bench.semaphore) == 0


def test_keys_have_lines_of_their_own() -> None:
    bench = Bench()
    bench.enter()
    assert Task(bench.semaphore.acquire("other", "a", 60.0)).done


def test_shares_take_turns() -> None:
    bench = Bench()
    bench.enter()
    flood = [bench.enter("a") for _ in range(3)]
    one = bench.enter("b")
    bench.leave()
    bench.leave()
    assert states(*flood, one) == "P--P"


def test_only_an_open_line_is_joined_and_only_for_its_purpose() -> None:
    bench = Bench()
    first = bench.enter(purpose=b"x")
    before, other = bench.enter(purpose=b"x"), bench.enter(purpose=b"y")
    assert states(first, before, other) == "P--"
    bench.semaphore.allow_joining("key")
    bench.timers.advance(0)
    assert states(first, before, other) == "PJ-"
    assert not bench.enter(purpose=b"x").done, "nobody joins past who waits"
    bench.leave()
    assert states(other) == "-", "the place is free when all that joined have left"
    bench.leave()
    assert states(other) == "P"


def test_who_comes_to_an_open_line_without_waiters_joins() -> None:
    bench = Bench()
    bench.enter(purpose=b"x")
    bench.semaphore.allow_joining("key")
    assert states(*(bench.enter(purpose=b"x") for _ in range(3))) == "JJJ"


def test_a_place_given_back_later_is_taken_till_then() -> None:
    bench = Bench()
    bench.enter()
    waits = bench.enter()
    bench.semaphore.release("key", after=5.0)
    bench.timers.advance(4.9)
    assert states(waits) == "-"
    bench.timers.advance(0.2)
    assert states(waits) == "P"


def test_waiting_ends_after_its_time() -> None:
    bench = Bench()
    bench.enter()
    waits = bench.enter(longest=3.0)
    bench.timers.advance(3.1)
    with pytest.raises(WaitTimedOut):
        waits.outcome()
    bench.leave()
    assert len(bench.semaphore) == 0


def test_who_goes_while_it_waits_or_is_just_let_in_holds_nobody_up() -> None:
    bench = Bench()
    bench.enter()
    gone, let_in, last = bench.enter(), bench.enter(), bench.enter()
    gone.cancel()
    bench.semaphore.release("key")
    let_in.cancel()  # before it has heard
    bench.timers.advance(0)
    assert states(last) == "P"
    bench.leave()
    assert len(bench.semaphore) == 0
    assert bench.timers.pending == []
