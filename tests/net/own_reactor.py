"""A coroutine on a reactor of its own, for what needs real sockets or threads."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure

T = TypeVar("T")
HANGS = 60.0
"""Seconds until a test is given up."""


def run_on_reactor(make: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Make a coroutine for a new reactor, run it to its end, and return its result."""
    reactor: Any = EPollReactor()
    results: list[Any] = []

    def stop(result: Any) -> None:
        results.append(result)
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(make(reactor)).addBoth(stop))
    limit = reactor.callLater(HANGS, reactor.crash)
    reactor.run(installSignalHandlers=False)
    assert results, "it hangs"
    limit.cancel()
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def wait(reactor: Any, condition: Callable[[], bool]) -> Deferred[None]:
    """Wait until something holds; the test hangs if it never does."""
    waiting: Deferred[None] = Deferred()

    def look() -> None:
        if condition():
            waiting.callback(None)
        else:
            reactor.callLater(0.01, look)

    look()
    return waiting
