"""The `bundles` table: unchanged messages that came in large numbers, some hundred to a row.

A mailbox that moves in has a hundred thousand messages, of which a client reads fifty. A row in the messages table for
each, with its entries in two indexes, is half of the cost of the first scan. A block costs a twentieth of that.

Rules:

*   A message is in the messages table or in a block, never in both. The sizes of messages in blocks are those that
    their names claim (`name_sizes`), their dates are unknown.
*   Reading leaves blocks as they are. Writing opens the blocks that it touches: their messages become rows, in the same
    transaction.
*   Readers of both read the blocks first. A message that another process gives a row meanwhile is then found twice, and
    its row counts.
*   The UIDs of a block lie between those of its neighbours. Messages with rows may lie between its own.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import apsw

from mailserver.store.flags import DELETED, SEEN
from mailserver.store.index.statements import insert, whole
from mailserver.store.index.sums import Sums
from mailserver.store.name_sizes import claimed_size, claimed_sizes
from mailserver.types import UNKNOWN_DATE, UNKNOWN_SIZE

BLOCK_MESSAGES: Final = 250
"""Messages of a block: so many are read to find one of them, and become rows when one changes."""
_WIDTH: Final = array("I").itemsize
_SEPARATOR: Final = b"\0"
"""Not part of any file name."""
_CHECKSUM: Final = 4
"""Octets at the end."""


class MessageBlock(NamedTuple):
    """Messages by rising UID: parallel columns, of the same modseq."""

    modseq: int
    uids: array[int]
    flags: array[int]
    """As the index has them (`further_flags`)."""
    bases: Sequence[bytes]
    suffixes: Sequence[bytes]
    places: bytes
    """0 in new/, 1 in cur/."""

    def among(self, uids: Sequence[int]) -> Iterable[int]:
        """Return the indexes of those of these messages (rising) that are in this block."""
        low, high = bisect_left(self.uids, uids[0]), bisect_right(self.uids, uids[-1])
        if uids[-1] - uids[0] == len(uids) - 1:
            return range(low, high)
        # Only a few of very many can be here.
        wanted = set(uids[bisect_left(uids, self.uids[0]) : bisect_right(uids, self.uids[-1])])
        return [at for at in range(low, high) if self.uids[at] in wanted]

    def sizes(self) -> array[int]:
        """Return the size of each message, UNKNOWN_SIZE if its name claims none."""
        return claimed_sizes(self.bases)

    def rows(self, where: Iterable[int]) -> list[tuple[Any, ...]]:
        """Return (uid, flags, modseq, size, date) at these indexes."""
        uids, flags, modseq, bases = self.uids, self.flags, self.modseq, self.bases
        places = where if isinstance(where, range) else tuple(where)
        sizes = claimed_sizes([bases[at] for at in places])
        return [(uids[at], flags[at], modseq, size, UNKNOWN_DATE) for at, size in zip(places, sizes, strict=True)]

    def suffixes_of(self, where: Iterable[int]) -> list[tuple[Any, ...]]:
        """Return (uid, suffix) at these indexes."""
        return [(self.uids[at], self.suffixes[at]) for at in where]

    def names(self, where: Iterable[int]) -> list[tuple[Any, ...]]:
        """Return (uid, place, file name) at these indexes."""
        return [(self.uids[at], self.places[at], self.bases[at] + self.suffixes[at]) for at in where]

    def files(self, where: Iterable[int]) -> list[tuple[Any, ...]]:
        """Return (uid, place, file name, size) at these indexes."""
        return [
            (self.uids[at], self.places[at], self.bases[at] + self.suffixes[at], _claimed(self.bases[at]))
            for at in where
        ]

    def entries(self, where: Iterable[int]) -> list[tuple[Any, ...]]:
        """Return (uid, modseq, flags, size, date, base, suffix, place) at these indexes."""
        uids, flags, modseq = self.uids, self.flags, self.modseq
        bases, suffixes, places = self.bases, self.suffixes, self.places
        return [
            (uids[at], modseq, flags[at], _claimed(bases[at]), None, bases[at], suffixes[at], places[at])
            for at in where
        ]

    def with_base(self, base: bytes) -> list[int]:
        """Return the indexes with that base."""
        return [at for at, each in enumerate(self.bases) if each == base]


class MessageBlocks:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's."""

    def __init__(self, connection: apsw.Connection, sums: Sums) -> None:
        self._connection = connection
        self._sums = sums

    def add(self, key: int, blocks: Iterable[MessageBlock]) -> None:
        """Add new messages."""
        self._connection.executemany(
            "INSERT INTO bundles (id, last, modseq, low_base, high_base, in_new, unseen, deleted, messages, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (_record(key, block) for block in blocks),
        )

    def touching(self, key: int, uids: Sequence[int]) -> Iterator[MessageBlock]:
        """Yield the blocks that contain some of these UIDs (rising, at least one), by rising UID."""
        first = key << 32
        # Blocks do not overlap: all but the last one that begins before these UIDs begin among them.
        spans: list[Any] = self._connection.execute(
            "SELECT id, last FROM bundles WHERE id <= ?2 AND last >= ?1"
            " AND id >= ifnull((SELECT max(id) FROM bundles WHERE id <= ?1), 0) ORDER BY id",
            (first | uids[0], first | uids[-1]),
        ).fetchall()
        for start, last in spans:
            at = bisect_left(uids, start - first)
            if at == len(uids) or uids[at] > last - first:
                continue
            # One that has been opened meanwhile has rows.
            for row in self._connection.execute("SELECT modseq, messages, data FROM bundles WHERE id = ?", (start,)):
                yield _unpack(*row)

    def of(self, key: int) -> list[MessageBlock]:
        """Return all blocks of the mailbox, by rising UID."""
        rows = self._connection.execute(
            "SELECT modseq, messages, data FROM bundles WHERE id BETWEEN ? AND ? ORDER BY id", whole(key)
        )
        return [_unpack(*row) for row in rows]

    def in_new(self, key: int) -> list[MessageBlock]:
        """Return the blocks with a message whose file is in new/."""
        return self._where(key, "in_new > 0")

    def with_deleted(self, key: int) -> list[MessageBlock]:
        """Return the blocks with a message that has the flag \\Deleted."""
        return self._where(key, "deleted > 0")

    def since(self, key: int, modseq: int) -> list[MessageBlock]:
        """Return the blocks that are newer than `modseq`."""
        return self._where(key, "modseq > ?", modseq)

    def around(self, key: int, base: bytes) -> list[MessageBlock]:
        """Return the blocks that may have that base."""
        return self._where(key, "high_base >= ? AND low_base <= ?", base, base)

    def count_since(self, key: int, modseq: int) -> int:
        """Count the messages newer than `modseq` in blocks."""
        query = "SELECT ifnull(sum(messages), 0) FROM bundles WHERE modseq > ? AND +id BETWEEN ? AND ?"
        row: Any = self._connection.execute(query, (modseq, *whole(key))).fetchone()
        return int(row[0])

    def open(self, key: int, uids: Sequence[int]) -> None:
        """Turn the blocks that contain some of these UIDs (rising, at least one) into rows."""
        for block in self.touching(key, uids):
            before = self._connection.total_changes()
            insert(
                self._connection,
                "INSERT OR IGNORE INTO messages (id, mailbox, modseq, flags, size, base, suffix, place) VALUES ",
                f"({key << 32} | ?, {key:d}, {block.modseq:d}, ?, nullif(?, {UNKNOWN_SIZE}), ?, ?, ?)",
                zip(
                    block.uids,
                    block.flags,
                    claimed_sizes(block.bases),
                    block.bases,
                    block.suffixes,
                    block.places,
                    strict=True,
                ),
            )
            if self._connection.total_changes() - before != len(block.uids):
                # Another program has given a later message the name of one of these.
                self._sums.forget(key)
            self._connection.execute("DELETE FROM bundles WHERE id = ?", (key << 32 | block.uids[0],))

    def _where(self, key: int, condition: str, *values: object) -> list[MessageBlock]:
        # The plus: a mailbox may have thousands, of which the conditions leave few and have an index for it.
        rows = self._connection.execute(
            f"SELECT modseq, messages, data FROM bundles WHERE {condition} AND +id BETWEEN ? AND ? ORDER BY id",  # noqa: S608
            (*values, *whole(key)),
        )
        return [_unpack(*row) for row in rows]


def _claimed(base: bytes) -> int | None:
    size = claimed_size(base)
    return None if size == UNKNOWN_SIZE else size


def _record(key: int, block: MessageBlock) -> tuple[Any, ...]:
    flags = Counter(block.flags).items()
    return (
        key << 32 | block.uids[0],
        key << 32 | block.uids[-1],
        block.modseq,
        min(block.bases),
        max(block.bases),
        block.places.count(0),
        sum(count for mask, count in flags if not mask & SEEN),
        sum(count for mask, count in flags if mask & DELETED),
        len(block.uids),
        _pack(block),
    )


def _pack(block: MessageBlock) -> bytes:
    packed = b"".join(
        (
            _octets(block.uids),
            _octets(block.flags),
            block.places,
            _SEPARATOR.join(block.bases),
            _SEPARATOR,
            _SEPARATOR.join(block.suffixes),
        )
    )
    return packed + _checksum(packed)


def _unpack(modseq: int, count: int, data: bytes) -> MessageBlock:
    """Unpack a block. Raises: apsw.CorruptError, as SQLite sees no damage within such octets."""
    packed = data[:-_CHECKSUM]
    width = count * _WIDTH
    texts = packed[2 * width + count :].split(_SEPARATOR)
    if _checksum(packed) != data[-_CHECKSUM:] or len(texts) != 2 * count:
        msg = "a block holds something else than was written"
        raise apsw.CorruptError(msg)
    return MessageBlock(
        modseq,
        _numbers(packed[:width]),
        _numbers(packed[width : 2 * width]),
        texts[:count],
        texts[count:],
        packed[2 * width : 2 * width + count],
    )


def _checksum(packed: bytes) -> bytes:
    return zlib.crc32(packed).to_bytes(_CHECKSUM, "big")


def _octets(column: array[int]) -> bytes:
    """Pack as little-endian: the file may come from another machine."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _numbers(octets: bytes) -> array[int]:
    column = array("I", octets)
    if sys.byteorder == "big":
        column.byteswap()
    return column
