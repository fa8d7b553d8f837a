"""The text index of an account: which messages may contain some text, in a database file of its own.

SQLite's FTS5 keeps, for each three characters that follow each other, the list of the texts in which they do, and
nothing else: not where, nor the text (`detail=none`, contentless). A message has two texts, header and body, folded
by whoever puts them in. What is found has all the trigrams of a needle somewhere; whether it has the needle its reader
finds out.

A message is named by its mailbox's GUID and UIDVALIDITY and its UID, which stand for the same octets for ever. Which
messages are indexed is told by ranges of UIDs, written in the transaction that indexes them: whatever is lost, damage
apart, a message in a range is in the index whole. A message that is gone leaves its range together with its texts.
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
"""Of what is indexed, and of the tables."""

_LOW: Final = 0xFFFFFFFF
_BODY: Final = 1
_HALVES: Final = {Where.HEADER: "AND rowid & 1 = 0", Where.BODY: "AND rowid & 1 = 1", Where.ANYWHERE: ""}
_MOST_TRIGRAMS: Final = 16
"""Trigrams of a needle that are asked for: more hardly tell more."""
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
    """The open index. Reads see the last commit; writes belong inside `writing`. `key` is a mailbox's.

    Any method may raise apsw.Error; none waits for another process.
    """

    def __init__(self, path: str, connection: apsw.Connection, inode: tuple[int, int]) -> None:
        self.path = path
        self.inode = inode
        self._connection = connection

    @classmethod
    def open(cls, path: str, *, create: bool = False) -> FullText:
        """The index in that file. Raises: those of schema.Broken and schema.Unusable, schema.NotOurs, OSError."""
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
        """Whether others who open the path see the same tables."""
        with contextlib.suppress(OSError):
            status = os.stat(self.path)
            return (status.st_dev, status.st_ino) == self.inode
        return False

    def close(self) -> None:
        """Give the file back."""
        self._connection.close(force=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """All or nothing; one process at a time. Raises: those of schema.Busy at once if another one writes."""
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
        """(key, GUID, UIDVALIDITY, modseq up to which all that happened is in the index)."""
        rows: Any = self._connection.execute("SELECT key, guid, uid_validity, modseq FROM mailboxes").fetchall()
        return rows  # type: ignore[no-any-return]

    def add_mailbox(self, guid: MailboxId, uid_validity: UIDValidity) -> None:
        """Have it indexed from now on; one with another UIDVALIDITY must have been removed."""
        self._connection.execute(
            "INSERT OR IGNORE INTO mailboxes (guid, uid_validity, modseq) VALUES (?, ?, 0)", (guid, uid_validity)
        )

    def set_modseq(self, key: int, modseq: int) -> None:
        """All that happened up to there is in the index."""
        self._connection.execute("UPDATE mailboxes SET modseq = ? WHERE key = ?", (modseq, key))

    def remove_mailbox(self, key: int, most: int) -> bool:
        """Forget that many of its messages, and in the end itself; whether it is gone."""
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
        """UID ranges, both ends included and rising, that touch those from `low` to `high`: all in them is indexed."""
        start = key << 32
        rows: Any = self._connection.execute(
            "SELECT first - ?1, last - ?1 FROM ranges WHERE first BETWEEN"
            " ifnull((SELECT max(first) FROM ranges WHERE first BETWEEN ?1 AND ?2), ?2) AND ?3"
            " AND last >= ?2 ORDER BY first",
            (start, start + low, start + high),
        )
        return rows.fetchall()  # type: ignore[no-any-return]

    def put(self, key: int, uid: int, header: str, body: str) -> None:
        """The texts of a message. It is found only once `cover` says that it is there."""
        row = (key << 32 | uid) << 1
        for half, text in ((row, header), (row | _BODY, body)):
            self._connection.execute(
                "INSERT OR REPLACE INTO texts (rowid, text) VALUES (?, ?)",
                (half, storable(text)),
            )

    def cover(self, key: int, uids: Iterable[int]) -> None:
        """These messages (rising) are in the index."""
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
        """Forget messages (rising), whether they are there or not."""
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
        """Join a little of what many small transactions have left; is there more to join?"""
        before = self._connection.total_changes()
        self._connection.execute("INSERT INTO texts (texts, rank) VALUES ('merge', ?)", (_MERGED,))
        # The statement itself counts as one change (see SQLite's "The 'merge' Command").
        return self._connection.total_changes() - before >= 2

    def find(
        self, guid: MailboxId, uid_validity: UIDValidity, span: tuple[int, int], query: str, where: Where
    ) -> tuple[list[tuple[int, int]], list[UID], int] | None:
        """Of a mailbox and the UIDs of that span: the ranges that are indexed, and who in them may match the query.

        The third is the highest UID that is indexed. None if the mailbox is not.
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
        """The highest UID that is indexed; 0 if there is none."""
        start = key << 32
        last: Any = self._connection.execute(
            "SELECT last FROM ranges WHERE first BETWEEN ? AND ? ORDER BY first DESC LIMIT 1", (start, start | _LOW)
        ).get
        return 0 if last is None else int(last) - start

    def indexed(self, key: int) -> int:
        """How many messages are."""
        start = key << 32
        count: Any = self._connection.execute(
            "SELECT ifnull(sum(last - first + 1), 0) FROM ranges WHERE first BETWEEN ? AND ?", (start, start | _LOW)
        ).get
        return int(count)


def query_of(needle: str) -> str | None:
    """The question for some of a folded needle's trigrams, evenly spread; None if it has none that can be asked for."""
    # A NUL is none for the tokenizer, and a lone surrogate cannot be stored.
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
    """Runs of consecutive numbers, both ends included."""
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
