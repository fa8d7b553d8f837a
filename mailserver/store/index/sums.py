# ruff: noqa: S608 - what is put into the statements are marks, never data
"""The sums and unsized tables: the number of messages and octets of each mailbox and of the account.

They are kept in the transaction that changes messages, so that a quota check and STATUS read one row. Rules:

*   The row of key 0 is the sum of all others. It exists only once every mailbox of the account has been counted.
*   A mailbox without a row is counted when its sum is requested. A mailbox that is new in the index has one at once.
*   In a case that the sums cannot follow, the mailbox's row is removed, and that of the account with it.
*   The size of some messages of other programs is unknown until they are read. They are counted apart. For those whose
    size was estimated there is a row in `unsized`, without octets until that is done.
*   A version of this program that does not know these tables leaves them behind. The account's lock shows that it has
    been there (`maildir.disk.lock`), and all rows are removed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import apsw

from mailserver.store.index.statements import LOW, insert, select, spans_of, whole
from mailserver.types import UID, UNKNOWN_SIZE

TABLES: Final = """
CREATE TABLE IF NOT EXISTS sums (
    mailbox INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    unmeasured INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    listed INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS unsized (
    id INTEGER PRIMARY KEY,
    octets INTEGER
);
CREATE INDEX IF NOT EXISTS unsized_new ON unsized (id) WHERE octets IS NULL;
"""
ACCOUNT: Final = 0
"""The key of the row for all mailboxes."""


class Sum(NamedTuple):
    """Numbers of a mailbox or an account; as a change, they are added to these."""

    messages: int
    octets: int
    """Of the messages whose size is known, as sent."""
    unmeasured: int
    """Messages of unknown size."""
    estimated: int = 0
    """Octets of those of them that have an estimate."""
    listed: int = 0
    """Messages of unknown size that have a row in `unsized`."""


def measured(sizes: array[int]) -> tuple[int, int]:
    """Return the octets of these sizes, and the number of those that are UNKNOWN_SIZE."""
    unknown = sizes.count(UNKNOWN_SIZE)
    return sum(sizes) - unknown * UNKNOWN_SIZE, unknown


class Sums:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def of(self, key: int) -> Sum | None:
        """Return the sum of a mailbox, or of the account for `ACCOUNT`; None if it has to be counted."""
        row: Any = self._connection.execute(
            "SELECT messages, octets, unmeasured, estimated, listed FROM sums WHERE mailbox = ?", (key,)
        ).fetchone()
        return None if row is None else Sum(*row)

    def of_several(self, keys: Sequence[int]) -> dict[int, Sum]:
        """Return the sums of those of these mailboxes (at most some hundred) that have one, by key."""
        marks = ",".join("?" * len(keys))
        rows: Any = self._connection.execute(
            f"SELECT mailbox, messages, octets, unmeasured, estimated, listed FROM sums WHERE mailbox IN ({marks})",
            tuple(keys),
        )
        return {key: Sum(*values) for key, *values in rows}

    def change(self, key: int, messages: int, octets: int, unmeasured: int = 0) -> None:
        """Add to the sums of a mailbox and the account; negative numbers for messages that go."""
        self._connection.execute(
            "UPDATE sums SET messages = messages + ?, octets = octets + ?, unmeasured = unmeasured + ?"
            f" WHERE mailbox IN ({ACCOUNT}, ?)",
            (messages, octets, unmeasured, key),
        )

    def add(self, key: int, sizes: Sequence[tuple[int, int | None]]) -> None:
        """Add new messages (uid, size)."""
        unmeasured = [uid for uid, size in sizes if size is None]
        self.change(key, len(sizes), sum(size or 0 for _uid, size in sizes), len(unmeasured))
        if unmeasured:
            known = self.of(key)
            if known is not None and known.listed + len(unmeasured) == known.unmeasured:
                self.list_unsized(key, unmeasured)

    def expect_bases(self, key: int, bases: Iterable[bytes]) -> None:
        """Expect new messages with these bases. They replace messages that have the same ones, which is not counted."""
        query = "SELECT 1 FROM messages WHERE mailbox = ? AND base = ?"
        if any(self._connection.execute(query, (key, base)).fetchone() for base in bases):
            self.forget(key)

    def subtract(self, key: int, uids: Sequence[int]) -> None:
        """Subtract messages (rising), which have rows, before these are removed."""
        if not uids:
            return
        sizes: list[Any] = [size for (size,) in select(self._connection, "size", "messages", key, uids)]
        unmeasured = sizes.count(None)
        self.change(key, -len(sizes), -sum(size or 0 for size in sizes), -unmeasured)
        if unmeasured:
            self.unlist(key, uids)

    def learn(self, key: int, learnt: Mapping[int, int]) -> None:
        """Take in new sizes of messages by UID, before their rows have them."""
        if not learnt:
            return
        known: list[Any] = list(select(self._connection, f"id & {LOW}, size", "messages", key, sorted(learnt)))
        unmeasured = [uid for uid, size in known if size is None]
        octets = sum(learnt[uid] - (size or 0) for uid, size in known)
        if octets or unmeasured:
            self.change(key, 0, octets, -len(unmeasured))
        if unmeasured:
            self.unlist(key, unmeasured)

    def put(self, key: int, counted: Sum) -> None:
        """Set the sum of a mailbox that has none. All its messages of unknown size are still without an estimate."""
        self._connection.execute("DELETE FROM unsized WHERE id BETWEEN ? AND ?", whole(key))
        self._connection.execute(
            "INSERT INTO sums (mailbox, messages, octets, unmeasured, estimated, listed) VALUES (?, ?, ?, ?, 0, 0)",
            (key, *counted[:3]),
        )

    def put_account(self) -> None:
        """Set the sum of the account, all of whose mailboxes have one."""
        self._connection.execute(
            "INSERT OR REPLACE INTO sums (mailbox, messages, octets, unmeasured, estimated, listed)"
            f" SELECT {ACCOUNT}, ifnull(sum(messages), 0), ifnull(sum(octets), 0), ifnull(sum(unmeasured), 0),"
            f" ifnull(sum(estimated), 0), ifnull(sum(listed), 0) FROM sums WHERE mailbox != {ACCOUNT}"
        )

    def remove(self, key: int) -> None:
        """Remove a mailbox that is deleted."""
        gone = self.of(key)
        if gone is None:
            return
        if gone.listed:
            self._connection.execute("DELETE FROM unsized WHERE id BETWEEN ? AND ?", whole(key))
        self._connection.execute("DELETE FROM sums WHERE mailbox = ?", (key,))
        self._connection.execute(
            "UPDATE sums SET messages = messages - ?, octets = octets - ?, unmeasured = unmeasured - ?,"
            f" estimated = estimated - ?, listed = listed - ? WHERE mailbox = {ACCOUNT}",
            gone,
        )

    def forget(self, key: int) -> None:
        """Have a mailbox counted anew."""
        self._connection.execute(f"DELETE FROM sums WHERE mailbox IN ({ACCOUNT}, ?)", (key,))

    def forget_all(self) -> None:
        """Have everything counted anew."""
        self._connection.execute("DELETE FROM sums")
        self._connection.execute("DELETE FROM unsized")

    # --- messages of unknown size

    def list_unsized(self, key: int, uids: Iterable[int]) -> None:
        """Add messages of unknown size to those that wait for an estimate, in a mailbox that has a sum."""
        rows = ((key << 32 | uid,) for uid in uids)
        before = self._connection.total_changes()
        insert(self._connection, "INSERT OR IGNORE INTO unsized (id) VALUES ", "(?)", rows)
        added = self._connection.total_changes() - before
        self._connection.execute(f"UPDATE sums SET listed = listed + ? WHERE mailbox IN ({ACCOUNT}, ?)", (added, key))

    def unsized_without_estimate(self, key: int | None = None, most: int = -1) -> list[tuple[int, UID]]:
        """Return the key and UID of listed messages that have no estimate yet, of one mailbox or all."""
        span = (0, -1) if key is None else whole(key)
        query = "SELECT id FROM unsized INDEXED BY unsized_new WHERE octets IS NULL"
        if key is not None:
            query += " AND id BETWEEN ?1 AND ?2"
        rows = self._connection.execute(f"{query} LIMIT {most:d}", span if key is not None else ())
        return [(row[0] >> 32, UID(row[0] & LOW)) for row in rows]

    def estimate(self, key: int, estimates: Sequence[tuple[int, int]]) -> None:
        """Set estimates (uid, octets) of listed messages of one mailbox."""
        added = 0
        for uid, octets in estimates:
            self._connection.execute(
                "UPDATE unsized SET octets = ? WHERE id = ? AND octets IS NULL", (octets, key << 32 | uid)
            )
            added += octets * self._connection.changes()
        self._connection.execute(
            f"UPDATE sums SET estimated = estimated + ? WHERE mailbox IN ({ACCOUNT}, ?)", (added, key)
        )

    def unlist(self, key: int, uids: Sequence[int]) -> None:
        """Remove messages (rising) from the listed ones: they are gone, or their size is known."""
        known = self.of(key)
        if known is None or not known.listed:
            return
        found: list[Any] = list(select(self._connection, "octets", "unsized", key, uids))
        if not found:
            return
        spans = [(key << 32 | low, key << 32 | high) for low, high in spans_of(uids)]
        self._connection.executemany("DELETE FROM unsized WHERE id BETWEEN ? AND ?", spans)
        self._connection.execute(
            f"UPDATE sums SET estimated = estimated - ?, listed = listed - ? WHERE mailbox IN ({ACCOUNT}, ?)",
            (sum(octets or 0 for (octets,) in found), len(found), key),
        )
