"""A fixed rate of turns for each key, shared by all networks. The network with the fewest requests goes first.

The problem. Attackers guess a user's password from hundreds of networks, and the user comes from a new network. In a queue by
arrival the user would wait behind all of them. Round robin does not help either, as long as each network has a first turn.

The rules. Turns come at a fixed rate. The network with the fewest requests so far goes first. That is the user: networks
that guess again, or disconnect and come back, have more requests. Among networks with equally many requests the newest goes
first. If more networks come than the rate can serve, the oldest time out, as some would in any order; and a network that
comes in a quiet moment does not wait for them. Nobody waits longer than its timeout.

Rejected: order of arrival (160 networks that begin together would take 80 seconds to pass).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from attrs import define, field

from mailserver.auth.throttling.fair_semaphore import WaitTimedOut
from mailserver.system.children import Timer, Waiting

MAX_KEYS: Final = 10_000
"""Keys remembered that have no waiters."""
MAX_SHARES: Final = 4096
"""Shares of a key whose requests are counted; beyond that, the counts of the key are reset."""


@define(eq=False)
class _Waiter:
    requests: int
    number: int
    waiting: Waiting
    timer: Timer | None = None
    """Of the timeout."""


@define(eq=False)
class _Turns:
    free_at: float = float("-inf")
    requests: dict[str, int] = field(factory=dict)
    waiters: list[_Waiter] = field(factory=list)
    timer: Timer | None = None


class SharedRate:
    """The rates of this process, by key. All calls are made on one thread."""

    def __init__(
        self,
        interval: float,
        clock: Callable[[], float],
        waiting: Callable[[], Waiting],
        call_later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        """`interval`: seconds between two turns of a key. `clock` is monotonic seconds."""
        self._interval = interval
        self._clock = clock
        self._make_waiting = waiting
        self._call_later = call_later
        self._keys: OrderedDict[str, _Turns] = OrderedDict()
        self._number = 0

    def __len__(self) -> int:
        return len(self._keys)

    async def wait_turn(self, key: str, share: str, timeout: float) -> None:
        """Wait for a turn, at most `timeout` seconds. Raises: WaitTimedOut."""
        turns = self._of(key)
        if len(turns.requests) >= MAX_SHARES and share not in turns.requests:
            turns.requests.clear()
        requests = turns.requests[share] = turns.requests.get(share, 0) + 1
        now = self._clock()
        if not turns.waiters and now >= turns.free_at:
            turns.free_at = now + self._interval
            return
        self._number += 1
        waiter = _Waiter(requests, self._number, self._make_waiting())
        waiter.timer = self._call_later(max(timeout, 0.0), lambda: self._time_out(turns, waiter))
        turns.waiters.append(waiter)
        self._set_timer(turns)
        try:
            has_turn = await waiter.waiting
        except BaseException:
            # The client has disconnected. If its turn had come, the turn is used up.
            if waiter in turns.waiters:
                turns.waiters.remove(waiter)
                assert waiter.timer is not None
                waiter.timer.cancel()
            raise
        if not has_turn:
            raise WaitTimedOut

    def _of(self, key: str) -> _Turns:
        turns = self._keys.setdefault(key, _Turns())
        self._keys.move_to_end(key)
        if len(self._keys) > MAX_KEYS:
            idle = next((name for name, each in self._keys.items() if not each.waiters and name != key), None)
            if idle is not None:
                del self._keys[idle]
        return turns

    def _set_timer(self, turns: _Turns) -> None:
        if turns.timer is None and turns.waiters:
            wait = max(turns.free_at - self._clock(), 0.0)
            turns.timer = self._call_later(wait, lambda: self._next(turns))

    def _next(self, turns: _Turns) -> None:
        turns.timer = None
        if not turns.waiters:
            return
        waiter = min(turns.waiters, key=lambda each: (each.requests, -each.number))
        turns.waiters.remove(waiter)
        turns.free_at = self._clock() + self._interval
        assert waiter.timer is not None
        waiter.timer.cancel()
        self._set_timer(turns)
        waiter.waiting.callback(True)

    @staticmethod
    def _time_out(turns: _Turns, waiter: _Waiter) -> None:
        turns.waiters.remove(waiter)
        waiter.waiting.callback(False)
