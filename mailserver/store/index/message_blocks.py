"""The bundles table: messages that came many at once, some hundred to a row, as long as none of them changes.

A mailbox that moves in has a hundred thousand messages, of which somebody looks at fifty. A row of the messages table for
each, and its places in two indexes, is half of what the first look costs; a bundle costs a twentieth of that.

Rules:

*   A message is in the messages table or in a bundle, never in both. Sizes and dates of bundled ones are not known.
*   Reading takes what it asks for out of bundles and leaves them. Who writes opens those that it touches: their messages
    become rows, in the same transaction.
*   So what is read of both is read of bundles first: a message that another process gives a row meanwhile is then
    found twice, and its row counts.
*   The UIDs of a bundle lie between those of its neighbours. Messages with rows may lie between its own.
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
from mailserver.types import UNKNOWN_DATE, UNKNOWN_SIZE

BLOCK_MESSAGES: Final = 250
"""Messages of a bundle: what is read to find one of them, and made rows where one changes."""
_WIDTH: Final = array("I").itemsize
_SEPARATOR: Final = b"\0"
"""Stands in no file name."""
_CHECKSUM: Final = 4
"""Octets behind the others."""


class MessageBlock(NamedTuple):
    """Messages by rising UID: parallel columns, of the same modseq."""

    modseq: int
    uids: array[int]
    flags: array[int]
    bases: Sequence[bytes]
    suffixes: Sequence[bytes]
    places: bytes
    """0 in new/, 1 in cur/."""

    def among(self, uids: Sequence[int]) -> Iterable[int]:
        """Where in the columns those of these messages (rising) stand that are in it."""
        low, high = bisect_left(self.uids, uids[0]), bisect_right(self.uids, uids[-1])
        if uids[-1] - uids[0] == len(uids) - 1:
            return range(low, high)
        # Of very many there are few that can be here.
        wanted = set(uids[bisect_left(uids, self.uids[0]) : bisect_right(uids, self.uids[-1])])
        return [at for at in range(low, high) if self.uids[at] in wanted]

    def rows(self, where: Iterable[int]) -> list[tuple[Any, ...]]:
        """(uid, flags, modseq, size, date) of those that stand there in the columns."""
        uids, flags, modseq = self.uids, self.flags, self.modseq
        return [(uids[at], flags[at], modseq, UNKNOWN_SIZE, UNKNOWN_DATE) for at in where]

    def files(self, where: Iterable[int]) -> list[tuple[Any, ...]]:
        """(uid, place, file name, size) of those that stand there in the columns."""
        return [(self.uids[at], self.places[at], self.bases[at] + self.suffixes[at], None) for at in where]

    def entries(self, where: Iterable[int]) -> list[tuple[Any, ...]]:
        """(uid, modseq, flags, size, date, base, suffix, place) of those that stand there in the columns."""
        uids, flags, modseq = self.uids, self.flags, self.modseq
        bases, suffixes, places = self.bases, self.suffixes, self.places
        return [(uids[at], modseq, flags[at], None, None, bases[at], suffixes[at], places[at]) for at in where]

    def with_base(self, base: bytes) -> list[int]:
        """Where in the columns that base stands."""
        return [at for at, each in enumerate(self.bases) if each == base]


class MessageBlocks:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def add(self, key: int, bundles: Iterable[MessageBlock]) -> None:
        """New messages."""
        self._connection.executemany(
            "INSERT INTO bundles (id, last, modseq, low_base, high_base, in_new, unseen, deleted, messages, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (_record(key, bundle) for bundle in bundles),
        )

    def touching(self, key: int, uids: Sequence[int]) -> Iterator[MessageBlock]:
        """Those that some of these UIDs (rising, at least one) lie in, by rising UID."""
        first = key << 32
        # MessageBlocks do not overlap: all but the last one that begins before these UIDs begin among them.
        spans: list[Any] = self._connection.execute(
            "SELECT id, last FROM bundles WHERE id <= ?2 AND last >= ?1"
            " AND id >= ifnull((SELECT max(id) FROM bundles WHERE id <= ?1), 0) ORDER BY id",
            (first | uids[0], first | uids[-1]),
        ).fetchall()
        for start, last in spans:
            at = bisect_left(uids, start - first)
            if at == len(uids) or uids[at] > last - first:
                continue
            # One that has been opened since then has rows.
            for row in self._connection.execute("SELECT modseq, messages, data FROM bundles WHERE id = ?", (start,)):
                yield _unpack(*row)

    def of(self, key: int) -> list[MessageBlock]:
        """All of the mailbox, by rising UID."""
        rows = self._connection.execute(
            "SELECT modseq, messages, data FROM bundles WHERE id BETWEEN ? AND ? ORDER BY id", whole(key)
        )
        return [_unpack(*row) for row in rows]

    def in_new(self, key: int) -> list[MessageBlock]:
        """Those with messages whose file is in new/."""
        return self._where(key, "in_new > 0")

    def since(self, key: int, modseq: int) -> list[MessageBlock]:
        """Those that are newer than `modseq`."""
        return self._where(key, "modseq > ?", modseq)

    def around(self, key: int, base: bytes) -> list[MessageBlock]:
        """Those that may have that base."""
        return self._where(key, "high_base >= ? AND low_base <= ?", base, base)

    def count_since(self, key: int, modseq: int) -> int:
        """How many messages newer than `modseq` bundles hold."""
        query = "SELECT ifnull(sum(messages), 0) FROM bundles WHERE modseq > ? AND +id BETWEEN ? AND ?"
        row: Any = self._connection.execute(query, (modseq, *whole(key))).fetchone()
        return int(row[0])

    def open(self, key: int, uids: Sequence[int]) -> None:
        """Let the messages of bundles that some of these UIDs (rising, at least one) lie in have rows."""
        for bundle in self.touching(key, uids):
            insert(
                self._connection,
                "INSERT OR IGNORE INTO messages (id, mailbox, modseq, flags, base, suffix, place) VALUES ",
                f"({key << 32} | ?, {key:d}, {bundle.modseq:d}, ?, ?, ?, ?)",
                zip(bundle.uids, bundle.flags, bundle.bases, bundle.suffixes, bundle.places, strict=True),
            )
            self._connection.execute("DELETE FROM bundles WHERE id = ?", (key << 32 | bundle.uids[0],))

    def _where(self, key: int, condition: str, *values: object) -> list[MessageBlock]:
        # The plus: of one mailbox there may be thousands, of which the conditions leave few, and have an index for it.
        rows = self._connection.execute(
            f"SELECT modseq, messages, data FROM bundles WHERE {condition} AND +id BETWEEN ? AND ? ORDER BY id",  # noqa: S608
            (*values, *whole(key)),
        )
        return [_unpack(*row) for row in rows]


def _record(key: int, bundle: MessageBlock) -> tuple[Any, ...]:
    flags = Counter(bundle.flags).items()
    return (
        key << 32 | bundle.uids[0],
        key << 32 | bundle.uids[-1],
        bundle.modseq,
        min(bundle.bases),
        max(bundle.bases),
        bundle.places.count(0),
        sum(count for mask, count in flags if not mask & SEEN),
        sum(count for mask, count in flags if mask & DELETED),
        len(bundle.uids),
        _pack(bundle),
    )


def _pack(bundle: MessageBlock) -> bytes:
    packed = b"".join(
        (
            _octets(bundle.uids),
            _octets(bundle.flags),
            bundle.places,
            _SEPARATOR.join(bundle.bases),
            _SEPARATOR,
            _SEPARATOR.join(bundle.suffixes),
        )
    )
    return packed + _checksum(packed)


def _unpack(modseq: int, count: int, data: bytes) -> MessageBlock:
    """Raises: apsw.CorruptError. SQLite sees no damage in a page that holds nothing but such octets."""
    packed = data[:-_CHECKSUM]
    width = count * _WIDTH
    texts = packed[2 * width + count :].split(_SEPARATOR)
    if _checksum(packed) != data[-_CHECKSUM:] or len(texts) != 2 * count:
        msg = "a bundle holds something else than was written"
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
    """Little-endian, as the file may come from another machine."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _numbers(octets: bytes) -> array[int]:
    column = array("I", octets)
    if sys.byteorder == "big":
        column.byteswap()
    return column
