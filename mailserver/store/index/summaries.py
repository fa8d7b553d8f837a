"""The summaries table: what was rendered of a message once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import apsw

from mailserver.message.summary import Summary
from mailserver.store.index.messages import select

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
