"""A stable sort in steps: one call of list.sort() for a hundred thousand texts would keep all threads waiting."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from mailserver.store.order.steps import Work

CHUNK: Final = 8192
"""Elements that are sorted in one call."""
MERGED: Final = 16 * CHUNK
"""Elements that are merged in one call: list.sort() finds the two sorted runs, and compares each element once or twice."""


def stable_sort(order: list[int], column: Sequence[Any], *, reverse: bool = False) -> Work[list[int]]:
    """Sort positions by their values in the column. Equal ones keep their order, with `reverse` as well."""
    key = column.__getitem__
    parts = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    for part in parts:
        part.sort(key=key, reverse=reverse)
        yield
    while len(parts) > 1 and len(parts[0]) < MERGED:
        joined = []
        for start in range(0, len(parts), 2):
            part = parts[start]
            if start + 1 < len(parts):
                part += parts[start + 1]
                part.sort(key=key, reverse=reverse)
            joined.append(part)
            yield
        parts = joined
    if len(parts) <= 1:
        return parts[0] if parts else []
    merged: list[int] = []
    rest = heapq.merge(*parts, key=key, reverse=reverse)
    while piece := list(islice(rest, CHUNK)):
        merged += piece
        yield
    return merged
