"""The text index of an account, in a database file of its own.

SQLite's FTS5 keeps, for each trigram, the list of texts that have it, and nothing else: no position, no text
(`detail=none`, contentless). A message has two texts, header and body, already folded. A hit has all the trigrams of a
needle somewhere; the reader of the message finds out whether it has the needle.

A message is named by its mailbox's GUID and UIDVALIDITY and its UID, which stand for the same octets for ever. Ranges
of UIDs tell the indexed messages. They are written in the transaction that indexes them, so a message in a range is in
the index whole, damage apart. A message that is gone leaves its range together with its texts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import apsw

from mailserver.message.text import TEXTS
from mailserver.store.index import schema
from mailserver.store.index.header_texts import storable
from mailserver.store.search_source import Where
from mailserver.types import UID, MailboxId, ModSeq, UIDValidity

APPLICATION_ID: Final = 0x4D535458
VERSION: Final = TEXTS << 16 | 1
"""Version of the indexed texts and of the tables."""

_LOW: Final = 0xFFFFFFFF
_BODY: Final = 1
_HALVES: Final = {Where.HEADER: "AND rowid & 1 = 0", Where.BODY: "AND rowid & 1 = 1", Where.ANYWHERE: ""}
_MOST_TRIGRAMS: Final = 16
"""Most trigrams of a needle that are queried: more hardly filter more."""
_MERGED: Final = 16
"""Pages written by one merge."""

# The row of a text is its message's id (mailboxes.key << 32 | UID) << 1, plus 1 for the body.
_TABLES: Final = """
CREATE TABLE mailboxes (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    guid BLOB NOT NULL UNIQUE,
    uid_validity INTEGER NOT NULL,
    modseq INTEGER NOT NULL
);
CREATE TABLE ranges (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL
);
CREATE VIRTUAL TABLE texts USING fts5(
    text, content='', contentless_delete=1, detail=none, tokenize='trigram case_sensitive 1'
);
-- Merges are made by `merge` alone, a few pages each: those that a commit begins of itself may take long.
INSERT INTO texts (texts, rank) VALUES ('automerge', 0), ('crisismerge', 1000);
"""


class FullText:
    """The open text index. Reads see the last commit; writes belong inside `writing`. `key` is a mailbox's.

    Any method may raise apsw.Error; none waits for another process.
    """

    def __init__(self, path: str, connection: apsw.Connection, inode: tuple[int, int]) -> None:
        self.path = path
        self.inode = inode
        self._connection = connection

    @classmethod
    def open(cls, path: str, *, create: bool = False) -> FullText:
        """Open the index in that file. Raises: those of schema.Broken and schema.Unusable, schema.NotOurs, OSError."""
        connection = schema.open_file(path, create=create)
        try:
            connection.execute("PRAGMA cache_size = -512")
            identity = connection.pragma("application_id"), connection.pragma("user_version")
            if identity == (0, 0) and create and not connection.pragma("schema_version"):
                connection.pragma("journal_mode", "wal")
                with connection:
                    connection.execute(_TABLES)
                    connection.pragma("application_id", APPLICATION_ID)
                    connection.pragma("user_version", VERSION)
            elif identity != (APPLICATION_ID, VERSION):
                raise schema.NotOurs(f"application and version {identity}")  # noqa: TRY301 - closes it on the way
            connection.pragma("journal_mode", "wal")
            schema.keep_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304")
            status = os.stat(path)
        except BaseException:
            connection.close(force=True)
            raise
        return cls(path, connection, (status.st_dev, status.st_ino))

    def is_current(self) -> bool:
        """Tell whether other processes that open the path see the same tables."""
        with contextlib.suppress(OSError):
            status = os.stat(self.path)
            return (status.st_dev, status.st_ino) == self.inode
        return False

    def close(self) -> None:
        """Close the file."""
        self._connection.close(force=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Run the block in a transaction. Raises: those of schema.Busy at once if another process writes."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        connection = self._connection
        connection.execute(begin)
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    # --- mailboxes

    def mailboxes(self) -> list[tuple[int, MailboxId, UIDValidity, ModSeq]]:
        """Return (key, GUID, UIDVALIDITY, modseq up to which the index is complete) of each mailbox."""
        rows: Any = self._connection.execute("SELECT key, guid, uid_validity, modseq FROM mailboxes").fetchall()
        return rows  # type: ignore[no-any-return]

    def add_mailbox(self, guid: MailboxId, uid_validity: UIDValidity) -> None:
        """Add a mailbox to the index. One with another UIDVALIDITY must have been removed."""
        self._connection.execute(
            "INSERT OR IGNORE INTO mailboxes (guid, uid_validity, modseq) VALUES (?, ?, 0)", (guid, uid_validity)
        )

    def set_modseq(self, key: int, modseq: int) -> None:
        """Record that the index is complete up to that modseq."""
        self._connection.execute("UPDATE mailboxes SET modseq = ? WHERE key = ?", (modseq, key))

    def remove_mailbox(self, key: int, most: int) -> bool:
        """Remove up to `most` of its messages, and at the end the mailbox. True once it is gone."""
        uids: list[UID] = []
        for first, last in self.ranges(key, 0, _LOW):
            uids += map(UID, range(first, min(last + 1, first + most - len(uids))))
            if len(uids) == most:
                break
        self.remove(key, uids)
        if len(uids) == most:
            return False
        self._connection.execute("DELETE FROM mailboxes WHERE key = ?", (key,))
        return True

    # --- messages

    def ranges(self, key: int, low: int, high: int) -> list[tuple[int, int]]:
        """Return the indexed UID ranges that touch `low` to `high`: rising, both ends included."""
        start = key << 32
        rows: Any = self._connection.execute(
            "SELECT first - ?1, last - ?1 FROM ranges WHERE first BETWEEN"
            " ifnull((SELECT max(first) FROM ranges WHERE first BETWEEN ?1 AND ?2), ?2) AND ?3"
            " AND last >= ?2 ORDER BY first",
            (start, start + low, start + high),
        )
        return rows.fetchall()  # type: ignore[no-any-return]

    def put(self, key: int, uid: int, header: str, body: str) -> None:
        """Store the texts of a message. Searches find it only after `cover`."""
        row = (key << 32 | uid) << 1
        for half, text in ((row, header), (row | _BODY, body)):
            self._connection.execute(
                "INSERT OR REPLACE INTO texts (rowid, text) VALUES (?, ?)",
                (half, storable(text)),
            )

    def cover(self, key: int, uids: Iterable[int]) -> None:
        """Record that these messages (rising) are indexed."""
        start = key << 32
        for first, last in _runs(uids):
            low, high = start + first, start + last
            row: Any = self._connection.execute(
                "SELECT min(first), max(last) FROM ranges WHERE first BETWEEN"
                " ifnull((SELECT max(first) FROM ranges WHERE first BETWEEN ?1 AND ?2), ?2) AND ?3 + 1"
                " AND last >= ?2 - 1",
                (start, low, high),
            ).fetchone()
            if row[0] is not None:
                self._connection.execute("DELETE FROM ranges WHERE first BETWEEN ? AND ?", (row[0], high + 1))
                low, high = min(low, row[0]), max(high, row[1])
            self._connection.execute("INSERT INTO ranges (first, last) VALUES (?, ?)", (low, high))

    def remove(self, key: int, uids: Sequence[int]) -> None:
        """Remove messages (rising), whether they are indexed or not."""
        start = key << 32
        self._connection.executemany(
            "DELETE FROM texts WHERE rowid = ?",
            [((start + uid) << 1 | half,) for uid in uids for half in (0, _BODY)],
        )
        for first, last in _runs(uids):
            for low, high in self.ranges(key, first, last):
                self._connection.execute("DELETE FROM ranges WHERE first = ?", (start + low,))
                if low < first:
                    self._connection.execute("INSERT INTO ranges VALUES (?, ?)", (start + low, start + first - 1))
                if high > last:
                    self._connection.execute("INSERT INTO ranges VALUES (?, ?)", (start + last + 1, start + high))

    def merge(self) -> bool:
        """Merge a little of what many small transactions have left. True if there is more to merge."""
        before = self._connection.total_changes()
        self._connection.execute("INSERT INTO texts (texts, rank) VALUES ('merge', ?)", (_MERGED,))
        # The statement itself counts as one change (see SQLite's "The 'merge' Command").
        return self._connection.total_changes() - before >= 2

    def find(
        self, guid: MailboxId, uid_validity: UIDValidity, span: tuple[int, int], query: str, where: Where
    ) -> tuple[list[tuple[int, int]], list[UID], int] | None:
        """Return the indexed ranges of that UID span, the messages there that may match, and the highest indexed UID.

        None if the mailbox is not indexed.
        """
        with self._transaction("BEGIN"):
            key: Any = self._connection.execute(
                "SELECT key FROM mailboxes WHERE guid = ? AND uid_validity = ?", (guid, uid_validity)
            ).get
            if key is None:
                return None
            ranges = self.ranges(key, *span)
            if not ranges:
                return [], [], 0
            first, last = ((key << 32 | uid) << 1 for uid in span)
            rows: Any = self._connection.execute(
                f"SELECT (rowid >> 1) & {_LOW} FROM texts WHERE texts MATCH ? AND rowid BETWEEN ? AND ?"  # noqa: S608
                f" {_HALVES[where]}",
                (query, first, last | _BODY),
            ).fetchall()
            return ranges, sorted({uid for (uid,) in rows}), self.highest(key)

    def highest(self, key: int) -> int:
        """Return the highest indexed UID; 0 if there is none."""
        start = key << 32
        last: Any = self._connection.execute(
            "SELECT last FROM ranges WHERE first BETWEEN ? AND ? ORDER BY first DESC LIMIT 1", (start, start | _LOW)
        ).get
        return 0 if last is None else int(last) - start

    def indexed(self, key: int) -> int:
        """Return the number of indexed messages."""
        start = key << 32
        count: Any = self._connection.execute(
            "SELECT ifnull(sum(last - first + 1), 0) FROM ranges WHERE first BETWEEN ? AND ?", (start, start | _LOW)
        ).get
        return int(count)


def query_of(needle: str) -> str | None:
    """Make the query for some of a folded needle's trigrams, evenly spread. None if it has no usable trigram."""
    # The tokenizer drops NUL, and a lone surrogate cannot be stored.
    trigrams = list(
        dict.fromkeys(
            trigram
            for at in range(len(needle) - 2)
            if "\0" not in (trigram := needle[at : at + 3])
            and (trigram.isascii() or not any("\ud800" <= character <= "\udfff" for character in trigram))
        )
    )
    if len(trigrams) > _MOST_TRIGRAMS:
        trigrams = [trigrams[number * len(trigrams) // _MOST_TRIGRAMS] for number in range(_MOST_TRIGRAMS)]
    return " AND ".join(['"' + trigram.replace('"', '""') + '"' for trigram in trigrams]) or None


def _runs(uids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield runs of consecutive numbers, both ends included."""
    first = last = -1
    for uid in uids:
        if uid == last + 1 and first >= 0:
            last = uid
            continue
        if first >= 0:
            yield first, last
        first = last = uid
    if first >= 0:
        yield first, last
