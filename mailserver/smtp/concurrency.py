"""What is done for each recipient of a message, for several at the same time where the service can."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

AT_ONCE: Final = 16
"""Recipients for whom something is done at the same time: each may hold a descriptor."""


class Gather(Protocol):
    """Runs works that do not raise at the same time."""

    def __call__(self, works: Sequence[Coroutine[Any, Any, T]]) -> Awaitable[list[T]]:
        """What they return, in their order."""


async def gather_in_turn(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """A `Gather` that does one after the other."""
    return [await each for each in works]


async def gather_limited(gather: Gather, works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What the works return, in their order; AT_ONCE of them at the same time."""
    results: list[T] = []
    for start in range(0, len(works), AT_ONCE):
        results += await gather(works[start : start + AT_ONCE])
    return results
