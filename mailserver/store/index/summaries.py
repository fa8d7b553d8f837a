"""The summaries table: what was rendered of a message once, for answers to FETCH.

The texts for SEARCH are another table (`header_texts`): a search makes them of the lines here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import apsw

from mailserver.message.summary import Summary
from mailserver.store.index.statements import insert, select, shifted_spans
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID

_COLUMNS = "id & 0xFFFFFFFF, envelope, body, body_structure, fields"


class Summaries:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def get(self, key: int, uids: Sequence[int], time_slice: TimeSlice | None = None) -> dict[int, Summary]:
        """Return the summaries of messages (rising) until the time slice is full."""
        rows = select(self._connection, _COLUMNS, "summaries", key, uids)
        if time_slice is None:
            return {row[0]: Summary(*row[1:]) for row in rows}
        found = {}
        octets = 0
        for uid, envelope, body, structure, fields in rows:
            found[uid] = Summary(envelope, body, structure, fields)
            octets += len(envelope) + len(body) + len(structure) + len(fields)
            # So many octets are read in a moment: no need to check the clock for each.
            if octets >= time_slice.left:
                break
        if found:
            time_slice.take(octets)
        return found

    def envelopes(self, key: int, uids: Sequence[int], time_slice: TimeSlice | None = None) -> dict[UID, bytes]:
        """Return the envelopes of messages (rising) until the time slice is full."""
        return self._column("envelope", key, uids, time_slice)

    def lines(self, key: int, uids: Sequence[int], time_slice: TimeSlice | None = None) -> dict[UID, bytes]:
        """Return `Summary.fields` of messages (rising) until the time slice is full."""
        return self._column("fields", key, uids, time_slice)

    def _column(self, name: str, key: int, uids: Sequence[int], time_slice: TimeSlice | None) -> dict[UID, bytes]:
        rows = select(self._connection, f"id & 0xFFFFFFFF, {name}", "summaries", key, uids)
        if time_slice is None:
            return dict(rows)
        found = {}
        octets, left = 0, time_slice.left
        for uid, value in rows:
            found[uid] = value
            octets += len(value)
            if octets >= left:
                break
        if found:
            time_slice.take(octets)
        return found

    def put(self, key: int, summaries: Iterable[tuple[int, Summary]]) -> None:
        """Store summaries."""
        insert(
            self._connection,
            "INSERT OR REPLACE INTO summaries (id, envelope, body, body_structure, fields) VALUES ",
            "(?, ?, ?, ?, ?)",
            ((key << 32 | uid, *summary) for uid, summary in summaries),
        )

    def copy(self, source: int, target: int, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy the summaries of copied messages: pairs of (uid there, uid here)."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO summaries SELECT id + ?3, envelope, body, body_structure, fields"
            " FROM summaries WHERE id BETWEEN ?1 AND ?2",
            shifted_spans(source << 32, target << 32, pairs),
        )
