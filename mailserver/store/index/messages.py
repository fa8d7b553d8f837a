# ruff: noqa: S608 - what is put into the statements are names and marks from this package, never data
"""Writing the messages and expunged tables; `stored_messages` reads them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from mailserver.store.flags import NARROW
from mailserver.store.further_flags import IN_NAME, MARK, narrowed
from mailserver.store.index.message_blocks import MessageBlock
from mailserver.store.index.records import Entry, EntryFields, FlagUpdate
from mailserver.store.index.statements import LOW, insert, spans_of, whole
from mailserver.store.index.stored_messages import StoredMessages
from mailserver.store.index.sums import measured
from mailserver.types import UNKNOWN_SIZE, ModSeq

_ADD = "INSERT OR REPLACE INTO messages (id, mailbox, modseq, flags, size, date, base, suffix, place) VALUES "
_FEW = 50
_IN_NAME = IN_NAME.encode()
_MOST_UPDATES = 8
"""Updates of flags above which each run of UIDs has a statement, as each update reads all messages between its UIDs."""


class Messages(StoredMessages):
    """The messages of all mailboxes. Writes belong inside `Index.transaction`. `key` is a mailbox's."""

    def add(self, key: int, entries: Sequence[EntryFields], *, foreign: bool = False) -> None:
        """Add new messages. `foreign`: other programs have chosen their names, which others may have already."""
        if not entries:
            return
        first = key << 32
        rows = [
            (
                first | uid,
                key,
                modseq,
                narrowed(flags),
                size,
                date,
                base.encode("utf-8", "surrogateescape"),
                suffix.encode("utf-8", "surrogateescape"),
                place,
            )
            for uid, modseq, flags, size, date, base, suffix, place in entries
        ]
        if foreign:
            self.sums.expect_bases(key, [row[6] for row in rows])
        insert(self._connection, _ADD, "(?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self.sums.add(key, [(entry[0], entry[3]) for entry in entries])

    def add_blocks(self, key: int, blocks: Iterable[MessageBlock], sizes: array[int]) -> None:
        """Add new messages above all others, with unknown dates. `sizes`: those that the names of all of them claim."""
        self._blocks.add(key, blocks)
        self.sums.change(key, len(sizes), *measured(sizes))

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
                    (
                        modseq,
                        narrowed(flags),
                        suffix.encode("utf-8", "surrogateescape"),
                        place,
                        key << 32 | low,
                        key << 32 | high,
                    )
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
                    narrowed(entry.flags),
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
        first = key << 32
        if len(uids) == 1:
            # Mostly it has a row, and then it is in no block.
            self._update_flags(first, modseq, updates)
            if self._connection.changes():
                return
        self._open(key, uids)
        span = first | uids[0], first | uids[-1]
        if (
            len(uids) > _FEW
            and len(updates) <= _MOST_UPDATES
            and self._number("SELECT count(*) FROM messages WHERE id BETWEEN ? AND ?", span) == examined
        ):
            self._connection.executemany(
                "UPDATE messages SET modseq = ?, flags = ?, suffix = ?, place = 1"
                " WHERE id BETWEEN ? AND ? AND flags = ? AND suffix = ? AND place = ?",
                [
                    (modseq, narrowed(each.flags), each.suffix, *span, narrowed(each.before[0]), *each.before[1:])
                    for each in updates
                ],
            )
            return
        self._update_flags(first, modseq, updates)

    def _update_flags(self, first: int, modseq: ModSeq, updates: Sequence[FlagUpdate]) -> None:
        self._connection.executemany(
            "UPDATE messages SET modseq = ?, flags = ?, suffix = ?, place = 1 WHERE id BETWEEN ? AND ?",
            (
                (modseq, narrowed(each.flags), each.suffix, first | low, first | high)
                for each in updates
                for low, high in spans_of(each.uids)
            ),
        )

    def mark_further(self, key: int, modseq: ModSeq) -> None:
        """Mark the messages whose names have further keywords, as an older version does not. They get this modseq. Linear."""
        self._open(key, [block.uids[0] for block in self._blocks.of(key) if _has_unmarked(block)])
        self._connection.execute(
            f"UPDATE messages SET modseq = ?, flags = flags | {MARK}"
            f" WHERE id BETWEEN ? AND ? AND flags <= {NARROW} AND instr(suffix, ?)",
            (modseq, *whole(key), _IN_NAME),
        )

    def learn(self, key: int, facts: Sequence[tuple[int, int, int]]) -> None:
        """Set sizes and dates (uid, size, date) that were read from files. UNKNOWN_SIZE and known dates change nothing."""
        if not facts:
            return
        uids = [uid for uid, _size, _date in facts]
        self._open(key, uids)
        self.sums.learn(key, {uid: size for uid, size, _date in facts if size != UNKNOWN_SIZE})
        self._connection.executemany(
            f"UPDATE messages SET size = ifnull(nullif(?2, {UNKNOWN_SIZE}), size), date = ifnull(date, ?3) WHERE id = ?1",
            ((key << 32 | uid, size, date) for uid, size, date in facts),
        )
        self._connection.execute("DELETE FROM packed_columns WHERE mailbox = ?", (key,))

    def expunge(self, key: int, uids: Sequence[int], modseq: ModSeq) -> None:
        """Remove messages and add them to the expunge history."""
        self._open(key, uids)
        uids = sorted(uids)
        spans = [(key << 32 | low, key << 32 | high) for low, high in spans_of(uids)]
        self.sums.subtract(key, uids)
        self._connection.executemany(
            f"INSERT OR IGNORE INTO expunged SELECT ?3, ?4, id & {LOW} FROM messages WHERE id BETWEEN ?1 AND ?2",
            [(*span, key, modseq) for span in spans],
        )
        self._connection.executemany("DELETE FROM messages WHERE id BETWEEN ? AND ?", spans)
        self._connection.executemany("DELETE FROM summaries WHERE id BETWEEN ? AND ?", spans)
        self._connection.executemany("DELETE FROM header_texts WHERE id BETWEEN ? AND ?", spans)
        self._connection.executemany("DELETE FROM field_texts WHERE id BETWEEN ? AND ?", spans)
        self._connection.executemany("DELETE FROM previews WHERE id BETWEEN ? AND ?", spans)
        self._connection.executemany("DELETE FROM sort_keys WHERE id BETWEEN ? AND ?", spans)

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

    def _open(self, key: int, uids: Sequence[int]) -> None:
        """Give the messages rows of their own."""
        if uids:
            self._blocks.open(key, sorted(uids))


def _has_unmarked(block: MessageBlock) -> bool:
    """Tell whether it has a message with further keywords that is not marked."""
    return any(mask <= NARROW and _IN_NAME in suffix for mask, suffix in zip(block.flags, block.suffixes, strict=True))
