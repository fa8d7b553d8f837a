"""A rate for each key, shared by all who want a turn: the one that has asked least often is next, and of those the newest.

The problem. A user's password is guessed from hundreds of networks, and the user comes from a new one. A queue in order of
arrival would have the user wait behind all of them; one that only takes turns would, too, while each of them has a first turn.

The rules. Turns come at a fixed rate. Who has asked least often goes first: that is the user, behind whom all must stand who
guess again, or hang up to come back as new. Of those who ask for the first time the newest goes first: where there are more
than the rate can take, the old ones are refused in the end, as they would be in any order, and whoever comes in a moment of
quiet does not wait for them. Nobody waits longer than it says.

Rejected: the order of arrival (160 networks that begin together would take 80 seconds to pass).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from attrs import define, field

from mailserver.auth.throttling.fair_semaphore import WaitedTooLong
from mailserver.system.children import Timer, Waiting

MAX_KEYS: Final = 10_000
"""Keys remembered that nobody waits for."""
MAX_SHARES: Final = 4096
"""Shares of a key whose tries are remembered; beyond, all of that key begin anew."""


@define(eq=False)
class _Waiter:
    tries: int
    number: int
    waiting: Waiting
    timer: Timer | None = None
    """Of its call, or of its giving up."""


@define(eq=False)
class _Turns:
    free_at: float = float("-inf")
    tries: dict[str, int] = field(factory=dict)
    waiters: list[_Waiter] = field(factory=list)
    timer: Timer | None = None


class SharedRate:
    """The rates of this process. All calls are made on one thread."""

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

    async def enter(self, key: str, share: str, longest: float) -> None:
        """Wait for a turn, at most `longest` seconds. Raises: WaitedTooLong."""
        turns = self._of(key)
        if len(turns.tries) >= MAX_SHARES and share not in turns.tries:
            turns.tries.clear()
        tries = turns.tries[share] = turns.tries.get(share, 0) + 1
        now = self._clock()
        if not turns.waiters and now >= turns.free_at:
            turns.free_at = now + self._interval
            return
        self._number += 1
        waiter = _Waiter(tries, self._number, self._make_waiting())
        waiter.timer = self._call_later(max(longest, 0.0), lambda: self._give_up(turns, waiter))
        turns.waiters.append(waiter)
        self._set_timer(turns)
        try:
            has_turn = await waiter.waiting
        except BaseException:
            # The client is gone; its turn, if it had come, is spent.
            if waiter in turns.waiters:
                turns.waiters.remove(waiter)
                assert waiter.timer is not None
                waiter.timer.cancel()
            raise
        if not has_turn:
            raise WaitedTooLong

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
        waiter = min(turns.waiters, key=lambda each: (each.tries, -each.number))
        turns.waiters.remove(waiter)
        turns.free_at = self._clock() + self._interval
        assert waiter.timer is not None
        waiter.timer.cancel()
        self._set_timer(turns)
        waiter.waiting.callback(True)

    @staticmethod
    def _give_up(turns: _Turns, waiter: _Waiter) -> None:
        turns.waiters.remove(waiter)
        waiter.waiting.callback(False)
