"""FETCH of whole messages, or of their headers, that are in memory: of the worker, or of the kernel.

That is what most clients fetch. Reading such a message takes some ten microseconds; a hop to the account's thread, as `work`
needs it, takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from mailserver.imap.fetch.plan import CHUNK, FetchPlan, Rows
from mailserver.imap.fetch.section import HEADER, without_nul
from mailserver.imap.selected_mailbox import SelectedMailbox
from mailserver.types import UID, UNKNOWN_SIZE

_BLANK: Final = b"\r\n\r\n"


def cached_responses(
    selected: SelectedMailbox, plan: FetchPlan, rows: Rows, columns: Sequence[Sequence[object]]
) -> Iterator[bytes]:
    """The responses of these messages, until one is not in memory or has more than CHUNK octets.

    For plans with a `common_section`. `columns`: the sequence numbers, then the values of each item that is a column.
    """
    section, live = plan.common_section, selected.live
    assert section is not None
    text, read_cached = live.account.message_cache.text, live.mailbox.read_cached
    is_header, line = section == HEADER, plan.whole_line
    places = plan.literal_cells
    sizes = rows.sizes
    for at, uid in enumerate(rows.uids):
        data = text(live, uid)
        if data is None:
            size = sizes[at]
            if size > CHUNK and not is_header and size != UNKNOWN_SIZE:
                return
            data = read_cached(UID(uid), None if size == UNKNOWN_SIZE else size, is_header)
        elif is_header:
            data = header_of(data)
        if data is None or len(data) > CHUNK:
            return
        data = without_nul(data)
        cells: list[object] = [column[at] for column in columns]
        for place in places:
            cells[place:place] = len(data), data
        yield line % tuple(cells)


def header_of(text: bytes) -> bytes | None:
    """The header of a message with its empty line; None where that is not found simply."""
    end = text.find(_BLANK)
    return text[: end + len(_BLANK)] if end >= 0 and not text.startswith(b"\r\n") else None
