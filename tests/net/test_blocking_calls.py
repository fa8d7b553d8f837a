"""The threads of back ends that block."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads

from mailserver.net.connection.blocking_calls import BlockingThreads

HANG = 20.0
"""Seconds after which a test has failed."""


class Reactor:
    """Calls of threads, made when the test takes them."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., None], *arguments: Any) -> None:
        self.calls.put(lambda: function(*arguments))

    def turn(self) -> None:
        self.calls.get(timeout=HANG)()


def made() -> tuple[Reactor, BlockingThreads]:
    reactor = Reactor()
    return reactor, BlockingThreads(cast("IReactorFromThreads", reactor))


def test_a_call_runs_in_a_thread_and_its_result_or_exception_comes_back() -> None:
    reactor, threads = made()
    calls = threads.make(2)
    answers: list[Any] = []
    calls.run(threading.current_thread).addCallback(answers.append)
    reactor.turn()
    assert answers[0] is not threading.current_thread()
    failed: Deferred[Any] = calls.run(lambda: {}["name"])
    reactor.turn()
    failed.addErrback(lambda failure: answers.append(failure.check(KeyError)))
    assert answers[1] is KeyError
    threads.stop(HANG)
    assert not any(each.name.startswith("back-end") for each in threading.enumerate())


def test_a_call_that_waits_for_a_thread_and_is_cancelled_is_not_run() -> None:
    reactor, threads = made()
    calls = threads.make(1)
    hang = threading.Event()
    ran: list[str] = []
    first = calls.run(hang.wait)
    second = calls.run(lambda: ran.append("second"))
    third = calls.run(lambda: ran.append("third"))
    for each in (first, second):
        each.addErrback(lambda failure: failure.trap(CancelledError))
        each.cancel()
    hang.set()
    for _ in range(3):
        reactor.turn()
    assert ran == ["third"]
    assert third.called
    threads.stop(HANG)


def test_a_call_that_never_ends_holds_up_no_stop() -> None:
    _reactor, threads = made()
    hang = threading.Event()
    threads.make(1).run(hang.wait)
    threads.stop(0.0)
    assert [each.daemon for each in threading.enumerate() if each.name.startswith("back-end")] == [True]
    hang.set()
