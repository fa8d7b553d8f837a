"""Cancelling work that blocks: a flag that the reactor's thread sets and the working thread looks at between its steps.

Rules:

*   `check` stands only where the work may end as it would for an error of the disk: between two reads, or between two
    steps of a change that is then undone, or whose finished steps stand by themselves.
*   A client may send a change and go at once, as with POP3's QUIT: a change is given up only once it has taken
    CHANGE_TIME, which nearly none does (`check_change`).
*   Work that is done for several sessions at once runs in `shielded`: the end of one of them is no reason to end it.
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
"""Seconds that a change may go on, whether or not anybody waits for it."""


class Cancellation:
    """A request to end, of one session."""

    __slots__ = ("requested",)

    def __init__(self) -> None:
        self.requested = False

    def request(self) -> None:
        """Have the work end at its next `check`. May be called from any thread, and repeated."""
        self.requested = True


class _Thread(threading.local):
    cancellation: Cancellation | None = None
    began = 0.0
    """When the operation began, monotonic seconds."""


_thread = _Thread()


def run(operation: Callable[[], T], cancellation: Cancellation | None) -> T:
    """Run the operation; within it `check` obeys that cancellation."""
    _thread.cancellation = cancellation
    _thread.began = time.monotonic()
    try:
        return operation()
    finally:
        _thread.cancellation = None


def check() -> None:
    """Return unless whoever waits for the work of this thread has given it up. Raises: Cancelled."""
    cancellation = _thread.cancellation
    if cancellation is not None and cancellation.requested:
        raise Cancelled


def is_change_cancelled() -> bool:
    """Is a change, or a wait on the way to one, given up that has gone on for CHANGE_TIME?"""
    cancellation = _thread.cancellation
    return cancellation is not None and cancellation.requested and time.monotonic() - _thread.began >= CHANGE_TIME


def check_change() -> None:
    """As `check`, of what changes mail. Raises: Cancelled."""
    if is_change_cancelled():
        raise Cancelled


@contextmanager
def shielded() -> Iterator[None]:
    """Work that is not to be cancelled with the session that happens to run it."""
    before, _thread.cancellation = _thread.cancellation, None
    try:
        yield
    finally:
        _thread.cancellation = before
