"""The accounts whose index may be open: bounded in number, and closed once an account is at rest.

An open index takes some 200 KiB: SQLite's connection with its statements and pages, and the mapped index of the WAL. Most
accounts of a worker only wait for news, which comes without the index, so REST seconds after its last operation an account
closes its files. The next operation opens them again, in half a millisecond.

The C library keeps freed memory for itself. So once many accounts are closed it is asked to return what it has, which takes
milliseconds, and not again within TRIM_EVERY.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mailserver.store.live.account import LiveAccount

REST: Final = 5.0
"""Seconds without an operation after which an account closes its files."""
AT_ONCE: Final = 16
"""Accounts that are closed together; the others follow PAUSE seconds later."""
PAUSE: Final = 0.1
TRIM_AFTER: Final = 8
"""Accounts closed, from which on freed memory is worth returning."""
TRIM_EVERY: Final = 5.0
"""Least seconds between two returns of freed memory."""


def _never(_delay: float, _call: Callable[[], None]) -> object:
    return None


def _nothing() -> None:
    """`trim` that does nothing."""


class OpenIndexes:
    """The open indexes of a worker, on the reactor's thread; the least recently used first."""

    def __init__(
        self,
        most: int = 256,
        *,
        call_later: Callable[[float, Callable[[], None]], Any] = _never,
        seconds: Callable[[], float] = time.monotonic,
        trim: Callable[[], object] = _nothing,
    ) -> None:
        """`most` may change at any time. Without `call_later` no account rests; it returns an object with `cancel()`.

        `trim` has freed memory returned to the system; it does not block.
        """
        self.most = most
        self._call_later = call_later
        self._seconds = seconds
        self._trim = trim
        self._used: OrderedDict[LiveAccount, float] = OrderedDict()
        """Account -> time of its last operation."""
        self._next_sweep: Any = None
        self._stopped = False
        self._closed = 0
        """Accounts closed since freed memory was last returned."""
        self._trimmed = seconds() - TRIM_EVERY

    def __len__(self) -> int:
        return len(self._used)

    def used(self, live: LiveAccount) -> None:
        """Note an operation of the account. If too many indexes are open, the least recently used account closes its own."""
        self._used[live] = self._seconds()
        self._used.move_to_end(live)
        while len(self._used) > max(1, self.most):
            self._close(next(iter(self._used)))
        if self._next_sweep is None:
            self._sweep_after(REST)

    def stop(self) -> None:
        """Sweep no more: the service ends, and closes all accounts itself. Repeating it is harmless."""
        self._stopped = True
        if self._next_sweep is not None:
            self._next_sweep.cancel()
            self._next_sweep = None

    def forget(self, live: LiveAccount) -> None:
        """Note that the account is being closed."""
        if self._used.pop(live, None) is not None:
            self._closed += 1

    def _close(self, live: LiveAccount) -> None:
        self.forget(live)
        if live.opened:
            live.release_resources()

    def _sweep_after(self, seconds: float) -> None:
        if not self._stopped:
            self._next_sweep = self._call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        """Close accounts at rest, then return freed memory. The next sweep is when there is more to do, if ever."""
        self._next_sweep = None
        now = self._seconds()
        resting = [live for live, _ in zip(self._used, range(AT_ONCE), strict=False) if self._used[live] + REST <= now]
        for live in resting:
            self._close(live)
        waits = [max(PAUSE, last + REST - now) for last in islice(self._used.values(), 1)]
        if self._closed >= TRIM_AFTER:
            due = self._trimmed + TRIM_EVERY
            if resting or now < due:
                waits.append(max(PAUSE, due - now))
            else:
                self._closed = 0
                self._trimmed = now
                self._trim()
        if waits:
            self._sweep_after(min(waits))
