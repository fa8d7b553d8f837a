"""The threads of blocking store calls: a queue for each account, whose calls run one after another.

Twisted's thread pool costs several lock operations and a context for each call. The switch to a thread is most of what a
small read costs, so these threads wait on a queue that is written in C.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from mailserver.cancellation import Cancellation
from mailserver.cancellation import run as run_obeying
from mailserver.net.connection.coroutines import turn

T = TypeVar("T")


class StoreThreads:
    """Threads that run calls in the order given, at most `most`; each is started when it is needed first."""

    def __init__(self, most: int, name: str = "store") -> None:
        self._most = most
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._pending = 0

    def call(self, function: Callable[[], None]) -> None:
        """Run a function in one of the threads; it must not raise."""
        self._pending += 1
        if self._pending > len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._calls.put(function)

    def done(self) -> None:
        """Count a call that has ended, on the thread that makes the calls: so the count needs no lock."""
        self._pending -= 1

    def stop(self, wait: float | None = None) -> None:
        """End the threads; wait for their calls for `wait` seconds at most. A call that goes on ends with the process."""
        deadline = None if wait is None else time.monotonic() + wait
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        self._threads.clear()

    def _work(self) -> None:
        get = self._calls.get
        while (function := get()) is not None:
            function()


class AccountRunner:
    """A `StoreRunner`: runs the operations of one account in order, in one of the shared threads."""

    __slots__ = ("_busy", "_queue", "_reactor", "_threads")

    def __init__(self, reactor: IReactorFromThreads, threads: StoreThreads) -> None:
        self._reactor = reactor
        self._threads = threads
        self._queue: deque[tuple[Callable[[], Any], Cancellation | None, Deferred[Any]]] = deque()
        self._busy = False

    def run(self, operation: Callable[[], T]) -> Deferred[T]:
        """Run an operation; its result or failure. It obeys the cancellation of the current session."""
        answer: Deferred[T] = Deferred()
        task = turn.task
        cancellation = None if task is None else task.cancellation
        if self._busy:
            self._queue.append((operation, cancellation, answer))
        else:
            self._busy = True
            self._threads.call(lambda: self._work(operation, cancellation, answer))
        return answer

    def _work(self, operation: Callable[[], Any], cancellation: Cancellation | None, answer: Deferred[Any]) -> None:
        """Run one operation in the thread, so that a busy account does not keep a thread from the others."""
        try:
            result = run_obeying(operation, cancellation)
        except BaseException:
            result = Failure()
        self._reactor.callFromThread(self._finish, answer, result)

    def _finish(self, answer: Deferred[Any], result: object) -> None:
        self._threads.done()
        if self._queue:
            operation, cancellation, following = self._queue.popleft()
            self._threads.call(lambda: self._work(operation, cancellation, following))
        else:
            self._busy = False
        answer.callback(result)  # a Failure starts the errbacks
