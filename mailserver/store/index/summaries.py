# ruff: noqa: S608 - what is put into the statements are marks, never data
"""The summaries table: what was rendered of a message once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from mailserver.message.summary import INCOMPLETE, Summary
from mailserver.store.index.messages import select
from mailserver.types import UID

_COLUMNS = "id & 0xFFFFFFFF, envelope, body, body_structure, fields, search, sent"


class Summaries:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def get(self, key: int, uids: Sequence[int]) -> dict[int, Summary]:
        """Those that are there, of messages with rising UIDs."""
        rows = select(self._connection, _COLUMNS, "summaries", key, uids)
        return {row[0]: Summary(*row[1:]) for row in rows}

    def search_texts(self, key: int, uids: Sequence[int]) -> dict[int, tuple[str, int | None]]:
        """Searchable header text and sent day of those that are there."""
        rows = select(self._connection, "id & 0xFFFFFFFF, search, sent", "summaries", key, uids)
        return {uid: (text, sent) for uid, text, sent in rows}

    def texts_with(self, key: int, uids: Sequence[int], needles: Sequence[str]) -> list[tuple[UID, str | None]]:
        """(uid, searchable header text) of those that are there; None for a text that has none of the needles."""
        if not uids:
            return []
        low, high = uids[0], uids[-1]
        if high - low >= 2 * len(uids) + 16:
            rows = select(self._connection, "id & 0xFFFFFFFF, search", "summaries", key, uids)
            return [
                (uid, text if text == INCOMPLETE or any(needle in text for needle in needles) else None)
                for uid, text in rows
            ]
        # What the database finds need not come into Python's hands first.
        found = " OR ".join(["search = ?", *["instr(search, ?)"] * len(needles)])
        query = f"SELECT id & 0xFFFFFFFF, CASE WHEN {found} THEN search END FROM summaries WHERE id BETWEEN ? AND ?"
        values = (INCOMPLETE, *[needle.encode("utf-8", "replace").decode() for needle in needles])
        first = key << 32
        everything: list[Any] = self._connection.execute(query, (*values, first + low, first + high)).fetchall()
        if high - low + 1 == len(uids):
            return everything
        wanted = set(uids)
        return [row for row in everything if row[0] in wanted]

    def put(self, key: int, summaries: Iterable[tuple[int, Summary]]) -> None:
        """Keep them."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO summaries (id, envelope, body, body_structure, fields, search, sent)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    key << 32 | uid,
                    summary.envelope,
                    summary.body,
                    summary.body_structure,
                    summary.fields,
                    summary.search.encode("utf-8", "replace").decode(),
                    summary.sent,
                )
                for uid, summary in summaries
            ),
        )

    def copy(self, source: int, target: int, pairs: Iterable[tuple[int, int]]) -> None:
        """Messages of one mailbox are copied to another, (uid there, uid here): so are their summaries."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO summaries SELECT ?2, envelope, body, body_structure, fields, search, sent"
            " FROM summaries WHERE id = ?1",
            ((source << 32 | old, target << 32 | new) for old, new in pairs),
        )
