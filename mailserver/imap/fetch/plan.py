"""The plan of a FETCH: its items, and the rows of the columns that they are answered from."""

from __future__ import annotations

import enum
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from attrs import define, field, frozen

from mailserver.imap.fetch.section import HEADER, WHOLE, Range, Section
from mailserver.imap.selected_mailbox import SelectedMailbox
from mailserver.store.interfaces import Mailbox
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE

CHUNK: Final = 256 * 1024
"""Octets that are prepared before the client must take them."""
FEW_KEPT: Final = 4
"""Items of kept lines that are each found by a pattern of its own; for more, the lines are cut into fields."""
_ROWS: Final = 500
_UNKNOWN_SIZE: Final = array("I", [UNKNOWN_SIZE]).tobytes()
_UNKNOWN_DATE: Final = array("q", [UNKNOWN_DATE]).tobytes()


class Need(enum.Enum):
    """The source of an item."""

    COLUMN = 0
    SUMMARY = 1
    FILE = 2
    LOOKUP = 3
    """The item's own function, which is asked for many messages at once."""


LookUp = Callable[[Mailbox, Sequence[UID], TimeSlice], Mapping[UID, bytes]]
"""Takes UIDs (rising), in the account's thread. Returns the values as they are sent, in that order, without messages that are gone.

It examines at least one message; once the time slice is full, those after the last one in the result have not been examined.
"""


@frozen
class Item:
    """One FETCH item."""

    label: bytes
    need: Need
    section: Section | None = None
    sets_seen: bool = False
    look_up: LookUp | None = None
    """Of Need.LOOKUP."""


FORMATS: Final = {
    b"FLAGS": b"FLAGS %b",
    b"UID": b"UID %d",
    b"INTERNALDATE": b"INTERNALDATE %b",
    b"RFC822.SIZE": b"RFC822.SIZE %d",
    b"MODSEQ": b"MODSEQ (%d)",
}
"""The formats of items from columns; all others are their label and octets."""
_PLACES: Final = {b"FLAGS": 1, b"UID": 2, b"RFC822.SIZE": 3, b"INTERNALDATE": 4, b"MODSEQ": 5}
"""See `FetchPlan.column_places`."""


@frozen
class FetchPlan:
    """The items and modifiers of one FETCH, and their common needs."""

    items: tuple[Item, ...]
    modifiers: tuple[tuple[str, Any], ...] = ()
    """Names and values, each name once (RFC 4466 2.4)."""
    response: bytes = b"FETCH"
    """The response's name: UIDFETCH has the UID in place of the message number (RFC 9586 3.3)."""
    line: bytes = field(init=False)
    """The format of one message of a plan that needs no file."""
    literal_line: bytes = field(init=False)
    """The same, with the length and octets of each item of kept lines."""
    whole_line: bytes = field(init=False)
    """The same, whole messages included: their length and octets."""
    only_whole: bool = field(init=False)
    """The only things that need a file are whole messages, and nothing needs a summary."""
    common_section: Section | None = field(init=False)
    """WHOLE or HEADER, if that is all that it needs beside columns."""
    is_header: bool = field(init=False)
    """That section is HEADER."""
    is_single: bool = field(init=False)
    """Columns and the common section are all that it needs, and it has no modifiers."""
    column_places: tuple[int, ...] = field(init=False)
    """The columns of a response in its order, as places in: sequence numbers, flags, UIDs, sizes, dates,
    modseqs.
    """
    literal_cells: tuple[int, ...] = field(init=False)
    """The cells of `whole_line`, the sequence number's included, at which the length of a literal stands."""
    needs_summary: bool = field(init=False)
    only_head: bool = field(init=False)
    """Of the summaries only the data of headers is needed, and neither sizes nor dates."""
    has_structure: bool = field(init=False)
    """BODY or BODYSTRUCTURE is asked for."""
    only_envelopes: bool = field(init=False)
    """Envelopes are all that is needed of the summaries, and no file is."""
    only_lines: bool = field(init=False)
    """Kept lines are all that is needed of the summaries, for at most FEW_KEPT items, and no file is."""
    needs_file: bool = field(init=False)
    lookups: tuple[Item, ...] = field(init=False)
    """The items with functions of their own."""
    only_headers: bool = field(init=False)
    """Its sections need nothing but the message's header."""
    sections: tuple[Section, ...] = field(init=False)
    """The sections of its items."""
    has_binary: bool = field(init=False)
    """One of them is of RFC 3516."""
    few_kept: bool = field(init=False)
    """No more than FEW_KEPT items are kept lines."""
    sets_seen: bool = field(init=False)
    is_resync: bool = field(init=False)
    """Expunged messages are asked for, too (RFC 7162 3.2.6)."""
    measured: bool = field(init=False)
    """Sizes or dates are asked for."""
    has_flags: bool = field(init=False)
    has_dates: bool = field(init=False)
    has_modseqs: bool = field(init=False)

    @line.default
    def _line(self) -> bytes:
        formats = [FORMATS.get(item.label) or item.label.replace(b"%", b"%%") + b" %b" for item in self.items]
        return b"* %%d %b (%b)\r\n" % (self.response, b" ".join(formats))

    @literal_line.default
    def _literal_line(self) -> bytes:
        formats = [
            FORMATS.get(item.label) or item.label.replace(b"%", b"%%") + (b" {%d}\r\n%b" if item.section else b" %b")
            for item in self.items
        ]
        return b"* %%d %b (%b)\r\n" % (self.response, b" ".join(formats))

    @whole_line.default
    def _whole_line(self) -> bytes:
        formats = [
            FORMATS.get(item.label) or item.label + (b" {%d}\r\n%b" if item.need is Need.FILE else b" %b")
            for item in self.items
        ]
        return b"* %%d %b (%b)\r\n" % (self.response, b" ".join(formats))

    @only_whole.default
    def _only_whole(self) -> bool:
        return all(
            item.need is Need.COLUMN or (item.need is Need.FILE and item.section == WHOLE) for item in self.items
        )

    @common_section.default
    def _common_section(self) -> Section | None:
        sections = {item.section for item in self.items if item.need is not Need.COLUMN}
        return next((each for each in (WHOLE, HEADER) if sections == {each}), None)

    @is_header.default
    def _is_header(self) -> bool:
        return self.common_section == HEADER

    @is_single.default
    def _is_single(self) -> bool:
        if self.modifiers:
            return False
        return self.common_section is not None or all(item.need is Need.COLUMN for item in self.items)

    @column_places.default
    def _column_places(self) -> tuple[int, ...]:
        return (0, *(_PLACES[item.label] for item in self.items if item.label in _PLACES))

    @literal_cells.default
    def _literal_cells(self) -> tuple[int, ...]:
        files = [item.need is Need.FILE for item in self.items]
        return tuple(1 + at + sum(files[:at]) for at, is_file in enumerate(files) if is_file)

    @needs_summary.default
    def _needs_summary(self) -> bool:
        return any(item.need is Need.SUMMARY for item in self.items)

    @only_head.default
    def _only_head(self) -> bool:
        return all(
            item.label in (b"FLAGS", b"UID", b"MODSEQ", b"ENVELOPE")
            or item.section is not None
            or item.need is Need.LOOKUP
            for item in self.items
        )

    @has_structure.default
    def _has_structure(self) -> bool:
        return any(item.label in (b"BODY", b"BODYSTRUCTURE") for item in self.items)

    @only_envelopes.default
    def _only_envelopes(self) -> bool:
        return self.needs_summary and all(item.need is Need.COLUMN or item.label == b"ENVELOPE" for item in self.items)

    @only_lines.default
    def _only_lines(self) -> bool:
        kept = [item for item in self.items if item.need is not Need.COLUMN]
        return 0 < len(kept) <= FEW_KEPT and all(
            item.need is Need.SUMMARY and item.section is not None for item in kept
        )

    @needs_file.default
    def _needs_file(self) -> bool:
        return any(item.need is Need.FILE for item in self.items)

    @lookups.default
    def _lookups(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.need is Need.LOOKUP)

    @only_headers.default
    def _only_headers(self) -> bool:
        return all(item.section is None or item.section.is_of_header for item in self.items)

    @sections.default
    def _sections(self) -> tuple[Section, ...]:
        return tuple(item.section for item in self.items if item.section is not None)

    @has_binary.default
    def _has_binary(self) -> bool:
        return any(section.binary for section in self.sections)

    @few_kept.default
    def _few_kept(self) -> bool:
        return sum(item.need is Need.SUMMARY and item.section is not None for item in self.items) <= FEW_KEPT

    @sets_seen.default
    def _sets_seen(self) -> bool:
        return any(item.sets_seen for item in self.items)

    @has_flags.default
    def _has_flags(self) -> bool:
        return any(item.label == b"FLAGS" for item in self.items)

    @has_dates.default
    def _has_dates(self) -> bool:
        return any(item.label == b"INTERNALDATE" for item in self.items)

    @has_modseqs.default
    def _has_modseqs(self) -> bool:
        return any(item.label == b"MODSEQ" for item in self.items)

    @is_resync.default
    def _is_resync(self) -> bool:
        return any(name == "VANISHED" for name, _value in self.modifiers)

    @measured.default
    def _measured(self) -> bool:
        return any(item.label in (b"INTERNALDATE", b"RFC822.SIZE") for item in self.items)


@lru_cache(maxsize=256)
def with_uids_only(plan: FetchPlan) -> FetchPlan:
    """The plan whose responses have no message numbers."""
    return FetchPlan(plan.items, plan.modifiers, b"UIDFETCH")


@frozen
class Rows:
    """The columns of some messages; parallel."""

    seqs: Sequence[int]
    """Message numbers, or the UIDs where the session has no numbers (RFC 9586)."""
    uids: Sequence[int]
    masks: Sequence[int]
    sizes: Sequence[int]
    dates: Sequence[int]
    gone: bool
    """Some are left out: they have been expunged, and their EXPUNGE has not been sent yet."""
    modseqs: Sequence[int] = ()

    def part(self, start: int, end: int) -> Rows:
        """Some of them."""
        if not start and end == len(self.uids):
            return self
        part = slice(start, end)
        return Rows(
            self.seqs[part], self.uids[part], self.masks[part], self.sizes[part], self.dates[part], gone=self.gone,
            modseqs=self.modseqs[part],
        )  # fmt: skip


def unmeasured(rows: Rows) -> bool:
    """Is a size or date among these not known yet? Octets are compared: that is 50 times as fast as numbers."""
    if isinstance(rows.sizes, array) and isinstance(rows.dates, array):
        sizes, dates = rows.sizes.tobytes(), rows.dates.tobytes()
        if _UNKNOWN_SIZE not in sizes and _UNKNOWN_DATE not in dates:
            return False
    return UNKNOWN_SIZE in rows.sizes or UNKNOWN_DATE in rows.dates


@define
class FetchBatchSize:
    """The number of messages that are taken at a time."""

    count: int = _ROWS

    def weigh(self, octets: int) -> None:
        """Adapt it to the memory that the last batch took."""
        if octets < CHUNK:
            self.count = min(self.count * 2, _ROWS)
        elif octets > 4 * CHUNK:
            self.count = max(self.count // 4, 1)


def gather(selected: SelectedMailbox, ranges: Iterable[Range], batch_size: FetchBatchSize) -> Iterator[Rows]:
    """The messages at those positions of the view, as many at a time as the batch_size says."""
    view, uids_only = selected.view, "UIDONLY" in selected.enabled
    for group in _groups(ranges, batch_size):
        columns = view.columns
        if view.is_synced and len(group) == 1:
            low, high = group[0]
            uids = columns.uids[low:high]
            yield Rows(
                uids if uids_only else range(low + 1, high + 1), uids, columns.flags[low:high],
                columns.sizes[low:high], columns.dates[low:high], gone=False, modseqs=columns.modseqs[low:high],
            )  # fmt: skip
            continue
        wanted = [at for low, high in group for at in range(low, high)]
        if view.is_synced:
            seqs, places = [at + 1 for at in wanted], wanted
        else:
            found = [(at + 1, columns.position(view.uids[at])) for at in wanted]
            seqs = [seq for seq, place in found if place >= 0]
            places = [place for _seq, place in found if place >= 0]
        found_uids, flags, sizes, dates, modseqs = (
            [column[at] for at in places]
            for column in (columns.uids, columns.flags, columns.sizes, columns.dates, columns.modseqs)
        )
        yield Rows(
            found_uids if uids_only else seqs,
            found_uids,
            flags,
            sizes,
            dates,
            gone=len(seqs) < len(wanted),
            modseqs=modseqs,
        )


def _groups(ranges: Iterable[Range], batch_size: FetchBatchSize) -> Iterator[list[Range]]:
    """The same positions in groups."""
    group: list[Range] = []
    room = batch_size.count
    for first, high in ranges:
        low = first
        while low < high:
            end = min(high, low + room)
            group.append((low, end))
            room -= end - low
            low = end
            if room == 0:
                yield group
                group, room = [], batch_size.count
    if group:
        yield group
