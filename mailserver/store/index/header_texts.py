# ruff: noqa: S608 - what is put into the statements are marks, never data
"""The header_texts table: the header text that SEARCH uses, one short row for each message that was searched.

GLOB finds a needle in a third of the time of instr(), as it finds the first octet with a C library call. From there it
compares octet by octet: so it gets only the start of a needle, and no mail and no needle make it take long. The caller
checks each hit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import apsw

from mailserver.message.summary import INCOMPLETE
from mailserver.store.index.statements import insert, select, shifted_spans
from mailserver.types import UID

_LOW: Final = 0xFFFFFFFF
_FILTERED: Final = 24
"""Characters of a needle that the database compares."""
_EVER: Final = 1 << 62
"""Above any day."""
_WILD: Final = re.compile(r"[*?\[]")


class HeaderTexts:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def get(self, key: int, uids: Sequence[int]) -> list[tuple[UID, str, int | None]]:
        """Return (uid, HeaderText.text, HeaderText.sent) of messages (rising) that have a row."""
        return list(select(self._connection, f"id & {_LOW}, text, sent", "header_texts", key, uids))

    def find_needles(
        self, key: int, uids: Sequence[UID], needles: Sequence[str]
    ) -> tuple[list[tuple[UID, str]], list[UID]]:
        """Return the messages (rising) that may have a needle in their text, and those that have no row.

        The former as (uid, HeaderText.text), INCOMPLETE texts among them.
        """
        if not uids:
            return [], []
        low, high = uids[0], uids[-1]
        if _is_sparse(uids):
            return self._among(key, uids, needles)
        span = (key << 32 | low, key << 32 | high)
        test, values = matching(needles)
        query = f"SELECT id & {_LOW}, text FROM header_texts WHERE id BETWEEN ? AND ? AND {test}"
        hits: list[Any] = self._connection.execute(query, (*span, *values)).fetchall()
        count: Any = self._connection.execute("SELECT count(*) FROM header_texts WHERE id BETWEEN ? AND ?", span).get
        missing = [] if count == high - low + 1 else self._missing(span, uids)
        if len(uids) == high - low + 1:
            return hits, missing
        wanted = set(uids)
        return [row for row in hits if row[0] in wanted], missing

    def sent_within(
        self, key: int, uids: Sequence[UID], first: int | None, end: int | None
    ) -> tuple[list[UID], list[UID]]:
        """Return the messages (rising) that were sent on days from `first` to before `end`, and those that have no row."""
        if not uids:
            return [], []
        first = -_EVER if first is None else first
        end = _EVER if end is None else end
        low, high = uids[0], uids[-1]
        if _is_sparse(uids):
            days: dict[int, int | None] = dict(
                select(self._connection, f"id & {_LOW}, sent", "header_texts", key, uids)
            )
            hits = [uid for uid in uids if (day := days.get(uid)) is not None and first <= day < end]
            return hits, [uid for uid in uids if uid not in days]
        span = (key << 32 | low, key << 32 | high)
        query = (
            f"SELECT count(*), group_concat(id & {_LOW}) FILTER (WHERE sent >= ? AND sent < ?)"
            " FROM header_texts WHERE id BETWEEN ? AND ?"
        )
        row: Any = self._connection.execute(query, (first, end, *span)).fetchone()
        count, text = row
        missing = [] if count == high - low + 1 else self._missing(span, uids)
        within = _numbers(text)
        return [uid for uid in uids if uid in within], missing

    def _missing(self, span: tuple[int, int], uids: Sequence[UID]) -> list[UID]:
        """Return the messages within that span of ids that have no row."""
        query = f"SELECT group_concat(id & {_LOW}) FROM header_texts WHERE id BETWEEN ? AND ?"
        text: Any = self._connection.execute(query, span).get
        there = _numbers(text)
        return [uid for uid in uids if uid not in there]

    def _among(self, key: int, uids: Sequence[UID], needles: Sequence[str]) -> tuple[list[tuple[UID, str]], list[UID]]:
        texts = [(uid, text) for uid, text, _sent in self.get(key, uids)]
        missing = set(uids).difference([uid for uid, _text in texts])
        return [
            (uid, text) for uid, text in texts if text == INCOMPLETE or any(needle in text for needle in needles)
        ], sorted(missing)

    def put(self, key: int, texts: Iterable[tuple[int, str, int | None]]) -> None:
        """Store texts and days: (uid, HeaderText.text, HeaderText.sent)."""
        insert(
            self._connection,
            "INSERT OR REPLACE INTO header_texts (id, text, sent) VALUES ",
            "(?, ?, ?)",
            ((key << 32 | uid, storable_text(text), sent) for uid, text, sent in texts),
        )

    def copy(self, source: int, target: int, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy the texts of copied messages: pairs of (uid there, uid here)."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO header_texts SELECT id + ?3, text, sent FROM header_texts WHERE id BETWEEN ?1 AND ?2",
            shifted_spans(source << 32, target << 32, pairs),
        )


def _numbers(text: str | None) -> set[int]:
    """Parse the result of group_concat: one text for all takes half the time of a row for each."""
    return set(json.loads(f"[{text or ''}]"))


def _is_sparse(uids: Sequence[int]) -> bool:
    """Tell whether these are so few of the UIDs between the first and the last that single lookups are better."""
    return uids[-1] - uids[0] >= 4 * len(uids) + 64


def matching(needles: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return a condition, and its values, that holds for texts that may have a needle, INCOMPLETE ones among them."""
    tests = " OR ".join(["text = ?", *["text GLOB ?"] * len(needles)])
    return f"({tests})", (INCOMPLETE, *map(_pattern, needles))


def _pattern(needle: str) -> str:
    return "*" + _WILD.sub(r"[\g<0>]", storable(needle[:_FILTERED])) + "*"


def storable_text(text: str) -> str:
    """Return what stands for a text in the database, whose functions end a text at NUL."""
    return INCOMPLETE if "\0" in text else storable(text)


def storable(text: str) -> str:
    """Replace lone surrogates, which a database cannot store."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
