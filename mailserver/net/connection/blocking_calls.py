"""Threads for back ends that block: each of a server has its own, and they end when it stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from mailserver.net.connection.store_threads import StoreThreads


class BlockingThreads:
    """All threads of back ends that block."""

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._made: list[StoreThreads] = []

    def make(self, most: int) -> BlockingCalls:
        """Threads for one back end, at most so many; each is started when it is needed first."""
        threads = StoreThreads(most, "back-end")
        self._made.append(threads)
        return BlockingCalls(self._reactor, threads)

    def stop(self, wait: float) -> None:
        """End them; each back end's get `wait` seconds at most. A call that goes on ends with the process."""
        for threads in self._made:
            threads.stop(wait)


class BlockingCalls:
    """Implements `auth.backends.guard.Threads`."""

    def __init__(self, reactor: IReactorFromThreads, threads: StoreThreads) -> None:
        self._reactor = reactor
        self._threads = threads

    def run(self, function: Callable[[], Any]) -> Deferred[Any]:
        """See Threads."""
        answer: Deferred[Any] = Deferred()
        self._threads.call(lambda: self._work(function, answer))
        return answer

    def _work(self, function: Callable[[], Any], answer: Deferred[Any]) -> None:
        result: object = None
        # A call whose caller has given up waited for a thread: it would only keep others waiting.
        if not answer.called:
            try:
                result = function()
            except BaseException:
                result = Failure()
        self._reactor.callFromThread(self._finish, answer, result)

    def _finish(self, answer: Deferred[Any], result: object) -> None:
        self._threads.done()
        # A Failure starts the errbacks; of a cancelled Deferred the result is dropped.
        answer.callback(result)
