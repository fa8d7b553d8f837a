"""Cancellation of blocking work: a flag that the reactor's thread sets and the working thread checks between steps.

Rules:

*   `check` stands only where the work may end as for an error of the disk: between two reads, or between two steps of a
    change that is then undone, or whose finished steps stand by themselves.
*   A client may send a change and disconnect at once, as with POP3's QUIT. So a change is cancelled only once it has
    taken CHANGE_TIME, which nearly none does (`check_change`).
*   Work for several sessions at once runs in `shielded`: the end of one of them must not end it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from mailserver.errors import Cancelled

T = TypeVar("T")

CHANGE_TIME: Final = 1.0
"""Seconds for which a change continues even if nobody waits for it."""


class Cancellation:
    """A session's request to end its work."""

    __slots__ = ("requested",)

    def __init__(self) -> None:
        self.requested = False

    def request(self) -> None:
        """Let the work end at its next `check`. On any thread; it may be repeated."""
        self.requested = True


class _Thread(threading.local):
    cancellation: Cancellation | None = None
    began = 0.0
    """Start of the operation, in monotonic seconds."""


_thread = _Thread()


def run(operation: Callable[[], T], cancellation: Cancellation | None) -> T:
    """Run the operation. Within it `check` obeys that cancellation."""
    _thread.cancellation = cancellation
    _thread.began = time.monotonic()
    try:
        return operation()
    finally:
        _thread.cancellation = None


def check() -> None:
    """Raise Cancelled if the session that waits for this thread's work has ended."""
    cancellation = _thread.cancellation
    if cancellation is not None and cancellation.requested:
        raise Cancelled


def is_change_cancelled() -> bool:
    """Tell whether a change, or a wait on the way to one, is cancelled and has taken CHANGE_TIME."""
    cancellation = _thread.cancellation
    return cancellation is not None and cancellation.requested and time.monotonic() - _thread.began >= CHANGE_TIME


def check_change() -> None:
    """Do `check` for a change of mail. Raises: Cancelled."""
    if is_change_cancelled():
        raise Cancelled


@contextmanager
def shielded() -> Iterator[None]:
    """Shield work from the end of the session that happens to run it."""
    before, _thread.cancellation = _thread.cancellation, None
    try:
        yield
    finally:
        _thread.cancellation = before
