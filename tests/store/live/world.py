"""Live accounts over the model of a store, on threads that the test moves by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator
from typing import Any, Generic, TypeVar

import pytest

from mailserver.store.live import LiveAccount, LiveAccounts, LiveMailbox
from mailserver.store.memory import MemoryMailbox, MemoryStore
from mailserver.store.recent_uids import NONE_CLAIMED

T = TypeVar("T")
USER = "anna@example.test"


class Answer(Generic[T]):
    """What a runner gives: done once the operation has been stepped."""

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.waiter: Task[Any] | None = None

    def __await__(self) -> Generator[Answer[T], None, T]:
        if not self.done:
            yield self
        if self.error:
            raise self.error
        return self.value


class Runner:
    """First in, first out; the test decides when the next operation runs."""

    def __init__(self) -> None:
        self.queue: deque[tuple[Callable[[], Any], Answer[Any]]] = deque()
        self.ran = 0

    def run(self, operation: Callable[[], T]) -> Awaitable[T]:
        answer: Answer[T] = Answer()
        self.queue.append((operation, answer))
        return answer

    def step(self) -> None:
        operation, answer = self.queue.popleft()
        self.ran += 1
        try:
            answer.value = operation()
        except Exception as error:
            answer.error = error
        answer.done = True
        if answer.waiter:
            answer.waiter.go()


class Task(Generic[T]):
    """A session's coroutine, run as far as it goes."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.coroutine = coroutine
        self.done = False
        self.value: T | None = None
        self.error: BaseException | None = None
        self.go()

    def go(self) -> None:
        try:
            self.coroutine.send(None).waiter = self
        except StopIteration as stop:
            self.done, self.value = True, stop.value
        except Exception as error:
            self.done, self.error = True, error

    def result(self) -> T:
        assert self.done, "still waiting"
        if self.error:
            raise self.error
        return self.value  # type: ignore[return-value]


class World:
    """A worker: its accounts, and every runner it made."""

    def __init__(self, **bounds: Any) -> None:
        self.store = MemoryStore(lambda _source: pytest.fail("no summary is needed here"))
        self.runners: list[Runner] = []
        self.told: list[tuple[str, bytes]] = []
        self.watched: list[LiveMailbox] = []
        self.left: list[LiveMailbox] = []
        self.accounts = LiveAccounts(
            self.store,
            self.make_runner,
            notify_others=lambda user, mailbox: self.told.append((user, mailbox)),
            watch=self.watch,
            leave=self.left.append,
            unwatch=self.watched.remove,
            **bounds,
        )

    def watch(self, live: LiveMailbox) -> None:
        if live not in self.watched:
            self.watched.append(live)

    def make_runner(self) -> Runner:
        self.runners.append(Runner())
        return self.runners[-1]

    def settle(self) -> None:
        while any(runner.queue for runner in self.runners):
            for runner in self.runners:
                if runner.queue:
                    runner.step()

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        task = Task(coroutine)
        self.settle()
        return task.result()

    def account(self) -> LiveAccount:
        return self.do(self.accounts.open(USER))


def pokes() -> tuple[list[int], Callable[[], None]]:
    count: list[int] = []
    return count, lambda: count.append(1)


def record_refreshes(monkeypatch: pytest.MonkeyPatch) -> list[set[str] | None]:
    looked: list[set[str] | None] = []

    def refresh(_self: MemoryMailbox, names: Collection[str] | None = None, *, claims: bool = False) -> range:
        looked.append(None if names is None else set(names))
        return NONE_CLAIMED

    monkeypatch.setattr(MemoryMailbox, "refresh", refresh)
    return looked
