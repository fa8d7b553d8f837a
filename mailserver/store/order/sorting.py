"""SORT (RFC 5256 3, RFC 5957): the order of messages by several criteria."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from mailserver.store.order.stable_sort import stable_sort
from mailserver.store.order.steps import Work
from mailserver.store.order.values import Source, read_columns, sent_dates
from mailserver.types import UID

ARRIVAL: Final = "ARRIVAL"
DATE: Final = "DATE"
SIZE: Final = "SIZE"
RELEVANCY: Final = "RELEVANCY"
"""RFC 6203 6."""

FIELDS: Final[Mapping[str, str]] = {
    DATE: "sent",
    "SUBJECT": "subject",
    "FROM": "sender",
    "TO": "recipient",
    "CC": "copied",
    "DISPLAYFROM": "display_sender",
    "DISPLAYTO": "display_recipient",
}
"""The field of SortKeys for each sort key; INTERNALDATE and size come from the mailbox's columns."""
KEYS: Final = frozenset({ARRIVAL, SIZE, RELEVANCY, *FIELDS})


@frozen
class Criterion:
    """One criterion of a sort program."""

    key: str
    """One of KEYS."""
    reverse: bool = False


Program = tuple[Criterion, ...]
"""The first criterion counts most. Messages that are equal in all stay in the mailbox's order."""


def sort_messages(
    source: Source,
    uids: Sequence[UID],
    program: Program,
    arrivals: Sequence[int],
    sizes: Sequence[int],
    *,
    relevancies: Sequence[int] = (),
) -> Work[list[int]]:
    """Sort messages whose UIDs rise. Return their positions in `uids`, in the order of the program.

    `arrivals` (INTERNALDATE), `sizes` and `relevancies`, of each message, are there if a criterion is of them. The message
    with the highest relevancy comes first.
    """
    criteria = without_repeats(program)
    names = list(dict.fromkeys(FIELDS[each.key] for each in criteria if each.key in FIELDS))
    read: list[list[Any]] = (yield from read_columns(source, uids, names)) if names else []
    columns: dict[str, Sequence[Any]] = dict(zip(names, read, strict=True))
    if "sent" in columns:
        columns["sent"] = yield from sent_dates(source, uids, columns["sent"])
    order = list(range(len(uids)))
    for each in reversed(criteria):
        if each.key == RELEVANCY:
            order = yield from stable_sort(order, relevancies, reverse=not each.reverse)
            continue
        column = arrivals if each.key == ARRIVAL else sizes if each.key == SIZE else columns[FIELDS[each.key]]
        order = yield from stable_sort(order, column, reverse=each.reverse)
    return order


def needs(program: Program, key: str) -> bool:
    """Is a criterion of that key?"""
    return any(each.key == key for each in program)


def without_repeats(program: Program) -> Program:
    """The criteria that can decide: of two with one key the second meets only messages that are equal in it."""
    found: dict[str, Criterion] = {}
    for each in program:
        found.setdefault(each.key, each)
    return tuple(found.values())
