"""FETCH of whole messages, or of their headers, that are in memory: of the worker, or of the kernel.

That is what most clients fetch. Reading such a message takes some ten microseconds; a hop to the account's thread, as `work`
needs it, takes ten times as long. Most such commands name one message: `single_response` answers it without the steps that
pay for many. It takes what it answers from where the other ways take it, and leaves all that is unusual to them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from mailserver.imap.fetch.plan import CHUNK, FetchPlan, Rows
from mailserver.imap.fetch.section import without_nul
from mailserver.imap.selected_mailbox import SelectedMailbox
from mailserver.imap.updates import keyword_lines
from mailserver.imap.wire import writer
from mailserver.message.surrogate import is_plain
from mailserver.store.flags import SEEN
from mailserver.store.live import LiveMailbox
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE

_BLANK: Final = b"\r\n\r\n"


def cached_responses(
    selected: SelectedMailbox, plan: FetchPlan, rows: Rows, columns: Sequence[Sequence[object]], *, utf8: bool
) -> Iterator[bytes]:
    """The responses of these messages, until one is not in memory, has more than CHUNK octets, or may need a surrogate.

    For plans with a `common_section`. `columns`: the sequence numbers, then the values of each item that is a column. `utf8`:
    the client takes UTF-8 in headers.
    """
    live, sizes = selected.live, rows.sizes
    for at, uid in enumerate(rows.uids):
        data = _cached_text(live, plan, uid, sizes[at], utf8=utf8)
        if data is None:
            return
        cells: list[object] = [column[at] for column in columns]
        for place in plan.literal_cells:
            cells[place:place] = len(data), data
        yield plan.whole_line % tuple(cells)


def single_response(selected: SelectedMailbox, plan: FetchPlan, number: int, *, uid: bool, utf8: bool) -> bytes | None:
    """The response of the message with this sequence number or UID, after new keywords. `utf8` as for `cached_responses`.

    None: there is no such message, or `FetchResponse` has more to do for it than to answer from columns and memory.
    """
    view = selected.view
    columns = view.columns
    uids = columns.uids
    if not plan.is_single or view.uids is not uids or "UIDONLY" in selected.enabled:
        return None
    at = bisect_left(uids, number, 0, view.count) if uid else number - 1
    if at >= view.count or (uid and uids[at] != number):
        return None
    number, mask, size, date = uids[at], columns.flags[at], columns.sizes[at], columns.dates[at]
    if (plan.measured and (size == UNKNOWN_SIZE or date == UNKNOWN_DATE)) or (plan.sets_seen and not mask & SEEN):
        return None
    data = b""
    if plan.needs_file:
        found = _cached_text(selected.live, plan, number, size, utf8=utf8)
        if found is None:
            return None
        data = found
    flags = lines = b""
    if plan.has_flags:
        lines = keyword_lines(selected)
        flag_text = writer.few_flags if mask <= writer.CACHED_MASKS else writer.flags
        flags = flag_text(mask, columns.keywords, number in view.recent_uids)
    values = at + 1, flags, number, size, writer.date_time(date) if plan.has_dates else b"", columns.modseqs[at]
    cells: list[object] = list(map(values.__getitem__, plan.column_places))
    for place in plan.literal_cells:
        cells[place:place] = len(data), data
    return lines + plan.whole_line % tuple(cells)


def _cached_text(live: LiveMailbox, plan: FetchPlan, uid: int, size: int, *, utf8: bool) -> bytes | None:
    """The plan's section of a message, without NUL; None if `cached_responses` ends there."""
    data = live.account.message_cache.text(live, uid)
    if data is None:
        if size > CHUNK and not plan.is_header and size != UNKNOWN_SIZE:
            return None
        data = live.mailbox.read_cached(UID(uid), None if size == UNKNOWN_SIZE else size, plan.is_header)
    elif plan.is_header:
        data = header_of(data)
    if data is None or len(data) > CHUNK or not (utf8 or data.isascii() or is_plain(data)):
        return None
    return without_nul(data)


def header_of(text: bytes) -> bytes | None:
    """The header of a message with its empty line; None where that is not found simply."""
    end = text.find(_BLANK)
    return text[: end + len(_BLANK)] if end >= 0 and not text.startswith(b"\r\n") else None
