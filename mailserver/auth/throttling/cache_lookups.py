"""Budgets of looks: some at once, then at a rate, in order of arrival; clients take turns. Who hangs up loses its place."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from attrs import define, field

from mailserver.auth.throttling.fair_queue import FairQueue
from mailserver.system.children import Timer, Waiting

AT_ONCE: Final = 10
"""Looks that a key has after a pause."""
INTERVAL: Final = 0.5
"""Seconds in which it gets one more."""
MAX_KEYS: Final = 20_000


@define(eq=False)
class _Waiter:
    share: str
    waiting: Waiting
    timer: Timer | None = None


@define(eq=False)
class _Budget:
    left: float
    at: float
    """When `left` was counted."""
    waiters: FairQueue[_Waiter] = field(factory=FairQueue)
    timer: Timer | None = None


class Looks:
    """Those of this process. All calls are made on one thread."""

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
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()

    def take(self, key: str) -> bool:
        """Take a look of the key's, if it has one left."""
        budget = self._of(key)
        if budget.waiters or budget.left < 1:
            return False
        budget.left -= 1
        return True

    async def wait(self, key: str, share: str, longest: float) -> bool:
        """Take one as soon as it is there; False if that takes longer than `longest` seconds."""
        if self.take(key):
            return True
        budget = self._of(key)
        waiter = _Waiter(share, self._make_waiting())
        waiter.timer = self._call_later(longest, lambda: self._give_up(budget, waiter))
        budget.waiters.add(waiter)
        self._set_timer(budget)
        try:
            return bool(await waiter.waiting)
        except BaseException:
            # The client is gone.
            if waiter.timer is not None:
                waiter.timer.cancel()
                waiter.timer = None
            budget.waiters.discard(waiter)
            raise

    def give_back(self, key: str) -> None:
        """The look was free."""
        budget = self._of(key)
        budget.left = min(budget.left + 1, AT_ONCE)
        self._serve(budget)

    def _of(self, key: str) -> _Budget:
        now = self._clock()
        budget = self._budgets.get(key)
        if budget is None:
            budget = self._budgets[key] = _Budget(AT_ONCE, now)
            if len(self._budgets) > MAX_KEYS:
                idle = next((name for name, each in self._budgets.items() if not each.waiters and name != key), None)
                if idle is not None:
                    del self._budgets[idle]
        self._budgets.move_to_end(key)
        self._count(budget)
        return budget

    def _count(self, budget: _Budget) -> None:
        now = self._clock()
        budget.left = min(budget.left + (now - budget.at) / INTERVAL, AT_ONCE)
        budget.at = now

    def _set_timer(self, budget: _Budget) -> None:
        if budget.timer is None and budget.waiters:
            # A little more than it takes: a fraction that is missing would call this again at once.
            wait = max(1 - budget.left, 0.0) * INTERVAL + 0.001
            budget.timer = self._call_later(wait, lambda: self._due(budget))

    def _due(self, budget: _Budget) -> None:
        budget.timer = None
        self._count(budget)
        self._serve(budget)

    def _serve(self, budget: _Budget) -> None:
        while budget.left >= 1 and (waiter := budget.waiters.first()) is not None:
            budget.waiters.take_first()
            budget.left -= 1
            assert waiter.timer is not None
            waiter.timer.cancel()
            # In a turn of its own: it may give the look back, and so on, deeper than the stack.
            waiter.timer = self._call_later(0.0, lambda waiter=waiter: self._wake(waiter))  # type: ignore[misc]
        self._set_timer(budget)

    @staticmethod
    def _wake(waiter: _Waiter) -> None:
        waiter.timer = None
        waiter.waiting.callback(True)

    @staticmethod
    def _give_up(budget: _Budget, waiter: _Waiter) -> None:
        waiter.timer = None
        budget.waiters.discard(waiter)
        waiter.waiting.callback(False)
