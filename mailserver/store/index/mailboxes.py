# ruff: noqa: S608 - what is put into the statements are names and marks from this module, never data
"""The mailboxes table: one row a mailbox, read and written whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any

import apsw
from attrs import evolve, fields

from mailserver.store.index.records import MailboxState, Signature
from mailserver.store.index.sums import Sum, Sums
from mailserver.types import UID, MailboxId, ModSeq, UIDValidity

DISTRUSTED = "-"
"""In place of a boot id: the mailbox must be read from disk first."""

_COLUMNS = (
    "key, guid, name, uid_validity, uid_next, modseq, floor, recent_from, keywords, keywords_signature,"
    " uidlist_signature, new_mtime, new_racy, cur_mtime, cur_racy, boot"
)
_BY_NAME = f"SELECT {_COLUMNS} FROM mailboxes WHERE name = ?"
_BY_GUID = f"SELECT {_COLUMNS} FROM mailboxes WHERE guid = ?"
_ALL = f"SELECT {_COLUMNS} FROM mailboxes"
_INSERT = f"INSERT INTO mailboxes ({_COLUMNS}) VALUES ({', '.join('?' * 16)})"
_KEEP_NAME = (
    "UPDATE mailboxes SET uid_validity = ?4, uid_next = ?5, modseq = ?6, floor = max(floor, ?7),"
    " recent_from = ?8, keywords = ?9, keywords_signature = ?10, uidlist_signature = ?11, new_mtime = ?12,"
    " new_racy = ?13, cur_mtime = ?14, cur_racy = ?15, boot = ?16 WHERE key = ?1 AND guid = ?2 AND name = ?3"
)
"""Without the name: setting it, even to the same, rewrites its page in the index of names."""
_CHANGE_NAME = "UPDATE mailboxes SET name = ?3 WHERE key = ?1 AND guid = ?2"


_MOST_KNOWN = 64
_fields: Callable[[MailboxState], tuple[Any, ...]] = attrgetter(*(field.name for field in fields(MailboxState)))


class Mailboxes:
    """Reads see the last commit; writes belong inside `Index.transaction`.

    Only the holder of the account's lock writes rows. Rows are cached while `alone` is set. `forget` is due when
    another process has held the lock.
    """

    def __init__(self, connection: apsw.Connection, sums: Sums) -> None:
        self._connection = connection
        self._sums = sums
        self._known: dict[object, tuple[Any, ...]] = {}
        self._floors: dict[int, ModSeq] = {}
        self.alone = False
        """True while the cached rows are those of the database."""

    def forget(self) -> None:
        """Empty the cache."""
        self._known.clear()

    def by_name(self, name: str) -> MailboxState | None:
        """Return the mailbox of that name."""
        return self._one(_BY_NAME, name)

    def by_names(self, names: Sequence[str]) -> list[MailboxState]:
        """Return the mailboxes of these names (at most some hundred) that there are, in no order."""
        marks = ",".join("?" * len(names))
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM mailboxes WHERE name IN ({marks})", tuple(names))
        return [_state(row) for row in rows]

    def by_guid(self, guid: MailboxId) -> MailboxState | None:
        """Return the mailbox with that GUID."""
        return self._one(_BY_GUID, guid)

    def has(self, key: int, guid: MailboxId) -> bool:
        """Tell whether that is still the mailbox's key: a new index has other keys."""
        query = "SELECT 1 FROM mailboxes WHERE key = ? AND guid = ?"
        return self._connection.execute(query, (key, guid)).fetchone() is not None

    def count(self) -> int:
        """Return the number of mailboxes."""
        row: Any = self._connection.execute("SELECT count(*) FROM mailboxes").fetchone()
        return int(row[0])

    def has_key(self, key: int) -> bool:
        """Tell whether a mailbox has that key."""
        return self._connection.execute("SELECT 1 FROM mailboxes WHERE key = ?", (key,)).fetchone() is not None

    def all(self) -> list[MailboxState]:
        """Return every mailbox, in no order."""
        return [_state(row) for row in self._connection.execute(_ALL)]

    def names(self, guids: Collection[MailboxId] | None = None) -> dict[MailboxId, str]:
        """Return the names of the mailboxes with these GUIDs, or of all."""
        if guids is None:
            return {
                MailboxId(guid): name for guid, name in self._connection.execute("SELECT guid, name FROM mailboxes")
            }
        found = ((guid, self.by_guid(guid)) for guid in guids)
        return {guid: state.name for guid, state in found if state is not None}

    def save(self, state: MailboxState) -> None:
        """Write a mailbox; a new one (key 0) gets its key. Other mailboxes with its name or GUID are gone from disk and
        removed.

        A mailbox with a key of a lost index is written too, but must be read from disk before it answers. All UIDs are
        then those of the uidlist: the new index has not reported any. Its history of expunges begins now.
        """
        state.floor = max(state.floor, self._floors.get(state.key, state.floor))
        if state.key:
            values = (state.key, *_values(state))
            self._connection.execute(_KEEP_NAME, values)
            if not self._connection.changes():
                self._connection.execute(_CHANGE_NAME, values[:3])
                self._connection.execute(_KEEP_NAME, values)
            if self._connection.changes():
                if self._known.get(state.guid) is not self._known.get(state.name):
                    # It has a new name.
                    self._known.clear()
                if self.alone:
                    self._remember(_fields(state))
                return
            state.boot = DISTRUSTED
            state.floor = state.modseq
        uid_next = UID(1) if state.key else state.uid_next
        self._known.clear()
        for known in (self.by_guid(state.guid), self.by_name(state.name)):
            if known is not None:
                self.remove(known.key)
        self._connection.execute(_INSERT, (None, *_values(evolve(state, uid_next=uid_next))))
        state.key = self._connection.last_insert_rowid()
        self._sums.put(state.key, Sum(0, 0, 0))

    def rename(self, renames: dict[str, str]) -> None:
        """Rename mailboxes, all at once: names may be exchanged."""
        self._known.clear()
        pairs = [("\n" + new, old) for old, new in renames.items()]
        self._connection.executemany("UPDATE mailboxes SET name = ?1 WHERE name = ?2", pairs)
        for new in renames.values():
            in_the_way = self.by_name(new)
            if in_the_way is not None:
                self.remove(in_the_way.key)
        self._connection.execute("UPDATE mailboxes SET name = substr(name, 2) WHERE unicode(name) = 10")

    def raise_floor(self, key: int, modseq: int) -> None:
        """Record that expunges before that modseq are no longer known."""
        self._known.clear()
        self._floors[key] = ModSeq(modseq)
        self._connection.execute("UPDATE mailboxes SET floor = max(floor, ?) WHERE key = ?", (modseq, key))

    def distrust(self, names: Iterable[str] | None = None) -> None:
        """Let these mailboxes (None: all) be read from disk before they answer."""
        self._known.clear()
        if names is None:
            self._connection.execute("UPDATE mailboxes SET boot = ?", (DISTRUSTED,))
        else:
            self._connection.executemany(
                "UPDATE mailboxes SET boot = ? WHERE name = ?", [(DISTRUSTED, name) for name in names]
            )

    def remove(self, key: int) -> None:
        """Remove the mailbox and everything about its messages."""
        self._known.clear()
        first, last = key << 32, (key + 1 << 32) - 1
        self._connection.execute("DELETE FROM messages WHERE id BETWEEN ? AND ?", (first, last))
        self._connection.execute("DELETE FROM bundles WHERE id BETWEEN ? AND ?", (first, last))
        self._connection.execute("DELETE FROM summaries WHERE id BETWEEN ? AND ?", (first, last))
        self._connection.execute("DELETE FROM header_texts WHERE id BETWEEN ? AND ?", (first, last))
        self._connection.execute("DELETE FROM field_texts WHERE id BETWEEN ? AND ?", (first, last))
        self._connection.execute("DELETE FROM previews WHERE id BETWEEN ? AND ?", (first, last))
        self._connection.execute("DELETE FROM sort_keys WHERE id BETWEEN ? AND ?", (first, last))
        self._connection.execute("DELETE FROM expunged WHERE mailbox = ?", (key,))
        self._connection.execute("DELETE FROM packed_columns WHERE mailbox = ?", (key,))
        self._sums.remove(key)
        self._connection.execute("DELETE FROM mailboxes WHERE key = ?", (key,))

    def _one(self, query: str, value: object) -> MailboxState | None:
        if self.alone:
            known = self._known.get(value)
            if known is not None:
                return MailboxState(*known)
        row = self._connection.execute(query, (value,)).fetchone()
        if row is None:
            return None
        state = _state(row)
        if self.alone:
            self._remember(_fields(state))
        return state

    def _remember(self, fields: tuple[Any, ...]) -> None:
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known[fields[1]] = self._known[fields[2]] = fields


def _state(row: Any) -> MailboxState:
    return MailboxState(
        row[0],
        MailboxId(row[1]),
        row[2],
        UIDValidity(row[3]),
        UID(row[4]),
        ModSeq(row[5]),
        ModSeq(row[6]),
        UID(row[7]),
        tuple(row[8].split("\n")) if row[8] else (),
        _signature(row[9]),
        _signature(row[10]),
        row[11],
        row[12],
        row[13],
        row[14],
        row[15],
    )


def _values(state: MailboxState) -> tuple[object, ...]:
    return (
        state.guid,
        state.name,
        state.uid_validity,
        state.uid_next,
        state.modseq,
        state.floor,
        state.recent_from,
        "\n".join(state.keywords),
        _text(state.keywords_signature),
        _text(state.uidlist_signature),
        state.new_mtime,
        state.new_racy,
        state.cur_mtime,
        state.cur_racy,
        state.boot,
    )


def _signature(text: str) -> Signature:
    return tuple(map(int, text.split()))


def _text(signature: Signature) -> str:
    return " ".join(map(str, signature))
