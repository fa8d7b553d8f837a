"""Cancelling work that blocks: a flag that the reactor's thread sets and the working thread looks at between its steps.

Rules:

*   `check` stands only where the work may end as it would for an error of the disk: between two reads, or between two
    steps of a change that is then undone, or whose finished steps stand by themselves.
*   Work that is done for several sessions at once runs in `shielded`: the end of one of them is no reason to end it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mailserver.errors import Cancelled

T = TypeVar("T")


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


_thread = _Thread()


def run(operation: Callable[[], T], cancellation: Cancellation | None) -> T:
    """Run the operation; within it `check` obeys that cancellation."""
    _thread.cancellation = cancellation
    try:
        return operation()
    finally:
        _thread.cancellation = None


def is_requested() -> bool:
    """Has whoever waits for the work of this thread given it up?"""
    cancellation = _thread.cancellation
    return cancellation is not None and cancellation.requested


def check() -> None:
    """Return unless the work of this thread has been given up. Raises: Cancelled."""
    if is_requested():
        raise Cancelled


@contextmanager
def shielded() -> Iterator[None]:
    """Work that is not to be cancelled with the session that happens to run it."""
    before, _thread.cancellation = _thread.cancellation, None
    try:
        yield
    finally:
        _thread.cancellation = before
