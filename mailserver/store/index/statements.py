# ruff: noqa: S608 - what is put into the statements are names and marks from this package, never data
"""Statements over many rows of tables whose id is that of a message: `mailboxes.key << 32 | UID`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final

import apsw

LOW: Final = 0xFFFFFFFF
"""The bits of an id that are the UID."""
_BATCH: Final = 500
_JOINED: Final = 50


def whole(key: int) -> tuple[int, int]:
    """Return the lowest and the highest id of a mailbox."""
    return key << 32, key << 32 | LOW


def insert(connection: apsw.Connection, start: str, row: str, rows: Iterable[Sequence[Any]]) -> None:
    """Insert rows by statements that begin with `start` and have one `row` of parameters for each.

    Many rows need few statements: one for each costs as much again as the insertion, with executemany() too.
    """
    rows = iter(rows)
    while part := list(islice(rows, _JOINED)):
        connection.execute(start + ",".join([row] * len(part)), tuple(chain.from_iterable(part)))


def select(connection: apsw.Connection, columns: str, table: str, key: int, uids: Sequence[int]) -> Iterator[Any]:
    """Select these rows by rising UID: as one range if the UIDs are dense, else as lists of some hundred."""
    if not uids:
        return iter(())
    first = key << 32
    low, high = uids[0], uids[-1]
    if high - low + 1 == len(uids):
        query = f"SELECT {columns} FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id"
        return connection.execute(query, (first + low, first + high))
    return _select_some(connection, columns, table, first, uids)


def _select_some(
    connection: apsw.Connection, columns: str, table: str, first: int, uids: Sequence[int]
) -> Iterator[Any]:
    low, high = uids[0], uids[-1]
    if high - low < 2 * len(uids) + 16:
        wanted = set(uids)
        query = f"SELECT {columns}, id & {LOW} FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id"
        for row in connection.execute(query, (first + low, first + high)):
            if row[-1] in wanted:
                yield row[:-1]
        return
    for start in range(0, len(uids), _BATCH):
        batch = uids[start : start + _BATCH]
        marks = ",".join("?" * len(batch))
        query = f"SELECT {columns} FROM {table} WHERE id IN ({marks}) ORDER BY id"
        yield from connection.execute(query, [first + uid for uid in batch])


def spans_of(uids: Sequence[int]) -> list[tuple[int, int]]:
    """Return (first, last) of each run of consecutive UIDs among these, which rise."""
    if uids and uids[-1] - uids[0] == len(uids) - 1:
        return [(uids[0], uids[-1])]
    spans: list[tuple[int, int]] = []
    for uid in uids:
        if spans and spans[-1][1] + 1 == uid:
            spans[-1] = spans[-1][0], uid
        else:
            spans.append((uid, uid))
    return spans


def shifted_spans(source: int, target: int, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return first id, last id and shift of each run of (old, new) UIDs that rise by one on both sides.

    `source` and `target` are the lowest ids of the two mailboxes.
    """
    spans: list[tuple[int, int, int]] = []
    for old, new in pairs:
        last, shift = source + old, target + new - source - old
        if spans and spans[-1][1] + 1 == last and spans[-1][2] == shift:
            spans[-1] = spans[-1][0], last, shift
        else:
            spans.append((last, last, shift))
    return spans
