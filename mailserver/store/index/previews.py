"""The previews table: the preview (RFC 8970) of each message for which a client has asked for one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import apsw

from mailserver.store.index.statements import insert, select, shifted_spans
from mailserver.types import UID

TABLE: Final = """
CREATE TABLE IF NOT EXISTS previews (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL
);
"""


class Previews:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def get(self, key: int, uids: Sequence[int]) -> dict[UID, str]:
        """Return the previews of messages (rising) that have one."""
        return dict(select(self._connection, "id & 0xFFFFFFFF, text", "previews", key, uids))

    def put(self, key: int, texts: Iterable[tuple[int, str]]) -> None:
        """Store previews: (uid, text)."""
        insert(
            self._connection,
            "INSERT OR REPLACE INTO previews (id, text) VALUES ",
            "(?, ?)",
            ((key << 32 | uid, text) for uid, text in texts),
        )

    def copy(self, source: int, target: int, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy the previews of copied messages: pairs of (uid there, uid here)."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO previews SELECT id + ?3, text FROM previews WHERE id BETWEEN ?1 AND ?2",
            shifted_spans(source << 32, target << 32, pairs),
        )
