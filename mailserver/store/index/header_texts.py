# ruff: noqa: S608 - what is put into the statements are marks, never data
"""The header_texts table: what SEARCH looks at of a message's header, one short row for each that has a summary.

GLOB finds a needle in a third of the time that instr() takes, as it looks for the first octet with a C library call.
It compares octet by octet from there: so only the start of a needle is given to it, and no mail and no needle make it
take long. Whatever it finds is judged by who asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import apsw

from mailserver.message.summary import INCOMPLETE, Summary
from mailserver.store.index.messages import select
from mailserver.types import UID

_LOW: Final = 0xFFFFFFFF
_FILTERED: Final = 24
"""Characters of a needle that the database looks for."""
_WILD: Final = re.compile(r"[*?\[]")


class HeaderTexts:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def get(self, key: int, uids: Sequence[int]) -> list[tuple[UID, str, int | None]]:
        """(uid, Summary.search, Summary.sent) of those that are there, of messages with rising UIDs."""
        return list(select(self._connection, f"id & {_LOW}, text, sent", "header_texts", key, uids))

    def with_needles(
        self, key: int, uids: Sequence[UID], needles: Sequence[str]
    ) -> tuple[list[tuple[UID, str]], list[UID]]:
        """Which of the messages (rising) may have a needle in their text, and which have no text here.

        The first are (uid, Summary.search), INCOMPLETE among them.
        """
        if not uids:
            return [], []
        low, high = uids[0], uids[-1]
        if high - low >= 4 * len(uids) + 64:
            return self._among(key, uids, needles)
        span = (key << 32 | low, key << 32 | high)
        tests = " OR ".join(["text = ?", *["text GLOB ?"] * len(needles)])
        query = f"SELECT id & {_LOW}, text FROM header_texts WHERE id BETWEEN ? AND ? AND ({tests})"
        hits: list[Any] = self._connection.execute(query, (*span, INCOMPLETE, *map(_pattern, needles))).fetchall()
        count: Any = self._connection.execute("SELECT count(*) FROM header_texts WHERE id BETWEEN ? AND ?", span).get
        if count == high - low + 1 == len(uids):
            return hits, []
        there = self._connection.execute(f"SELECT id & {_LOW} FROM header_texts WHERE id BETWEEN ? AND ?", span)
        missing = set(uids).difference([uid for (uid,) in there.fetchall()])
        wanted = set(uids)
        return [row for row in hits if row[0] in wanted], sorted(missing)

    def _among(self, key: int, uids: Sequence[UID], needles: Sequence[str]) -> tuple[list[tuple[UID, str]], list[UID]]:
        texts = [(uid, text) for uid, text, _sent in self.get(key, uids)]
        missing = set(uids).difference([uid for uid, _text in texts])
        return [
            (uid, text) for uid, text in texts if text == INCOMPLETE or any(needle in text for needle in needles)
        ], sorted(missing)

    def put(self, key: int, summaries: Iterable[tuple[int, Summary]]) -> None:
        """Keep what SEARCH needs of them."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO header_texts (id, text, sent) VALUES (?, ?, ?)",
            # The database's functions end a text at NUL.
            (
                (
                    key << 32 | uid,
                    INCOMPLETE if "\0" in summary.search else storable(summary.search),
                    summary.sent,
                )
                for uid, summary in summaries
            ),
        )

    def copy(self, moves: Iterable[tuple[int, int, int]]) -> None:
        """Texts whose messages are copied: first and last id of each run, and what its ids grow by."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO header_texts SELECT id + ?3, text, sent FROM header_texts WHERE id BETWEEN ?1 AND ?2",
            moves,
        )


def _pattern(needle: str) -> str:
    return "*" + _WILD.sub(r"[\g<0>]", storable(needle[:_FILTERED])) + "*"


def storable(text: str) -> str:
    """Without lone surrogates, which no database takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
