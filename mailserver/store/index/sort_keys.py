# ruff: noqa: S608 - what is put into the statements are names and marks from here, never data
"""The sort_keys table: the values that SORT and THREAD compare, one row for each message that was sorted or threaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import apsw

from mailserver.message.sort_keys import FIELDS, Groups, SortKeys
from mailserver.store.index.header_texts import storable
from mailserver.store.index.statements import LOW, insert, select, shifted_spans

TABLE: Final = """
CREATE TABLE IF NOT EXISTS sort_keys (
    id INTEGER PRIMARY KEY,
    made INTEGER NOT NULL,
    sent INTEGER,
    is_reply INTEGER,
    subject TEXT,
    sender TEXT,
    recipient TEXT,
    copied TEXT,
    display_sender TEXT,
    display_recipient TEXT,
    message_id TEXT,
    "references" TEXT
);
"""
_COLUMNS: Final = ", ".join(f'"{name}"' for name in ("made", *SortKeys._fields))


class SortKeyRows:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def get(self, key: int, uids: Sequence[int], names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return (uid, made, and the fields of SortKeys with these names) of messages (rising) that have a row.

        `made` has the groups (`message.sort_keys.Groups`) of the row.
        """
        columns = "".join([f', "{name}"' for name in names if name in SortKeys._fields])
        return list(select(self._connection, f"id & {LOW}, made{columns}", "sort_keys", key, uids))

    def put(self, key: int, groups: Groups, rows: Iterable[tuple[int, SortKeys]]) -> None:
        """Store the values of messages, of these groups alone, in place of what was there."""
        places = [
            at
            for at, name in enumerate(SortKeys._fields)
            if any(groups & group and name in FIELDS[group] for group in FIELDS)
        ]
        names = "".join([f', "{SortKeys._fields[at]}"' for at in places])
        insert(
            self._connection,
            f"INSERT OR REPLACE INTO sort_keys (id, made{names}) VALUES ",
            f"(?, ?{', ?' * len(places)})",
            ((key << 32 | uid, groups, *[_stored(values[at]) for at in places]) for uid, values in rows),
        )

    def copy(self, source: int, target: int, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy the values of copied messages: pairs of (uid there, uid here)."""
        self._connection.executemany(
            f"INSERT OR REPLACE INTO sort_keys (id, {_COLUMNS}) SELECT id + ?3, {_COLUMNS}"
            " FROM sort_keys WHERE id BETWEEN ?1 AND ?2",
            shifted_spans(source << 32, target << 32, pairs),
        )


def _stored(value: Any) -> Any:
    return storable(value) if isinstance(value, str) else value
