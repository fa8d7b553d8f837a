# ruff: noqa: S608 - what is put into the statements are names and marks from this module, never data
"""The messages and expunged tables: set operations over one mailbox, never one statement a message from outside.

Sizes and dates that are not known are NULL on disk and None in an `Entry`; rows tell them as UNKNOWN_SIZE and
UNKNOWN_DATE.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import apsw

from mailserver.store.flags import DELETED, SEEN
from mailserver.store.index.records import Entry, Facts
from mailserver.store.rows import LARGEST_SIZE, Row
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq

_LOW = 0xFFFFFFFF
_ENTRY = f"id & {_LOW}, modseq, flags, size, date, base, suffix, place"
_ROW = f"id & {_LOW}, flags, modseq, ifnull(size, {UNKNOWN_SIZE}), ifnull(date, {UNKNOWN_DATE})"
_FILE = f"id & {_LOW}, place, CAST(base || suffix AS BLOB), size"
_COLUMNS = (
    f"id & {_LOW}, flags, modseq, ifnull(min(size, {LARGEST_SIZE}), {UNKNOWN_SIZE}), ifnull(date, {UNKNOWN_DATE})"
)
_ADD = "INSERT OR REPLACE INTO messages (id, mailbox, modseq, flags, size, date, base, suffix, place) VALUES "
_BATCH = 500
_JOINED = 50
_PART = 2000
"""Messages that are taken up by one call into C, which keeps other threads waiting."""


class Messages:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    # --- reading

    def columns(self, key: int) -> tuple[array[int], array[int], array[int], array[int], array[int]]:
        """UIDs, flags, modseqs, sizes and dates of every message, by rising UID; as `Snapshot` has them."""
        columns = array("I"), array("I"), array("Q"), array("I"), array("q")
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE id BETWEEN ? AND ? ORDER BY id", _range(key)
        )
        while part := list(islice(rows, _PART)):
            for column, values in zip(columns, zip(*part, strict=True), strict=True):
                column.extend(values)
        return columns

    def rows_of(self, key: int, uids: Sequence[int]) -> list[Row]:
        """Those of the messages (rising) that are there, by rising UID."""
        return [Row(*row) for row in self._select(_ROW, "messages", key, uids)]

    def entries_of(self, key: int, uids: Sequence[int]) -> list[Entry]:
        """Those of the messages (rising) that are there, by rising UID."""
        return [_entry(row) for row in self._select(_ENTRY, "messages", key, uids)]

    def files_of(self, key: int, uids: Sequence[int]) -> list[tuple[UID, int, bytes, int | None]]:
        """(uid, place, file name, size) of those of the messages (rising) that are there, by rising UID."""
        return list(self._select(_FILE, "messages", key, uids))

    def entries(self, key: int) -> list[Entry]:
        """Every message with where its file is, by rising UID."""
        query = f"SELECT {_ENTRY} FROM messages WHERE id BETWEEN ? AND ? ORDER BY id"
        return [_entry(row) for row in self._connection.execute(query, _range(key))]

    def entries_in_new(self, key: int) -> list[Entry]:
        """Those whose file is in new/."""
        query = f"SELECT {_ENTRY} FROM messages WHERE mailbox = ? AND place = 0 ORDER BY id"
        return [_entry(row) for row in self._connection.execute(query, (key,))]

    def file_names(self, key: int, place: int) -> set[str]:
        """Names of the files in new/ (0) or cur/ (1)."""
        rows: Any
        if place:
            query = "SELECT CAST(base || suffix AS BLOB) FROM messages WHERE id BETWEEN ? AND ? AND place = 1"
            rows = self._connection.execute(query, _range(key))
        else:
            query = "SELECT CAST(base || suffix AS BLOB) FROM messages WHERE mailbox = ? AND place = 0"
            rows = self._connection.execute(query, (key,))
        return {row[0].decode("utf-8", "surrogateescape") for row in rows}

    def by_base(self, key: int, base: str) -> Entry | None:
        """The message with that base."""
        query = f"SELECT {_ENTRY} FROM messages WHERE mailbox = ? AND base = ?"
        row = self._connection.execute(query, (key, base.encode("utf-8", "surrogateescape"))).fetchone()
        return None if row is None else _entry(row)

    def changed_since(self, key: int, modseq: ModSeq) -> list[Row]:
        """Messages that are new or changed after `modseq`, by rising UID."""
        query = f"SELECT {_ROW} FROM messages WHERE mailbox = ? AND modseq > ? ORDER BY id"
        return [Row(*row) for row in self._connection.execute(query, (key, modseq))]

    def has_changes(self, key: int, modseq: ModSeq, count: int) -> bool:
        """Whether more messages than that, or more expunges, are newer than `modseq`."""
        return any(
            self._connection.execute(
                f"SELECT 1 FROM {table} WHERE mailbox = ? AND modseq > ? LIMIT 1 OFFSET ?", (key, modseq, count)
            ).fetchone()
            for table in ("messages", "expunged")
        )

    def expunged_since(self, key: int, modseq: ModSeq) -> list[UID]:
        """UIDs expunged after `modseq`, rising."""
        query = "SELECT uid FROM expunged WHERE mailbox = ? AND modseq > ? ORDER BY uid"
        return [row[0] for row in self._connection.execute(query, (key, modseq))]

    def uids(self, key: int) -> array[int]:
        """Every UID, rising."""
        query = f"SELECT id & {_LOW} FROM messages WHERE id BETWEEN ? AND ? ORDER BY id"
        return array("I", (row[0] for row in self._connection.execute(query, _range(key))))

    def present(self, key: int, uids: Sequence[int]) -> list[UID]:
        """Those of the messages (rising) that are there, rising."""
        if len(uids) > _BATCH:
            # Where no UID between them is missing, a count says it for a fifth of the cost.
            low, high = uids[0], uids[-1]
            query = "SELECT count(*) FROM messages WHERE id BETWEEN ? AND ?"
            if (
                high - low < 4 * len(uids)
                and self._number(query, (key << 32 | low, key << 32 | high)) == high - low + 1
            ):
                return [UID(uid) for uid in uids]
        return [row[0] for row in self._select(f"id & {_LOW}", "messages", key, uids)]

    def unsized(self, key: int) -> list[UID]:
        """UIDs of the messages whose size or date is not known, rising."""
        query = (
            f"SELECT id & {_LOW} FROM messages WHERE id BETWEEN ? AND ? AND (size IS NULL OR date IS NULL) ORDER BY id"
        )
        return [row[0] for row in self._connection.execute(query, _range(key))]

    def total_size(self, key: int) -> int:
        """Sum of the sizes that are known."""
        query = "SELECT ifnull(sum(size), 0) FROM messages WHERE id BETWEEN ? AND ?"
        return self._number(query, _range(key))

    def counts(self, key: int) -> tuple[int, int, int]:
        """Number of messages, of unseen and of deleted ones."""
        query = (
            f"SELECT count(*), ifnull(sum(flags & {SEEN} = 0), 0), ifnull(sum(flags & {DELETED} != 0), 0)"
            " FROM messages WHERE id BETWEEN ? AND ?"
        )
        row: Any = self._connection.execute(query, _range(key)).fetchone()
        return row[0], row[1], row[2]

    def count_from(self, key: int, uid: int) -> int:
        """Number of messages with that UID or a higher one."""
        first, last = _range(key)
        return self._number("SELECT count(*) FROM messages WHERE id BETWEEN ? AND ?", (first + uid, last))

    # --- writing

    def add(self, key: int, entries: Iterable[Facts]) -> None:
        """New messages."""
        first = key << 32
        rows: Iterator[Any] = (
            (
                first | uid,
                key,
                modseq,
                flags,
                size,
                date,
                base.encode("utf-8", "surrogateescape"),
                suffix.encode("utf-8", "surrogateescape"),
                place,
            )
            for uid, modseq, flags, size, date, base, suffix, place in entries
        )
        insert(self._connection, _ADD, "(?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def add_first(self, key: int, modseq: ModSeq, messages: Iterable[tuple[int, int, bytes, bytes, int]]) -> None:
        """(uid, flags, base, suffix, place) of the messages of a mailbox that had none; sizes and dates are not known."""
        row = f"({key << 32} | ?, {key:d}, {modseq:d}, ?, ?, ?, ?)"
        start = "INSERT INTO messages (id, mailbox, modseq, flags, base, suffix, place) VALUES "
        insert(self._connection, start, row, messages)

    def change(self, key: int, entries: Sequence[Entry]) -> None:
        """Flags, modseq and place of messages as they are in the entries; base, size and date stay."""
        if len(entries) > _JOINED:
            # Most of many get the same flags: a few statements for all.
            alike: dict[tuple[int, int, str, int], list[int]] = {}
            for entry in entries:
                alike.setdefault((entry.modseq, entry.flags, entry.suffix, entry.place), []).append(entry.uid)
            self._connection.executemany(
                "UPDATE messages SET modseq = ?, flags = ?, suffix = ?, place = ? WHERE id BETWEEN ? AND ?",
                (
                    (modseq, flags, suffix.encode("utf-8", "surrogateescape"), place, key << 32 | low, key << 32 | high)
                    for (modseq, flags, suffix, place), uids in alike.items()
                    for low, high in spans_of(sorted(uids))
                ),
            )
            return
        self._connection.executemany(
            "UPDATE messages SET modseq = ?, flags = ?, suffix = ?, place = ? WHERE id = ?",
            (
                (
                    entry.modseq,
                    entry.flags,
                    entry.suffix.encode("utf-8", "surrogateescape"),
                    entry.place,
                    key << 32 | entry.uid,
                )
                for entry in entries
            ),
        )

    def learn(self, key: int, facts: Sequence[tuple[int, int, int]]) -> None:
        """(uid, size, date) that were read from the files; a size that is UNKNOWN_SIZE stays what it is, and a known date."""
        if not facts:
            return
        self._connection.executemany(
            f"UPDATE messages SET size = ifnull(nullif(?2, {UNKNOWN_SIZE}), size), date = ifnull(date, ?3) WHERE id = ?1",
            ((key << 32 | uid, size, date) for uid, size, date in facts),
        )
        self._connection.execute("DELETE FROM packed_columns WHERE mailbox = ?", (key,))

    def expunge(self, key: int, uids: Sequence[int], modseq: ModSeq) -> None:
        """Forget messages and remember that they are gone."""
        spans = [(key << 32 | low, key << 32 | high) for low, high in spans_of(sorted(uids))]
        self._connection.executemany(
            f"INSERT OR IGNORE INTO expunged SELECT ?3, ?4, id & {_LOW} FROM messages WHERE id BETWEEN ?1 AND ?2",
            [(*span, key, modseq) for span in spans],
        )
        self._connection.executemany("DELETE FROM messages WHERE id BETWEEN ? AND ?", spans)
        self._connection.executemany("DELETE FROM summaries WHERE id BETWEEN ? AND ?", spans)
        self._connection.executemany("DELETE FROM header_texts WHERE id BETWEEN ? AND ?", spans)

    def has_history_of(self, key: int, count: int) -> bool:
        """Whether more expunges than that are remembered."""
        query = "SELECT 1 FROM expunged WHERE mailbox = ? LIMIT 1 OFFSET ?"
        return self._connection.execute(query, (key, count)).fetchone() is not None

    def prune(self, key: int, keep: int) -> ModSeq | None:
        """Forget all but the newest expunges; the modseq from which on they are known, None when all are."""
        row: Any = self._connection.execute(
            "SELECT modseq FROM expunged WHERE mailbox = ? ORDER BY modseq DESC LIMIT 1 OFFSET ?", (key, keep)
        ).fetchone()
        if row is None:
            return None
        self._connection.execute("DELETE FROM expunged WHERE mailbox = ? AND modseq <= ?", (key, row[0]))
        return ModSeq(row[0])

    # --- small parts

    def _select(self, columns: str, table: str, key: int, uids: Sequence[int]) -> Iterator[Any]:
        return select(self._connection, columns, table, key, uids)

    def _number(self, query: str, values: tuple[int, ...]) -> int:
        row: Any = self._connection.execute(query, values).fetchone()
        return int(row[0])


def insert(connection: apsw.Connection, start: str, row: str, rows: Iterable[Sequence[Any]]) -> None:
    """Rows by statements that begin with `start` and have one `row` of marks for each: many need few statements.

    A statement for each row costs as much again as what it does, executemany() no less.
    """
    rows = iter(rows)
    while part := list(islice(rows, _JOINED)):
        connection.execute(start + ",".join([row] * len(part)), tuple(chain.from_iterable(part)))


def select(connection: apsw.Connection, columns: str, table: str, key: int, uids: Sequence[int]) -> Iterator[Any]:
    """Those rows of the table, by rising UID: one range where the UIDs are dense, else lists of some hundred."""
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
        query = f"SELECT {columns}, id & {_LOW} FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id"
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
    """(first, last) of each run of consecutive UIDs among these, which rise."""
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
    """First and last id of each run of (old, new) UIDs that rise by ones on both sides, and what the ids grow by.

    `source` and `target` are what the ids of the two mailboxes begin with.
    """
    spans: list[tuple[int, int, int]] = []
    for old, new in pairs:
        last, shift = source + old, target + new - source - old
        if spans and spans[-1][1] + 1 == last and spans[-1][2] == shift:
            spans[-1] = spans[-1][0], last, shift
        else:
            spans.append((last, last, shift))
    return spans


def _range(key: int) -> tuple[int, int]:
    return key << 32, key << 32 | _LOW


def _entry(row: Any) -> Entry:
    uid, modseq, flags, size, date, base, suffix, place = row
    return Entry(
        uid,
        modseq,
        flags,
        size,
        date,
        base.decode("utf-8", "surrogateescape"),
        suffix.decode("utf-8", "surrogateescape"),
        place,
    )
