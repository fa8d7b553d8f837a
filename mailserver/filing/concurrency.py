"""Running coroutines for several recipients of a message concurrently."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

AT_ONCE: Final = 16
"""Recipients that are served concurrently: each may hold a file descriptor."""


class Gather(Protocol):
    """Runs coroutines that do not raise concurrently."""

    def __call__(self, works: Sequence[Coroutine[Any, Any, T]]) -> Awaitable[list[T]]:
        """Their results, in their order."""


async def gather_in_turn(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """A `Gather` that runs one after the other."""
    return [await each for each in works]


async def gather_limited(gather: Gather, works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run the coroutines, AT_ONCE of them concurrently; return their results in their order."""
    results: list[T] = []
    for start in range(0, len(works), AT_ONCE):
        results += await gather(works[start : start + AT_ONCE])
    return results
