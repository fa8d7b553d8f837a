"""The FETCH response of one message, item by item.

A response may be many times the size of the message: each item may be all of it. So it is made piece by piece, in further
turns of the account's thread, as the client takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from attrs import define

from mailserver.imap.fetch.binary import formatted
from mailserver.imap.fetch.header_fields import Fields, SelectedFields
from mailserver.imap.fetch.open_message import OpenMessage
from mailserver.imap.fetch.plan import CHUNK, FORMATS, FetchPlan, Item, Need
from mailserver.imap.fetch.section import Range, Section, kept_lines, lines_pattern, without_nul
from mailserver.message.header_summary import KEPT
from mailserver.message.summary import INCOMPLETE, Summary
from mailserver.store.interfaces import MessageFile
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID

Piece = bytes | Range
KEPT_LINES_UNKNOWN = INCOMPLETE.encode("ascii")


@define
class LargeResponse:
    """The response of one message that is sent in pieces."""

    uid: UID
    file: MessageFile
    """The file that the pieces are places in; see `surrogate.original_of`."""
    pieces: list[Piece]
    rest: Iterator[Piece | None] | None
    """The rest of the response, if it was not all made at once."""

    def go_on(self) -> None:
        """In the account's thread: make the next pieces. Raises: StoreUnavailable."""
        assert self.rest is not None
        self.pieces, ended = collect(self.rest, TimeSlice(CHUNK))
        if ended:
            self.rest = None


def collect(pieces: Iterator[Piece | None], time_slice: TimeSlice | None) -> tuple[list[Piece], bool]:
    """The next pieces, as many as fit (all of them without a time_slice), and whether these are the last ones.

    Ranges take no room: they are read when they are sent.
    """
    found: list[Piece] = []
    for piece in pieces:
        if piece is not None:
            found.append(piece)
        if time_slice is not None and time_slice.take(len(piece) if isinstance(piece, bytes) else 0):
            return found, False
    return found, True


def total(pieces: Iterable[Piece]) -> int:
    """The octets of the pieces."""
    return sum([len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces])


class MessageFormatter:
    """Formats the items of one message; `cell` returns its values from columns."""

    def __init__(self, plan: FetchPlan, cell: Callable[[Item], object], summary: Summary | None) -> None:
        self._plan = plan
        self._cell = cell
        self._summary = summary
        self._kept: Fields | None = None

    @property
    def lacks_lines(self) -> bool:
        """Are kept lines asked for, and missing?"""
        summary = self._summary
        return summary is not None and summary.fields == KEPT_LINES_UNKNOWN and bool(self._plan.sections)

    def simple(self, item: Item) -> bytes:
        """An item that needs no file."""
        if item.need is Need.COLUMN:
            return FORMATS[item.label] % self._cell(item)
        if item.need is Need.LOOKUP:
            return item.label + b" %b" % self._cell(item)  # type: ignore[str-format]
        summary = self._summary
        assert summary is not None
        match item.label:
            case b"ENVELOPE":
                return b"ENVELOPE " + summary.envelope
            case b"BODY":
                return b"BODY " + summary.body
            case b"BODYSTRUCTURE":
                return b"BODYSTRUCTURE " + summary.body_structure
        if self._plan.few_kept:
            return b"%b %b" % (item.label, kept_literal(item, summary))
        if self._kept is None:
            self._kept = Fields(summary.fields, KEPT)
        assert item.section is not None
        return b"%b %b" % (item.label, _literal(item, self._kept.select(item.section)))

    def items(self, message: OpenMessage | None) -> Iterator[Piece | None]:
        """All items, with the spaces between; None is a pause. Raises: StoreUnavailable, NotCached, BudgetExceeded."""
        incomplete = self.lacks_lines
        for number, item in enumerate(self._plan.items):
            between = b" " if number else b""
            if item.section is None or (item.need is Need.SUMMARY and not incomplete):
                yield between + self.simple(item)
                continue
            assert message is not None
            if item.section.binary:
                yield between
                yield from self._binary(item, item.section, message)
                continue
            found = yield from message.resolve(item.section)
            if found is None:
                yield b"%b%b {0}\r\n" % (between, item.label)
            elif isinstance(found, bytes):
                yield b"%b%b {%d}\r\n%b" % (between, item.label, len(found), without_nul(found))
            elif isinstance(found, SelectedFields):
                yield b"%b%b {%d}\r\n" % (between, item.label, found.size)
                for piece in found.pieces:
                    yield piece and without_nul(piece)
            else:
                yield b"%b%b {%d}\r\n" % (between, item.label, found[1] - found[0])
                yield found

    def _binary(self, item: Item, section: Section, message: OpenMessage) -> Iterator[bytes | None]:
        """An item of RFC 3516, as `items`."""
        part = message.decoder(section)
        if section.binary == "size":
            size = 0 if part is None else (yield from part.size())
            yield b"%b %d" % (item.label, size)
        elif part is None:
            yield item.label + b" {0}\r\n"
        else:
            yield from formatted(item.label, (yield from part.section(section.partial)))


def kept_literal(item: Item, summary: Summary) -> bytes:
    """Header fields from kept lines, as a literal."""
    assert item.section is not None
    return _literal(item, kept_lines(summary.fields, item.section.fields))


def literals(section: Section, lines: Sequence[bytes]) -> list[bytes]:
    """Header fields from the kept lines of many messages, as octets of literals."""
    find = lines_pattern(section.fields).findall
    values = [b"".join(find(kept)) + b"\r\n" for kept in lines]
    if section.partial is not None:
        first, count = section.partial
        values = [value[first : first + count] for value in values]
    return values if b"\0" not in b"".join(values) else list(map(without_nul, values))


def _literal(item: Item, lines: bytes) -> bytes:
    assert item.section is not None
    if item.section.partial is not None:
        first, count = item.section.partial
        lines = lines[first : first + count]
    return b"{%d}\r\n%b" % (len(lines), without_nul(lines))
