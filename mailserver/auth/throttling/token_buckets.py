"""Token buckets with waiting: a key has a burst of tokens, refilled at a rate. Waiting clients take turns.

A client that disconnects while it waits takes no token.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from attrs import define, field

from mailserver.auth.throttling.fair_queue import FairQueue
from mailserver.system.children import Timer, Waiting

BURST: Final = 10
"""Most tokens of a key."""
REFILL_INTERVAL: Final = 0.5
"""Seconds until a key gets one more token."""
MAX_KEYS: Final = 20_000


@define(eq=False)
class _Waiter:
    share: str
    waiting: Waiting
    timer: Timer | None = None


@define(eq=False)
class _Bucket:
    tokens: float
    at: float
    """Time at which `tokens` was counted."""
    waiters: FairQueue[_Waiter] = field(factory=FairQueue)
    timer: Timer | None = None


class TokenBuckets:
    """The buckets of this process. All calls are made on one thread."""

    def __init__(
        self,
        clock: Callable[[], float],
        waiting: Callable[[], Waiting],
        call_later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        """`clock` is monotonic seconds."""
        self._clock = clock
        self._make_waiting = waiting
        self._call_later = call_later
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, key: str) -> bool:
        """Take a token of the key, if there is one and nobody waits for it."""
        bucket = self._of(key)
        if bucket.waiters or bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    async def wait(self, key: str, share: str, timeout: float) -> bool:
        """Wait for a token and take it. Return False after `timeout` seconds without one."""
        if self.take(key):
            return True
        bucket = self._of(key)
        waiter = _Waiter(share, self._make_waiting())
        waiter.timer = self._call_later(timeout, lambda: self._time_out(bucket, waiter))
        bucket.waiters.add(waiter)
        self._set_timer(bucket)
        try:
            return bool(await waiter.waiting)
        except BaseException:
            # The client has disconnected.
            if waiter.timer is not None:
                waiter.timer.cancel()
                waiter.timer = None
            bucket.waiters.discard(waiter)
            raise

    def give_back(self, key: str) -> None:
        """Return a token that was taken."""
        bucket = self._of(key)
        bucket.tokens = min(bucket.tokens + 1, BURST)
        self._serve(bucket)

    def _of(self, key: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(BURST, now)
            if len(self._buckets) > MAX_KEYS:
                idle = next((name for name, each in self._buckets.items() if not each.waiters and name != key), None)
                if idle is not None:
                    del self._buckets[idle]
        self._buckets.move_to_end(key)
        self._count(bucket)
        return bucket

    def _count(self, bucket: _Bucket) -> None:
        now = self._clock()
        bucket.tokens = min(bucket.tokens + (now - bucket.at) / REFILL_INTERVAL, BURST)
        bucket.at = now

    def _set_timer(self, bucket: _Bucket) -> None:
        if bucket.timer is None and bucket.waiters:
            # A little longer than needed: if a fraction of a token were missing, the timer would fire again at once.
            wait = max(1 - bucket.tokens, 0.0) * REFILL_INTERVAL + 0.001
            bucket.timer = self._call_later(wait, lambda: self._due(bucket))

    def _due(self, bucket: _Bucket) -> None:
        bucket.timer = None
        self._count(bucket)
        self._serve(bucket)

    def _serve(self, bucket: _Bucket) -> None:
        while bucket.tokens >= 1 and (waiter := bucket.waiters.first()) is not None:
            bucket.waiters.pop_first()
            bucket.tokens -= 1
            assert waiter.timer is not None
            waiter.timer.cancel()
            # In its own reactor turn: a waiter may give its token back, and recursion would overflow the stack.
            waiter.timer = self._call_later(0.0, lambda waiter=waiter: self._wake(waiter))  # type: ignore[misc]
        self._set_timer(bucket)

    @staticmethod
    def _wake(waiter: _Waiter) -> None:
        waiter.timer = None
        waiter.waiting.callback(True)

    @staticmethod
    def _time_out(bucket: _Bucket, waiter: _Waiter) -> None:
        waiter.timer = None
        bucket.waiters.discard(waiter)
        waiter.waiting.callback(False)
