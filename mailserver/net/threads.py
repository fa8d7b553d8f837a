"""The one place where blocking store calls leave the reactor: one queue an account, one thread at a time each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")


class AccountRunner:
    """A `StoreRunner`: operations of one account run in order, in a thread of the shared pool."""

    __slots__ = ("_busy", "_pool", "_queue", "_reactor")

    def __init__(self, reactor: IReactorFromThreads, pool: ThreadPool) -> None:
        self._reactor = reactor
        self._pool = pool
        self._queue: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()
        self._busy = False

    def run(self, operation: Callable[[], T]) -> Deferred[T]:
        """The result, or the failure, of the operation."""
        answer: Deferred[T] = Deferred()
        self._queue.append((operation, answer))
        if not self._busy:
            self._busy = True
            self._hand_over()
        return answer

    def _hand_over(self) -> None:
        operation, answer = self._queue.popleft()
        self._pool.callInThread(lambda: self._work(operation, answer))

    def _work(self, operation: Callable[[], Any], answer: Deferred[Any]) -> None:
        """In the thread: one operation, so that a busy account does not keep a thread from the others."""
        try:
            result = operation()
        except BaseException:
            result = Failure()
        self._reactor.callFromThread(self._finish, answer, result)

    def _finish(self, answer: Deferred[Any], result: object) -> None:
        if self._queue:
            self._hand_over()
        else:
            self._busy = False
        answer.callback(result)  # a Failure starts the errbacks
