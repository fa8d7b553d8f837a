"""Batches that adapt to the time they take, so that one step lasts some hundredths of a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

T = TypeVar("T")

STEP: Final = 0.03
"""Seconds of a step. Then other work of the account has its turn."""
_GROWTH: Final = 4


class BatchSize:
    """The size of the next batch, adapted by `with batch_size:` around the work of each batch."""

    def __init__(self, most: int, first: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with batches of `first` items; grow to at most `most`."""
        self.size = max(1, min(first, most))
        self._most = most
        self._clock = clock
        self._began = 0.0

    def parts(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        """Cut the items into batches of the current size."""
        at = 0
        while at < len(items):
            part = items[at : at + self.size]
            at += len(part)
            yield part

    def __enter__(self) -> Self:
        self._began = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took = self._clock() - self._began
        if took > STEP:
            self.size = max(1, self.size // 2)
        elif took < STEP / (2 * _GROWTH):
            self.size = min(self._most, _GROWTH * self.size)
