"""The values of a message's items from columns, and from items' own functions, as `FetchPlan.line` takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mailserver.errors import MessageExpunged
from mailserver.imap.fetch.plan import FetchPlan, Item, Need, Rows
from mailserver.imap.fetch.section import without_nul
from mailserver.imap.wire import writer
from mailserver.store.rows import Row
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE


class RowCells:
    """The columns of one group of messages, by position; `Work` answers from them."""

    def __init__(self, plan: FetchPlan, rows: Rows, flags: Sequence[bytes], seen: frozenset[int]) -> None:
        self._plan = plan
        self._rows = rows
        self._flags = flags
        self._seen = seen
        self._looked_up: dict[Item, Mapping[UID, bytes]] = {}
        """The values of the items with functions of their own."""
        self._measured: dict[int, Row] = {}
        """Rows that were read where the columns do not know all sizes and dates."""

    def _whole(self, at: int, data: bytes) -> bytes:
        """A small message that has been read, and items from columns."""
        cells: list[object] = [self._rows.seqs[at]]
        for item in self._plan.items:
            if item.need is Need.FILE:
                cells += (len(data), without_nul(data))
            else:
                cells.append(self._cell(at, item))
        return self._plan.whole_line % tuple(cells)

    def _cell(self, at: int, item: Item) -> object:
        """The value of an item from columns, for `FetchPlan.line`, or of its own function. Raises: MessageExpunged."""
        rows = self._rows
        if item.need is Need.LOOKUP:
            value = self._looked_up[item].get(UID(rows.uids[at]))
            if value is None:
                raise MessageExpunged
            return value
        match item.label:
            case b"FLAGS":
                return self._flags[at]
            case b"UID":
                return rows.uids[at]
            case b"MODSEQ":
                return rows.modseqs[at]
            case b"RFC822.SIZE":
                size = rows.sizes[at]
                return self._measured_row(rows.uids[at]).size if size == UNKNOWN_SIZE else size
        date = rows.dates[at]
        return writer.date_time(self._measured_row(rows.uids[at]).date if date == UNKNOWN_DATE else date)

    def _measured_row(self, uid: int) -> Row:
        """Raises: MessageExpunged."""
        row = self._measured.get(uid)
        if row is None:
            raise MessageExpunged
        return row

    def _end(self, at: int) -> bytes:
        """Behind the last item: the flags too, if this FETCH changed them (RFC 3501 6.4.5)."""
        if self._rows.uids[at] in self._seen and not self._plan.has_flags:
            return b" FLAGS %b)\r\n" % self._flags[at]
        return b")\r\n"
