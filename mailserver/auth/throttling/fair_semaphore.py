"""A semaphore for each key, fair among clients."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from attrs import define, field

from mailserver.auth.throttling.fair_queue import FairQueue
from mailserver.system.children import Timer, Waiting

Key = TypeVar("Key", bound=Hashable)


class WaitTimedOut(Exception):
    """No place became free in time."""


@define(eq=False)
class _Waiter:
    share: str
    purpose: bytes
    waiting: Waiting
    """Called back with True where the waiter has joined others, False where it has a place of its own, None at the timeout."""
    timer: Timer | None = None
    """Of the timeout, then of the callback."""
    has_place: bool = False


@define(eq=False)
class _Semaphore:
    purpose: bytes = b""
    """Purpose of the last holder that was admitted without joining others."""
    is_joinable: bool = False
    """Others with the same purpose may join."""
    holders: int = 0
    waiters: FairQueue[_Waiter] = field(factory=FairQueue)


class FairSemaphore(Generic[Key]):
    """Counting semaphores by key; one exists while somebody holds or awaits it. Clients take turns.

    A holder has a purpose. While the key allows it, others with the same purpose join beyond the limit.
    """

    def __init__(
        self,
        limit: int,
        waiting: Callable[[], Waiting],
        call_later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        """`limit`: holders of one key at a time."""
        self._limit = limit
        self._make_waiting = waiting
        self._call_later = call_later
        self._semaphores: dict[Key, _Semaphore] = {}

    def __len__(self) -> int:
        return len(self._semaphores)

    async def acquire(self, key: Key, share: str, timeout: float, purpose: bytes = b"") -> bool:
        """Wait for a place, at most `timeout` seconds. `release` must follow. Shares take turns.

        Return True where the caller has joined holders with the same purpose. Raises: WaitTimedOut.
        """
        semaphore = self._semaphores.setdefault(key, _Semaphore())
        if not semaphore.waiters:
            if semaphore.holders < self._limit:
                self._admit(semaphore, purpose)
                return False
            # Nobody joins past a waiter: a purpose that is repeated would keep the waiter out.
            if semaphore.is_joinable and semaphore.purpose == purpose:
                semaphore.holders += 1
                return True
        waiter = _Waiter(share, purpose, self._make_waiting())
        waiter.timer = self._call_later(max(timeout, 0.0), lambda: self._time_out(key, waiter))
        semaphore.waiters.add(waiter)
        try:
            joined = await waiter.waiting
        except BaseException:
            # The client has disconnected.
            waiter.timer.cancel()
            if waiter.has_place:
                self.release(key)
            else:
                semaphore.waiters.discard(waiter)
            raise
        if joined is None:
            raise WaitTimedOut
        return bool(joined)

    def allow_joining(self, key: Key) -> None:
        """Admit all waiters, now and later, that have the same purpose as the last holder."""
        semaphore = self._semaphores[key]
        semaphore.is_joinable = True
        for waiter in [each for each in semaphore.waiters if each.purpose == semaphore.purpose]:
            semaphore.waiters.discard(waiter)
            semaphore.holders += 1
            self._wake(waiter, joined=True)

    def stop_joining(self, key: Key) -> None:
        """Admit nobody else beyond the limit."""
        self._semaphores[key].is_joinable = False

    def release(self, key: Key, *, after: float = 0.0) -> None:
        """Give the place back, `after` so many seconds."""
        if after > 0:
            self._call_later(after, lambda: self.release(key))
            return
        semaphore = self._semaphores[key]
        semaphore.holders -= 1
        if semaphore.holders < self._limit and (waiter := semaphore.waiters.first()) is not None:
            semaphore.waiters.pop_first()
            self._admit(semaphore, waiter.purpose)
            self._wake(waiter, joined=False)
        elif not semaphore.holders:
            del self._semaphores[key]

    @staticmethod
    def _admit(semaphore: _Semaphore, purpose: bytes) -> None:
        semaphore.holders += 1
        semaphore.purpose = purpose
        semaphore.is_joinable = False

    def _wake(self, waiter: _Waiter, *, joined: bool) -> None:
        assert waiter.timer is not None
        waiter.timer.cancel()
        waiter.has_place = True
        # In its own reactor turn: each waiter may admit the next one, and recursion would overflow the stack.
        waiter.timer = self._call_later(0.0, lambda: waiter.waiting.callback(joined))

    def _time_out(self, key: Key, waiter: _Waiter) -> None:
        self._semaphores[key].waiters.discard(waiter)
        waiter.waiting.callback(None)
