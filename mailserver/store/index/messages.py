# ruff: noqa: S608 - what is put into the statements are names and marks from this package, never data
"""The messages and expunged tables: set operations over one mailbox, never one statement a message from outside.

Sizes and dates that are not known are NULL on disk and None in an `Entry`; rows tell them as UNKNOWN_SIZE and
UNKNOWN_DATE.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any

import apsw

from mailserver.store.flags import DELETED, SEEN
from mailserver.store.index.message_blocks import MessageBlock, MessageBlocks
from mailserver.store.index.records import Entry, Facts
from mailserver.store.index.statements import LOW, insert, select, spans_of, whole
from mailserver.store.rows import LARGEST_SIZE, Row
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq

_ENTRY = f"id & {LOW}, modseq, flags, size, date, base, suffix, place"
_ROW = f"id & {LOW}, flags, modseq, ifnull(size, {UNKNOWN_SIZE}), ifnull(date, {UNKNOWN_DATE})"
_FILE = f"id & {LOW}, place, CAST(base || suffix AS BLOB), size"
_COLUMNS = f"id & {LOW}, flags, modseq, ifnull(min(size, {LARGEST_SIZE}), {UNKNOWN_SIZE}), ifnull(date, {UNKNOWN_DATE})"
_ADD = "INSERT OR REPLACE INTO messages (id, mailbox, modseq, flags, size, date, base, suffix, place) VALUES "
_MANY = 500
_FEW = 50
_PART = 2000
"""Messages that are taken up by one call into C, which keeps other threads waiting."""

_Record = tuple[Any, ...]
"""What a statement tells of a message: its UID comes first."""
_uid_of = itemgetter(0)


class Messages:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's.

    What is in bundles is told like what has rows; see `bundles` for why they are asked first.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._bundles = MessageBlocks(connection)

    # --- reading

    def columns(self, key: int) -> tuple[array[int], array[int], array[int], array[int], array[int]]:
        """UIDs, flags, modseqs, sizes and dates of every message, by rising UID; as `Snapshot` has them."""
        bundled = _all(self._bundles.of(key), MessageBlock.rows)
        columns = array("I"), array("I"), array("Q"), array("I"), array("q")
        found: Iterator[Any] = self._connection.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE id BETWEEN ? AND ? ORDER BY id", whole(key)
        )
        rows = iter(_merged(bundled, found)) if bundled else found
        while part := list(islice(rows, _PART)):
            for column, values in zip(columns, zip(*part, strict=True), strict=True):
                column.extend(values)
        return columns

    def rows_of(self, key: int, uids: Sequence[int]) -> list[Row]:
        """Those of the messages (rising) that are there, by rising UID."""
        bundled = self._among(key, uids, MessageBlock.rows)
        return [Row(*row) for row in _merged(bundled, self._select(_ROW, key, uids))]

    def entries_of(self, key: int, uids: Sequence[int]) -> list[Entry]:
        """Those of the messages (rising) that are there, by rising UID."""
        bundled = self._among(key, uids, MessageBlock.entries)
        return [_entry(row) for row in _merged(bundled, self._select(_ENTRY, key, uids))]

    def files_of(self, key: int, uids: Sequence[int]) -> list[tuple[UID, int, bytes, int | None]]:
        """(uid, place, file name, size) of those of the messages (rising) that are there, by rising UID."""
        bundled = self._among(key, uids, MessageBlock.files)
        return _merged(bundled, self._select(_FILE, key, uids))

    def entries(self, key: int) -> list[Entry]:
        """Every message with where its file is, by rising UID."""
        bundled = _all(self._bundles.of(key), MessageBlock.entries)
        query = f"SELECT {_ENTRY} FROM messages WHERE id BETWEEN ? AND ? ORDER BY id"
        return [_entry(row) for row in _merged(bundled, self._connection.execute(query, whole(key)))]

    def entries_in_new(self, key: int) -> list[Entry]:
        """Those whose file is in new/."""
        bundled = [entry for entry in _all(self._bundles.in_new(key), MessageBlock.entries) if not entry[-1]]
        query = f"SELECT {_ENTRY} FROM messages WHERE mailbox = ? AND place = 0 ORDER BY id"
        return [_entry(row) for row in _merged(bundled, self._connection.execute(query, (key,)))]

    def file_names(self, key: int, place: int) -> set[str]:
        """Names of the files in new/ (0) or cur/ (1)."""
        bundled = _all(self._bundles.of(key) if place else self._bundles.in_new(key), MessageBlock.files)
        if place:
            query = f"SELECT {_FILE} FROM messages WHERE id BETWEEN ? AND ? AND place = 1"
            rows = self._connection.execute(query, whole(key))
        else:
            query = f"SELECT {_FILE} FROM messages WHERE mailbox = ? AND place = 0"
            rows = self._connection.execute(query, (key,))
        return {file[2].decode("utf-8", "surrogateescape") for file in _merged(bundled, rows) if file[1] == place}

    def by_base(self, key: int, base: str) -> Entry | None:
        """The message with that base."""
        encoded = base.encode("utf-8", "surrogateescape")
        bundles = self._bundles.around(key, encoded)
        query = f"SELECT {_ENTRY} FROM messages WHERE mailbox = ? AND base = ?"
        row = self._connection.execute(query, (key, encoded)).fetchone()
        if row is not None:
            return _entry(row)
        return next((_entry(each) for bundle in bundles for each in bundle.entries(bundle.with_base(encoded))), None)

    def changed_since(self, key: int, modseq: ModSeq) -> list[Row]:
        """Messages that are new or changed after `modseq`, by rising UID."""
        bundled = _all(self._bundles.since(key, modseq), MessageBlock.rows)
        query = f"SELECT {_ROW} FROM messages WHERE mailbox = ? AND modseq > ? ORDER BY id"
        return [Row(*row) for row in _merged(bundled, self._connection.execute(query, (key, modseq)))]

    def has_changes(self, key: int, modseq: ModSeq, count: int) -> bool:
        """Whether more messages than that, or more expunges, are newer than `modseq`."""
        newer = self._bundles.count_since(key, modseq)
        return newer > count or any(
            self._connection.execute(
                f"SELECT 1 FROM {table} WHERE mailbox = ? AND modseq > ? LIMIT 1 OFFSET ?", (key, modseq, most)
            ).fetchone()
            for table, most in (("messages", count - newer), ("expunged", count))
        )

    def expunged_since(self, key: int, modseq: ModSeq) -> list[UID]:
        """UIDs expunged after `modseq`, rising."""
        query = "SELECT uid FROM expunged WHERE mailbox = ? AND modseq > ? ORDER BY uid"
        return [row[0] for row in self._connection.execute(query, (key, modseq))]

    def uids(self, key: int) -> array[int]:
        """Every UID, rising."""
        bundled = [uid for bundle in self._bundles.of(key) for uid in bundle.uids]
        query = f"SELECT id & {LOW} FROM messages WHERE id BETWEEN ? AND ? ORDER BY id"
        uids = array("I", (row[0] for row in self._connection.execute(query, whole(key))))
        return array("I", sorted({*bundled, *uids})) if bundled else uids

    def present(self, key: int, uids: Sequence[int]) -> list[UID]:
        """Those of the messages (rising) that are there, rising."""
        bundled = self._among(key, uids, MessageBlock.rows)
        if len(uids) > _MANY and not bundled:
            # Where no UID between them is missing, a count says it for a fifth of the cost.
            low, high = uids[0], uids[-1]
            query = "SELECT count(*) FROM messages WHERE id BETWEEN ? AND ?"
            if (
                high - low < 4 * len(uids)
                and self._number(query, (key << 32 | low, key << 32 | high)) == high - low + 1
            ):
                return [UID(uid) for uid in uids]
        return [row[0] for row in _merged(bundled, self._select(f"id & {LOW}", key, uids))]

    def counts(self, key: int) -> tuple[int, int, int]:
        """Number of messages, of unseen and of deleted ones."""
        # In one statement: what gets a row meanwhile is counted once.
        query = (
            "SELECT sum(messages), sum(unseen), sum(deleted) FROM (SELECT count(*) AS messages,"
            f" ifnull(sum(flags & {SEEN} = 0), 0) AS unseen, ifnull(sum(flags & {DELETED} != 0), 0) AS deleted"
            " FROM messages WHERE id BETWEEN ?1 AND ?2 UNION ALL"
            " SELECT messages, unseen, deleted FROM bundles WHERE id BETWEEN ?1 AND ?2)"
        )
        row: Any = self._connection.execute(query, whole(key)).fetchone()
        return row[0], row[1], row[2]

    def count_from(self, key: int, uid: int) -> int:
        """Number of messages with that UID or a higher one."""
        first, last = whole(key)
        bundled = {
            each for bundle in self._bundles.touching(key, range(uid, LOW + 1)) for each in bundle.uids if each >= uid
        }
        if not bundled:
            return self._number("SELECT count(*) FROM messages WHERE id BETWEEN ? AND ?", (first + uid, last))
        query = f"SELECT id & {LOW} FROM messages WHERE id BETWEEN ? AND ?"
        return len(bundled.union(row[0] for row in self._connection.execute(query, (first + uid, last))))

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

    def add_blocks(self, key: int, bundles: Iterable[MessageBlock]) -> None:
        """New messages, above all others, whose sizes and dates are not known."""
        self._bundles.add(key, bundles)

    def change(self, key: int, entries: Sequence[Entry]) -> None:
        """Flags, modseq and place of messages as they are in the entries; base, size and date stay."""
        self._open(key, [entry.uid for entry in entries])
        if len(entries) > _FEW:
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
        self._open(key, [uid for uid, _size, _date in facts])
        self._connection.executemany(
            f"UPDATE messages SET size = ifnull(nullif(?2, {UNKNOWN_SIZE}), size), date = ifnull(date, ?3) WHERE id = ?1",
            ((key << 32 | uid, size, date) for uid, size, date in facts),
        )
        self._connection.execute("DELETE FROM packed_columns WHERE mailbox = ?", (key,))

    def expunge(self, key: int, uids: Sequence[int], modseq: ModSeq) -> None:
        """Forget messages and remember that they are gone."""
        self._open(key, uids)
        spans = [(key << 32 | low, key << 32 | high) for low, high in spans_of(sorted(uids))]
        self._connection.executemany(
            f"INSERT OR IGNORE INTO expunged SELECT ?3, ?4, id & {LOW} FROM messages WHERE id BETWEEN ?1 AND ?2",
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

    def _open(self, key: int, uids: Sequence[int]) -> None:
        """Let those messages have rows."""
        if uids:
            self._bundles.open(key, sorted(uids))

    def _among(
        self, key: int, uids: Sequence[int], read: Callable[[MessageBlock, Iterable[int]], list[_Record]]
    ) -> list[_Record]:
        """What is read of those of the messages (rising) that are in bundles."""
        if not uids:
            return []
        return [each for bundle in self._bundles.touching(key, uids) for each in read(bundle, bundle.among(uids))]

    def _select(self, columns: str, key: int, uids: Sequence[int]) -> Iterator[Any]:
        return select(self._connection, columns, "messages", key, uids)

    def _number(self, query: str, values: tuple[int, ...]) -> int:
        row: Any = self._connection.execute(query, values).fetchone()
        return int(row[0])


def _all(
    bundles: Iterable[MessageBlock], read: Callable[[MessageBlock, Iterable[int]], list[_Record]]
) -> list[_Record]:
    """What is read of all that is in the bundles."""
    return [each for bundle in bundles for each in read(bundle, range(len(bundle.uids)))]


def _merged(bundled: list[_Record], rows: Iterable[_Record]) -> list[_Record]:
    """By rising UID; of what is found twice the row."""
    if not bundled:
        return list(rows)
    found = dict(zip(map(_uid_of, bundled), bundled, strict=True))
    count = len(found)
    found.update((row[0], row) for row in rows)
    return list(found.values()) if len(found) == count else sorted(found.values(), key=_uid_of)


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
