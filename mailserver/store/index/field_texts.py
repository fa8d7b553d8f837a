# ruff: noqa: S608 - what is put into the statements are marks, never data
"""The field_texts table: the texts of those header fields alone that a first search asked for.

Mail whose header no session has seen is searched by one or two fields, most often by Subject. Making, writing and
scanning the text of all fields takes three times as long as reading the file; a Subject is a tenth of that. A search
for other fields makes rows in `header_texts` in place of these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import apsw

from mailserver.store.index.header_texts import matching, storable_text
from mailserver.store.index.statements import LOW, insert, select
from mailserver.types import UID

TABLE: Final = """
CREATE TABLE IF NOT EXISTS field_texts (
    id INTEGER PRIMARY KEY,
    names TEXT NOT NULL,
    text TEXT NOT NULL
);
"""


class FieldTexts:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's.

    `names` are lower-case names of kept fields. Texts are like HeaderText.text, of these fields alone.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def get(self, key: int, uids: Sequence[int], names: Collection[str]) -> list[tuple[UID, str]]:
        """Return (uid, text) of messages (rising) that have a text of these fields."""
        wanted = _label(names)
        rows = select(self._connection, f"id & {LOW}, text, names", "field_texts", key, uids)
        return [(uid, text) for uid, text, label in rows if label == wanted]

    def find_needles(
        self, key: int, uids: Sequence[UID], needles: Sequence[str], names: Collection[str]
    ) -> tuple[list[tuple[UID, str]], list[UID]]:
        """Return the messages (rising) that may have a needle in these fields, and those that have no text of them."""
        if not uids:
            return [], []
        test, values = matching(needles)
        span = key << 32 | uids[0], key << 32 | uids[-1]
        query = f"SELECT id & {LOW}, text FROM field_texts WHERE id BETWEEN ? AND ? AND names = ?"
        label = _label(names)
        hits: list[Any] = self._connection.execute(f"{query} AND {test}", (*span, label, *values)).fetchall()
        if uids[-1] - uids[0] + 1 == len(uids):
            count: Any = self._connection.execute(query.replace(f"id & {LOW}, text", "count(*)"), (*span, label)).get
            if count == len(uids):
                return hits, []
        there = {row[0] for row in self._connection.execute(query, (*span, label))}
        wanted = set(uids)
        return [row for row in hits if row[0] in wanted], [uid for uid in uids if uid not in there]

    def is_used(self, key: int, uids: Sequence[int]) -> bool:
        """Tell whether a message between the first and the last of these has a text, of whatever fields."""
        query = "SELECT 1 FROM field_texts WHERE id BETWEEN ? AND ? LIMIT 1"
        return self._connection.execute(query, (key << 32 | uids[0], key << 32 | uids[-1])).fetchone() is not None

    def put(self, key: int, names: Collection[str], texts: Iterable[tuple[int, str]]) -> None:
        """Store texts of these fields: (uid, text)."""
        label = _label(names)
        insert(
            self._connection,
            "INSERT OR REPLACE INTO field_texts (id, names, text) VALUES ",
            "(?, ?, ?)",
            ((key << 32 | uid, label, storable_text(text)) for uid, text in texts),
        )


def _label(names: Collection[str]) -> str:
    return " ".join(sorted(names))
