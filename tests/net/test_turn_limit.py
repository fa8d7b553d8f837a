"""A session that computes without end is cut by name, and nobody else notices more than a wait."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailserver.net.connection.coroutines import Task, TurnOverrun, turn
from mailserver.net.connection.turn_limit import SIGNAL, TurnLimit, location_of


@pytest.fixture
def limit() -> Iterator[TurnLimit]:
    limit = TurnLimit(limit=0.2, interval=0.02)
    limit.start()
    yield limit
    limit.stop()
    assert signal.getsignal(SIGNAL) is signal.SIG_DFL


def run(coroutine: Any) -> list[Any]:
    ended: list[Any] = []
    Task(coroutine, ended.append, lambda: None, time.monotonic).start()
    return ended


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.usefixtures("limit")
def test_a_turn_without_end_is_cut_whatever_it_catches() -> None:
    cleaned: list[bool] = []

    async def endless() -> None:
        try:
            while True:
                try:
                    burn(10)
                except Exception:
                    continue
        finally:
            cleaned.append(True)

    [failure] = run(endless())
    assert failure.check(TurnOverrun)
    file, _, line = location_of(failure).rpartition(":")
    assert file.endswith("test_turn_limit.py"), "the place in the program is the one that computes"
    assert line.isdecimal()
    assert cleaned == [True]
    assert turn.task is None
    burn(0.5)  # no session's turn


@pytest.mark.usefixtures("limit")
def test_one_that_waits_now_and_then_is_none() -> None:
    waits: list[Deferred[None]] = []

    async def polite() -> None:
        # Twice the limit in all. One turn stays far below it, also while other programs want the processor.
        for _ in range(10):
            burn(0.04)
            waits.append(Deferred())
            await waits[-1]

    ended = run(polite())
    while not ended:
        waits[-1].callback(None)
    assert ended == [None]


@pytest.mark.usefixtures("limit")
def test_a_session_within_another_ones_turn_is_the_one_that_is_cut() -> None:
    inner: list[Any] = []

    async def endless() -> None:
        burn(10)

    async def outer() -> None:
        inner.extend(run(endless()))

    assert run(outer()) == [None]
    assert inner[0].check(TurnOverrun)


@pytest.mark.usefixtures("limit")
def test_a_signal_that_comes_late_cuts_nobody() -> None:
    async def short() -> None:
        signal.raise_signal(SIGNAL)

    assert run(short()) == [None]
    signal.raise_signal(SIGNAL)


@pytest.mark.parametrize("is_failing", [False, True])
def test_the_end_of_a_session_belongs_to_no_turn(is_failing: bool) -> None:
    seen: list[object] = []

    async def session() -> None:
        if is_failing:
            raise ValueError

    Task(session(), lambda _failure: seen.append(turn.task), lambda: None, time.monotonic).start()
    assert seen == [None]


def test_what_sessions_share_is_not_left_half_changed(limit: TurnLimit) -> None:
    steps: list[str] = []

    def interrupt() -> None:
        assert turn.task is not None
        limit._suspect = (turn.task, turn.task.began)
        signal.raise_signal(SIGNAL)

    async def session() -> None:
        firing: Deferred[None] = Deferred()
        firing.addCallback(lambda _none: interrupt())
        firing.addCallback(lambda _none: steps.append("all callbacks have run"))
        firing.callback(None)
        interrupt()
        steps.append("not cut")

    [failure] = run(session())
    assert failure.check(TurnOverrun)
    assert steps == ["all callbacks have run"]


@pytest.mark.usefixtures("limit")
def test_shared_code_that_computes_itself_is_cut_too() -> None:
    async def session() -> None:
        firing: Deferred[None] = Deferred()
        firing.addCallback(lambda _none: burn(10))
        firing.callback(None)
        await firing

    [failure] = run(session())
    assert failure.check(TurnOverrun)
