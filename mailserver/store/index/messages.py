# ruff: noqa: S608 - what is put into the statements are names and marks from this package, never data
"""The messages and expunged tables: set operations over one mailbox, never a statement for each message from outside.

Unknown sizes and dates are NULL on disk and None in an `Entry`; rows have UNKNOWN_SIZE and UNKNOWN_DATE.
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
from mailserver.store.index.records import Entry, EntryFields, FlagUpdate, MessageRecord
from mailserver.store.index.statements import LOW, insert, select, spans_of, whole
from mailserver.store.rows import LARGEST_SIZE, Row
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq

_ENTRY = f"id & {LOW}, modseq, flags, size, date, base, suffix, place"
_ROW = f"id & {LOW}, flags, modseq, ifnull(size, {UNKNOWN_SIZE}), ifnull(date, {UNKNOWN_DATE})"
_NAME = f"id & {LOW}, place, CAST(base || suffix AS BLOB)"
_FILE = f"id & {LOW}, place, CAST(base || suffix AS BLOB), size"
_COLUMNS = f"id & {LOW}, flags, modseq, ifnull(min(size, {LARGEST_SIZE}), {UNKNOWN_SIZE}), ifnull(date, {UNKNOWN_DATE})"
_ADD = "INSERT OR REPLACE INTO messages (id, mailbox, modseq, flags, size, date, base, suffix, place) VALUES "
_MANY = 500
_FEW = 50
_MOST_UPDATES = 8
"""Updates of flags above which each run of UIDs has a statement, as each update reads all messages between its UIDs."""
_PART = 2000
"""Messages read by one call into C, which keeps other threads waiting."""

_Record = tuple[Any, ...]
"""A row of a result; the UID comes first."""
_uid_of = itemgetter(0)


class Messages:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's.

    Messages in blocks appear like those with rows. Blocks are read first (see `message_blocks`).
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._blocks = MessageBlocks(connection)

    # --- reading

    def columns(self, key: int) -> tuple[array[int], array[int], array[int], array[int], array[int]]:
        """Return UIDs, flags, modseqs, sizes and dates of every message, by rising UID, as `Snapshot` has them."""
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

    def rows_of(self, key: int, uids: Sequence[int]) -> list[Row]:
        """Return the rows of the messages (rising) that exist, by rising UID."""
        in_blocks = self._among(key, uids, MessageBlock.rows)
        return [Row(*row) for row in _merged(in_blocks, self._select(_ROW, key, uids))]

    def entries_of(self, key: int, uids: Sequence[int]) -> list[Entry]:
        """Return the entries of the messages (rising) that exist, by rising UID."""
        in_blocks = self._among(key, uids, MessageBlock.entries)
        return [_entry(row) for row in _merged(in_blocks, self._select(_ENTRY, key, uids))]

    def records_of(self, key: int, uids: Sequence[int]) -> list[MessageRecord]:
        """Return the messages (rising) that exist as tuples of the fields of an `Entry`, names as octets, by rising UID."""
        return _merged(self._among(key, uids, MessageBlock.entries), self._select(_ENTRY, key, uids))

    def names_of(self, key: int, uids: Sequence[int]) -> list[tuple[UID, int, bytes]]:
        """Return (uid, place, file name) of the messages (rising) that exist, by rising UID."""
        in_blocks = self._among(key, uids, MessageBlock.names)
        return _merged(in_blocks, self._select(_NAME, key, uids))

    def files_of(self, key: int, uids: Sequence[int]) -> list[tuple[UID, int, bytes, int | None]]:
        """Return (uid, place, file name, size) of the messages (rising) that exist, by rising UID."""
        in_blocks = self._among(key, uids, MessageBlock.files)
        return _merged(in_blocks, self._select(_FILE, key, uids))

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
        return [Row(*row) for row in _merged(in_blocks, self._connection.execute(query, (key, modseq)))]

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

    # --- writing

    def add(self, key: int, entries: Iterable[EntryFields]) -> None:
        """Add new messages."""
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

    def add_blocks(self, key: int, blocks: Iterable[MessageBlock]) -> None:
        """Add new messages above all others, with sizes that their names claim and unknown dates."""
        self._blocks.add(key, blocks)

    def change(self, key: int, entries: Sequence[Entry]) -> None:
        """Set flags, modseq, suffix and place of messages to those of the entries; base, size and date stay."""
        self._open(key, [entry.uid for entry in entries])
        if len(entries) > _FEW:
            # Most messages get the same flags: a few statements for all.
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

    def change_flags(
        self, key: int, modseq: ModSeq, uids: Sequence[int], updates: Sequence[FlagUpdate], *, examined: int
    ) -> None:
        """Change flags, and names with them, of messages whose files are now in cur/.

        `uids`: those of all updates, rising. `examined`: the number of messages between the first and the last of them
        that do not change, or are described by an update; 0 if there are others. If no more exist, each update is one
        statement over that range, which finds its messages by their old state.
        """
        if not uids:
            return
        self._open(key, uids)
        first = key << 32
        span = first | uids[0], first | uids[-1]
        if (
            len(uids) > _FEW
            and len(updates) <= _MOST_UPDATES
            and self._number("SELECT count(*) FROM messages WHERE id BETWEEN ? AND ?", span) == examined
        ):
            self._connection.executemany(
                "UPDATE messages SET modseq = ?, flags = ?, suffix = ?, place = 1"
                " WHERE id BETWEEN ? AND ? AND flags = ? AND suffix = ? AND place = ?",
                [(modseq, each.flags, each.suffix, *span, *each.before) for each in updates],
            )
            return
        self._connection.executemany(
            "UPDATE messages SET modseq = ?, flags = ?, suffix = ?, place = 1 WHERE id BETWEEN ? AND ?",
            (
                (modseq, each.flags, each.suffix, first | low, first | high)
                for each in updates
                for low, high in spans_of(each.uids)
            ),
        )

    def learn(self, key: int, facts: Sequence[tuple[int, int, int]]) -> None:
        """Set sizes and dates (uid, size, date) that were read from files. UNKNOWN_SIZE and known dates change nothing."""
        if not facts:
            return
        self._open(key, [uid for uid, _size, _date in facts])
        self._connection.executemany(
            f"UPDATE messages SET size = ifnull(nullif(?2, {UNKNOWN_SIZE}), size), date = ifnull(date, ?3) WHERE id = ?1",
            ((key << 32 | uid, size, date) for uid, size, date in facts),
        )
        self._connection.execute("DELETE FROM packed_columns WHERE mailbox = ?", (key,))

    def expunge(self, key: int, uids: Sequence[int], modseq: ModSeq) -> None:
        """Remove messages and add them to the expunge history."""
        self._open(key, uids)
        spans = [(key << 32 | low, key << 32 | high) for low, high in spans_of(sorted(uids))]
        self._connection.executemany(
            f"INSERT OR IGNORE INTO expunged SELECT ?3, ?4, id & {LOW} FROM messages WHERE id BETWEEN ?1 AND ?2",
            [(*span, key, modseq) for span in spans],
        )
        self._connection.executemany("DELETE FROM messages WHERE id BETWEEN ? AND ?", spans)
        self._connection.executemany("DELETE FROM summaries WHERE id BETWEEN ? AND ?", spans)
        self._connection.executemany("DELETE FROM header_texts WHERE id BETWEEN ? AND ?", spans)
        self._connection.executemany("DELETE FROM field_texts WHERE id BETWEEN ? AND ?", spans)

    def has_history_of(self, key: int, count: int) -> bool:
        """Tell whether the history has more than `count` expunges."""
        query = "SELECT 1 FROM expunged WHERE mailbox = ? LIMIT 1 OFFSET ?"
        return self._connection.execute(query, (key, count)).fetchone() is not None

    def prune(self, key: int, keep: int) -> ModSeq | None:
        """Keep only the newest expunges. Return the modseq after which they are known, None if nothing was removed."""
        row: Any = self._connection.execute(
            "SELECT modseq FROM expunged WHERE mailbox = ? ORDER BY modseq DESC LIMIT 1 OFFSET ?", (key, keep)
        ).fetchone()
        if row is None:
            return None
        self._connection.execute("DELETE FROM expunged WHERE mailbox = ? AND modseq <= ?", (key, row[0]))
        return ModSeq(row[0])

    # --- small parts

    def _open(self, key: int, uids: Sequence[int]) -> None:
        """Give the messages rows of their own."""
        if uids:
            self._blocks.open(key, sorted(uids))

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
