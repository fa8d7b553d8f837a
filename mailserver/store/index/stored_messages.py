# ruff: noqa: S608 - what is put into the statements are names and marks from this package, never data
"""Reading the messages and expunged tables: set operations over one mailbox, never a statement for each message from outside.

Unknown sizes and dates are NULL on disk and None in an `Entry`; rows have UNKNOWN_SIZE and UNKNOWN_DATE.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any

import apsw

from mailserver.store.flags import DELETED, NARROW, SEEN
from mailserver.store.further_flags import widened
from mailserver.store.index.message_blocks import MessageBlock, MessageBlocks
from mailserver.store.index.records import Entry, MessageRecord
from mailserver.store.index.statements import LOW, select, whole
from mailserver.store.index.sums import Sum, Sums, measured
from mailserver.store.rows import LARGEST_SIZE, FlagColumn, Row
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq

_ENTRY = f"id & {LOW}, modseq, flags, size, date, base, suffix, place"
_ROW = f"id & {LOW}, flags, modseq, ifnull(size, {UNKNOWN_SIZE}), ifnull(date, {UNKNOWN_DATE})"
_NAME = f"id & {LOW}, place, CAST(base || suffix AS BLOB)"
_FILE = f"id & {LOW}, place, CAST(base || suffix AS BLOB), size"
_COLUMNS = f"id & {LOW}, flags, modseq, ifnull(min(size, {LARGEST_SIZE}), {UNKNOWN_SIZE}), ifnull(date, {UNKNOWN_DATE})"
_MANY = 500
_PART = 2000
"""Messages read by one call into C, which keeps other threads waiting."""

_Record = tuple[Any, ...]
"""A row of a result; the UID comes first."""
_uid_of = itemgetter(0)


class StoredMessages:
    """The reading half of `Messages`: reads see the last commit. `key` is a mailbox's.

    Messages in blocks appear like those with rows. Blocks are read first (see `message_blocks`).
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.sums = Sums(connection)
        self._blocks = MessageBlocks(connection, self.sums)

    def columns(self, key: int) -> tuple[array[int], array[int], array[int], array[int], array[int]]:
        """Return UIDs, flags, modseqs, sizes and dates of every message, by rising UID.

        They are as `Snapshot` has them, but for flags, which are as the index has them (`whole_flags`).
        """
        in_blocks = _all(self._blocks.of(key), MessageBlock.rows)
        columns = array("I"), array("I"), array("Q"), array("I"), array("q")
        found: Iterator[Any] = self._connection.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE id BETWEEN ? AND ? ORDER BY id", whole(key)
        )
        rows = iter(_merged(in_blocks, found)) if in_blocks else found
        while part := list(islice(rows, _PART)):
            for column, values in zip(columns, zip(*part, strict=True), strict=True):
                column.extend(values)
        return columns

    def whole_flags(self, key: int, uids: array[int], flags: array[int]) -> FlagColumn:
        """Return the masks for the flags of all messages (rising), as `columns` returns them."""
        if _is_narrow(flags):
            return flags
        in_blocks = _all(self._blocks.of(key), MessageBlock.suffixes_of)
        query = f"SELECT id & {LOW}, suffix FROM messages WHERE id BETWEEN ? AND ? AND flags > {NARROW}"
        suffixes = dict(chain(in_blocks, self._connection.execute(query, whole(key))))
        known: dict[int, int] = {}
        masks = [widened(mask, suffixes.get(uid, b"")) for uid, mask in zip(uids, flags, strict=True)]
        return [known.setdefault(mask, mask) for mask in masks]

    def rows_of(self, key: int, uids: Sequence[int]) -> list[Row]:
        """Return the rows of the messages (rising) that exist, by rising UID."""
        return self._rows(key, self._found(_ROW, key, uids, MessageBlock.rows))

    def entries_of(self, key: int, uids: Sequence[int]) -> list[Entry]:
        """Return the entries of the messages (rising) that exist, by rising UID."""
        return [_entry(row) for row in self._found(_ENTRY, key, uids, MessageBlock.entries)]

    def records_of(self, key: int, uids: Sequence[int]) -> list[MessageRecord]:
        """Return the messages (rising) that exist as tuples of the fields of an `Entry`, names as octets, by rising UID."""
        found = self._found(_ENTRY, key, uids, MessageBlock.entries)
        if any(record[2] > NARROW for record in found):
            return [(*record[:2], widened(record[2], record[6]), *record[3:]) for record in found]
        return found

    def names_of(self, key: int, uids: Sequence[int]) -> list[tuple[UID, int, bytes]]:
        """Return (uid, place, file name) of the messages (rising) that exist, by rising UID."""
        return self._found(_NAME, key, uids, MessageBlock.names)

    def files_of(self, key: int, uids: Sequence[int]) -> list[tuple[UID, int, bytes, int | None]]:
        """Return (uid, place, file name, size) of the messages (rising) that exist, by rising UID."""
        return self._found(_FILE, key, uids, MessageBlock.files)

    def entries(self, key: int) -> list[Entry]:
        """Return every message with its file's place, by rising UID."""
        in_blocks = _all(self._blocks.of(key), MessageBlock.entries)
        query = f"SELECT {_ENTRY} FROM messages WHERE id BETWEEN ? AND ? ORDER BY id"
        return [_entry(row) for row in _merged(in_blocks, self._connection.execute(query, whole(key)))]

    def entries_in_new(self, key: int) -> list[Entry]:
        """Return the messages whose file is in new/."""
        in_blocks = [entry for entry in _all(self._blocks.in_new(key), MessageBlock.entries) if not entry[-1]]
        query = f"SELECT {_ENTRY} FROM messages WHERE mailbox = ? AND place = 0 ORDER BY id"
        return [_entry(row) for row in _merged(in_blocks, self._connection.execute(query, (key,)))]

    def file_names(self, key: int, place: int) -> set[str]:
        """Return the names of the files in new/ (0) or cur/ (1)."""
        in_blocks = _all(self._blocks.of(key) if place else self._blocks.in_new(key), MessageBlock.files)
        if place:
            query = f"SELECT {_FILE} FROM messages WHERE id BETWEEN ? AND ? AND place = 1"
            rows = self._connection.execute(query, whole(key))
        else:
            query = f"SELECT {_FILE} FROM messages WHERE mailbox = ? AND place = 0"
            rows = self._connection.execute(query, (key,))
        return {file[2].decode("utf-8", "surrogateescape") for file in _merged(in_blocks, rows) if file[1] == place}

    def by_base(self, key: int, base: str) -> Entry | None:
        """Return the message with that base."""
        encoded = base.encode("utf-8", "surrogateescape")
        blocks = self._blocks.around(key, encoded)
        query = f"SELECT {_ENTRY} FROM messages WHERE mailbox = ? AND base = ?"
        row = self._connection.execute(query, (key, encoded)).fetchone()
        if row is not None:
            return _entry(row)
        return next((_entry(each) for block in blocks for each in block.entries(block.with_base(encoded))), None)

    def changed_since(self, key: int, modseq: ModSeq) -> list[Row]:
        """Return messages that are new or changed after `modseq`, by rising UID."""
        in_blocks = _all(self._blocks.since(key, modseq), MessageBlock.rows)
        query = f"SELECT {_ROW} FROM messages WHERE mailbox = ? AND modseq > ? ORDER BY id"
        return self._rows(key, _merged(in_blocks, self._connection.execute(query, (key, modseq))))

    def has_changes(self, key: int, modseq: ModSeq, count: int) -> bool:
        """Tell whether more than `count` messages, or more than `count` expunges, are newer than `modseq`."""
        newer = self._blocks.count_since(key, modseq)
        return newer > count or any(
            self._connection.execute(
                f"SELECT 1 FROM {table} WHERE mailbox = ? AND modseq > ? LIMIT 1 OFFSET ?", (key, modseq, most)
            ).fetchone()
            for table, most in (("messages", count - newer), ("expunged", count))
        )

    def expunged_since(self, key: int, modseq: ModSeq) -> list[UID]:
        """Return the UIDs expunged after `modseq`, rising."""
        query = "SELECT uid FROM expunged WHERE mailbox = ? AND modseq > ? ORDER BY uid"
        return [row[0] for row in self._connection.execute(query, (key, modseq))]

    def uids(self, key: int) -> array[int]:
        """Return every UID, rising."""
        in_blocks = [uid for block in self._blocks.of(key) for uid in block.uids]
        query = f"SELECT id & {LOW} FROM messages WHERE id BETWEEN ? AND ? ORDER BY id"
        uids = array("I", (row[0] for row in self._connection.execute(query, whole(key))))
        return array("I", sorted({*in_blocks, *uids})) if in_blocks else uids

    def present(self, key: int, uids: Sequence[int]) -> list[UID]:
        """Return the messages (rising) that exist, rising."""
        in_blocks = self._among(key, uids, MessageBlock.rows)
        if len(uids) > _MANY and not in_blocks:
            # If no UID between them is missing, a count shows it for a fifth of the cost.
            low, high = uids[0], uids[-1]
            query = "SELECT count(*) FROM messages WHERE id BETWEEN ? AND ?"
            if (
                high - low < 4 * len(uids)
                and self._number(query, (key << 32 | low, key << 32 | high)) == high - low + 1
            ):
                return [UID(uid) for uid in uids]
        return [row[0] for row in _merged(in_blocks, self._select(f"id & {LOW}", key, uids))]

    def counts(self, key: int) -> tuple[int, int, int]:
        """Return the numbers of messages, of unseen and of deleted ones."""
        # In one statement: a message that gets a row meanwhile is counted once.
        query = (
            "SELECT sum(messages), sum(unseen), sum(deleted) FROM (SELECT count(*) AS messages,"
            f" ifnull(sum(flags & {SEEN} = 0), 0) AS unseen, ifnull(sum(flags & {DELETED} != 0), 0) AS deleted"
            " FROM messages WHERE id BETWEEN ?1 AND ?2 UNION ALL"
            " SELECT messages, unseen, deleted FROM bundles WHERE id BETWEEN ?1 AND ?2)"
        )
        row: Any = self._connection.execute(query, whole(key)).fetchone()
        return row[0], row[1], row[2]

    def deleted_octets(self, key: int) -> int:
        """Sum the known sizes of the messages with the flag \\Deleted. Linear."""
        in_blocks = sum(
            size
            for block in self._blocks.with_deleted(key)
            for size, mask in zip(block.sizes(), block.flags, strict=True)
            if mask & DELETED and size != UNKNOWN_SIZE
        )
        query = f"SELECT ifnull(sum(size), 0) FROM messages WHERE id BETWEEN ? AND ? AND flags & {DELETED}"
        return in_blocks + self._number(query, whole(key))

    def count_sizes(self, key: int) -> Sum:
        """Count the messages, their octets, and those of unknown size. Linear; `sums` has the result.

        Outside of a transaction a message that gets a row meanwhile may count twice.
        """
        sizes = array("I", chain.from_iterable(block.sizes() for block in self._blocks.of(key)))
        row: Any = self._connection.execute(
            "SELECT count(*), ifnull(sum(size), 0), count(*) - count(size) FROM messages WHERE id BETWEEN ? AND ?",
            whole(key),
        ).fetchone()
        octets, unmeasured = measured(sizes)
        return Sum(row[0] + len(sizes), row[1] + octets, row[2] + unmeasured)

    def unmeasured(self, key: int, first: int, most: int) -> list[UID]:
        """Return the first messages of unknown size from that UID on, rising; all if `most` is negative."""
        in_blocks = (
            (uid,)
            for block in self._blocks.touching(key, range(first, LOW + 1))
            for uid, size in zip(block.uids, block.sizes(), strict=True)
            if uid >= first and size == UNKNOWN_SIZE
        )
        query = f"SELECT id & {LOW} FROM messages WHERE id BETWEEN ? AND ? AND size IS NULL ORDER BY id LIMIT ?"
        rows = self._connection.execute(query, (key << 32 | first, key << 32 | LOW, most))
        found = _merged(list(islice(in_blocks, most if most >= 0 else None)), rows)
        return [row[0] for row in (found[:most] if most >= 0 else found)]

    def counts_of(self, keys: Sequence[int]) -> dict[int, tuple[int, int, int]]:
        """Return `counts` of several mailboxes (at most some hundred) by key."""
        ranges = ",".join(["(?, ?, ?)"] * len(keys))
        query = (
            f"WITH wanted (key, low, high) AS (VALUES {ranges}) SELECT key, sum(messages), sum(unseen), sum(deleted) FROM ("
            f"SELECT key, count(id) AS messages, ifnull(sum(flags & {SEEN} = 0), 0) AS unseen,"
            f" ifnull(sum(flags & {DELETED} != 0), 0) AS deleted"
            " FROM wanted LEFT JOIN messages ON id BETWEEN low AND high GROUP BY key UNION ALL"
            " SELECT key, messages, unseen, deleted FROM wanted JOIN bundles ON id BETWEEN low AND high) GROUP BY key"
        )
        rows: Any = self._connection.execute(query, [value for key in keys for value in (key, *whole(key))])
        return {key: (messages, unseen, deleted) for key, messages, unseen, deleted in rows}

    def count_from(self, key: int, uid: int) -> int:
        """Count the messages with that UID or a higher one."""
        first, last = whole(key)
        in_blocks = {
            each for block in self._blocks.touching(key, range(uid, LOW + 1)) for each in block.uids if each >= uid
        }
        if not in_blocks:
            return self._number("SELECT count(*) FROM messages WHERE id BETWEEN ? AND ?", (first + uid, last))
        query = f"SELECT id & {LOW} FROM messages WHERE id BETWEEN ? AND ?"
        return len(in_blocks.union(row[0] for row in self._connection.execute(query, (first + uid, last))))

    def _rows(self, key: int, found: list[_Record]) -> list[Row]:
        """Make rows of records with the flags of the index."""
        wide = [record[0] for record in found if record[1] > NARROW]
        if not wide:
            return [Row(*record) for record in found]
        suffixes: dict[int, bytes] = dict(self._found(f"id & {LOW}, suffix", key, wide, MessageBlock.suffixes_of))
        return [Row(record[0], widened(record[1], suffixes.get(record[0], b"")), *record[2:]) for record in found]

    def _found(
        self, columns: str, key: int, uids: Sequence[int], read: Callable[[MessageBlock, Iterable[int]], list[_Record]]
    ) -> list[_Record]:
        """Read those of the messages (rising) that exist, by rising UID."""
        if len(uids) == 1 and (rows := list(self._select(columns, key, uids))):
            # It has a row, so it is in no block.
            return rows
        return _merged(self._among(key, uids, read), self._select(columns, key, uids))

    def _among(
        self, key: int, uids: Sequence[int], read: Callable[[MessageBlock, Iterable[int]], list[_Record]]
    ) -> list[_Record]:
        """Read those of the messages (rising) that are in blocks."""
        if not uids:
            return []
        return [each for block in self._blocks.touching(key, uids) for each in read(block, block.among(uids))]

    def _select(self, columns: str, key: int, uids: Sequence[int]) -> Iterator[Any]:
        return select(self._connection, columns, "messages", key, uids)

    def _number(self, query: str, values: tuple[int, ...]) -> int:
        row: Any = self._connection.execute(query, values).fetchone()
        return int(row[0])


def _all(blocks: Iterable[MessageBlock], read: Callable[[MessageBlock, Iterable[int]], list[_Record]]) -> list[_Record]:
    """Read all messages in the blocks."""
    return [each for block in blocks for each in read(block, range(len(block.uids)))]


def _merged(in_blocks: list[_Record], rows: Iterable[_Record]) -> list[_Record]:
    """Merge by rising UID. A row replaces the same message of a block."""
    if not in_blocks:
        return list(rows)
    found = dict(zip(map(_uid_of, in_blocks), in_blocks, strict=True))
    count = len(found)
    found.update((row[0], row) for row in rows)
    return list(found.values()) if len(found) == count else sorted(found.values(), key=_uid_of)


def _is_narrow(flags: array[int]) -> bool:
    """Tell whether none has further keywords: the highest octet of each is below 128."""
    size = flags.itemsize
    return flags.tobytes()[size - 1 if sys.byteorder == "little" else 0 :: size].isascii()


def _entry(row: Any) -> Entry:
    uid, modseq, flags, size, date, base, suffix, place = row
    return Entry(
        uid,
        modseq,
        widened(flags, suffix),
        size,
        date,
        base.decode("utf-8", "surrogateescape"),
        suffix.decode("utf-8", "surrogateescape"),
        place,
    )
