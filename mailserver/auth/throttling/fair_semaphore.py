"""Lines for places: so many at once for each key, the others wait, and clients take turns."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from attrs import define, field

from mailserver.auth.throttling.fair_queue import FairQueue
from mailserver.system.children import Timer, Waiting

Key = TypeVar("Key", bound=Hashable)


class WaitedTooLong(Exception):
    """No place became free in time."""


@define(eq=False)
class _Waiter:
    share: str
    purpose: bytes
    waiting: Waiting
    """Called back with: has it joined others? None: it waited too long."""
    timer: Timer | None = None
    """Of that call."""
    is_inside: bool = False


@define(eq=False)
class _Line:
    purpose: bytes = b""
    """What whoever came in last came for."""
    is_open: bool = False
    """Others may join, for the same purpose."""
    inside: int = 0
    waiters: FairQueue[_Waiter] = field(factory=FairQueue)


class Lines(Generic[Key]):
    """A line for each key that anybody is in."""

    def __init__(
        self,
        places: int,
        waiting: Callable[[], Waiting],
        call_later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        """`places` of each line."""
        self._places = places
        self._make_waiting = waiting
        self._call_later = call_later
        self._lines: dict[Key, _Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    async def enter(self, key: Key, share: str, longest: float, purpose: bytes = b"") -> bool:
        """Wait for a place, at most `longest` seconds; `leave` must follow. `share` is whose turn is taken.

        True where it has joined those who are inside for the same purpose. Raises: WaitedTooLong.
        """
        line = self._lines.setdefault(key, _Line())
        if not line.waiters:
            if line.inside < self._places:
                self._let_in(line, purpose)
                return False
            # Not past who waits: the same again and again would keep them out.
            if line.is_open and line.purpose == purpose:
                line.inside += 1
                return True
        waiter = _Waiter(share, purpose, self._make_waiting())
        waiter.timer = self._call_later(max(longest, 0.0), lambda: self._give_up(key, waiter))
        line.waiters.add(waiter)
        try:
            joined = await waiter.waiting
        except BaseException:
            # The client is gone.
            waiter.timer.cancel()
            if waiter.is_inside:
                self.leave(key)
            else:
                line.waiters.discard(waiter)
            raise
        if joined is None:
            raise WaitedTooLong
        return bool(joined)

    def open(self, key: Key) -> None:
        """Let others join who came for the same purpose as whoever is inside."""
        line = self._lines[key]
        line.is_open = True
        for waiter in [each for each in line.waiters if each.purpose == line.purpose]:
            line.waiters.discard(waiter)
            line.inside += 1
            self._wake(waiter, joined=True)

    def shut(self, key: Key) -> None:
        """Nobody joins whoever is inside any more."""
        self._lines[key].is_open = False

    def leave(self, key: Key, *, after: float = 0.0) -> None:
        """Give the place back, in so many seconds."""
        if after > 0:
            self._call_later(after, lambda: self.leave(key))
            return
        line = self._lines[key]
        line.inside -= 1
        if line.inside < self._places and (waiter := line.waiters.first()) is not None:
            line.waiters.take_first()
            self._let_in(line, waiter.purpose)
            self._wake(waiter, joined=False)
        elif not line.inside:
            del self._lines[key]

    @staticmethod
    def _let_in(line: _Line, purpose: bytes) -> None:
        line.inside += 1
        line.purpose = purpose
        line.is_open = False

    def _wake(self, waiter: _Waiter, *, joined: bool) -> None:
        assert waiter.timer is not None
        waiter.timer.cancel()
        waiter.is_inside = True
        # In a turn of its own: each may let in the next, and so on, deeper than the stack.
        waiter.timer = self._call_later(0.0, lambda: waiter.waiting.callback(joined))

    def _give_up(self, key: Key, waiter: _Waiter) -> None:
        self._lines[key].waiters.discard(waiter)
        waiter.waiting.callback(None)
