"""Insertion of new messages into an order, without the values of all others: a binary search for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mailserver.store.order.sorting import ARRIVAL, DATE, FIELDS, SIZE, Program, needs
from mailserver.store.order.steps import Work
from mailserver.store.order.values import Source
from mailserver.types import UID

MOST: Final = 64
"""New messages up to which this is cheaper than sorting all: each reads the values of some 17 of 100,000."""


def insert_messages(
    source: Source,
    uids: Sequence[UID],
    order: list[int],
    program: Program,
    *,
    arrivals: Sequence[int],
    sizes: Sequence[int],
) -> Work[list[int]]:
    """Insert the messages behind the first ones, which are in `order`; the other arguments as for `sort_messages`."""
    names = tuple(FIELDS[each.key] for each in program if each.key in FIELDS)
    known: dict[int, tuple[Any, ...]] = {}

    def values(at: int) -> tuple[Any, ...]:
        found = known.get(at)
        if found is None:
            rows = source.sort_keys([uids[at]], names)
            fields = dict(zip(names, rows[0][1:], strict=True)) if rows else {}
            if needs(program, DATE) and fields.get("sent") is None:
                fields["sent"] = source.arrivals([uids[at]]).get(uids[at], 0)
            found = known[at] = tuple(
                arrivals[at]
                if each.key == ARRIVAL
                else sizes[at]
                if each.key == SIZE
                else fields.get(FIELDS[each.key], "")
                for each in program
            )
        return found

    for at in range(len(order), len(uids)):
        mine = values(at)
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            if _is_before(mine, values(order[middle]), program):
                high = middle
            else:
                low = middle + 1
            yield
        order.insert(low, at)
    return order


def _is_before(mine: tuple[Any, ...], other: tuple[Any, ...], program: Program) -> bool:
    """Does a new message stand before one that is there? Behind it if they are equal."""
    for left, right, criterion in zip(mine, other, program, strict=True):
        if left != right:
            return bool((left < right) != criterion.reverse)
    return False
