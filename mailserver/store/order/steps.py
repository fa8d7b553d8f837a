"""Long work in short steps, so that other work of the account and of the process runs in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from mailserver.cancellation import check
from mailserver.store.batch_size import STEP

T = TypeVar("T")

Work = Generator[None, None, T]
"""Work that yields after each few milliseconds, and returns its result."""


class Steps(Generic[T]):
    """A run of some work. Each step lasts about STEP seconds."""

    result: T

    def __init__(self, work: Work[T], clock: Callable[[], float] = time.monotonic) -> None:
        self._work = work
        self._clock = clock

    def step(self) -> bool:
        """Continue. True at the end: `result` is there. Raises: Cancelled, and what the work raises."""
        check()
        end = self._clock() + STEP
        while True:
            try:
                next(self._work)
            except StopIteration as stop:
                self.result = stop.value
                return True
            check()
            if self._clock() >= end:
                return False
