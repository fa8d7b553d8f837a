"""Size of the sweeps: a part of each in `make test`, the whole in `make soak` (or with MAILSERVER_SWEEPS=whole)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
WHOLE = os.environ.get("MAILSERVER_SWEEPS") == "whole"


def choose(usual: T, *, whole: T) -> T:
    """The value for this run."""
    return whole if WHOLE else usual


def part(cases: Sequence[T], count: int) -> Sequence[T]:
    """All cases in a whole sweep, else so many of them, evenly spread from the first to the last."""
    if WHOLE or len(cases) <= count:
        return cases
    return [cases[number * (len(cases) - 1) // (count - 1)] for number in range(count)]
