"""HEADER.FIELDS and HEADER.FIELDS.NOT (RFC 3501 6.4.5): a header is cut into fields once, for all items.

`Fields` holds a header and the places of its fields. `LongHeader` is for a header over the limit that came from elsewhere: it
notes the places of the fields that are asked for, as long as there are not too many, and reads the octets when they
are sent.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from mailserver.errors import StoreUnavailable
from mailserver.imap.fetch.section import PIECE, Range, Section
from mailserver.message.headers import FIELD, iterate_fields
from mailserver.store.interfaces import MessageFile

MOST_PLACES: Final = 100_000
"""Places of fields that are noted of a long header; a header with more is read again for each item."""
FEW_NAMES: Final = 16
"""Field names that one pattern searches for; it skips other fields in a tenth of the time."""
LONG_FIELD: Final = PIECE
"""Octets of a field; a longer one, of a long header, is not held in memory whole."""

_NAME: Final = re.compile(rb"([!-9;-~]++)[ \t]*+:")
_NEXT_FIELD: Final = re.compile(rb"\n(?=[^ \t])")


class Fields:
    """The fields of one header, by name. The places take little memory: a client may stop reading in between."""

    def __init__(self, header: bytes, names: frozenset[bytes]) -> None:
        """`names`: all field names that are asked for, in lower case."""
        self._header = header
        self._places: dict[bytes, array[int]] = {}
        """Start and end in turn."""
        for name, _, start, end in iterate_fields(header, 0, len(header)):
            if name not in names:
                continue
            places = self._places.get(name)
            if places is None:
                self._places[name] = array("I", (start, end))
            elif places[-1] == start:
                # Neighbours are one range.
                places[-1] = end
            else:
                places.extend((start, end))

    def select(self, section: Section) -> bytes:
        """HEADER.FIELDS: those fields in the order of the message, and an empty line. HEADER.FIELDS.NOT: all the rest."""
        found = [_pairs(places) for name in section.fields if (places := self._places.get(name)) is not None]
        wanted = found[0] if len(found) == 1 else sorted(chain.from_iterable(found))
        return _select(self._header, wanted, others=section.text == "HEADER.FIELDS.NOT")


def _pairs(places: array[int]) -> Iterable[Range]:
    return zip(places[::2], places[1::2], strict=True)


def select_fields(header: bytes, section: Section) -> bytes:
    """As `Fields.select`, for a header that is used once."""
    wanted = section.fields
    found = [(low, high) for name, _, low, high in iterate_fields(header, 0, len(header)) if name in wanted]
    return _select(header, found, others=section.text == "HEADER.FIELDS.NOT")


def _select(header: bytes, places: Iterable[Range], *, others: bool) -> bytes:
    if others:
        return b"".join([header[low:high] for low, high in _others(places, 0, len(header))])
    lines = [header[low:high] for low, high in places]
    if lines and not lines[-1].endswith(b"\n"):
        lines.append(b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def _others(places: Iterable[Range], start: int, end: int) -> Iterator[Range]:
    """The ranges between those places."""
    for low, high in places:
        if low > start:
            yield start, low
        start = high
    if start < end:
        yield start, end


class SelectedFields:
    """An item of a long header: its size, and its octets in pieces (None: a pause)."""

    def __init__(self, size: int, pieces: Iterator[bytes | None]) -> None:
        self.size = size
        self.pieces = pieces


class LongHeader:
    """A header that is not held in memory: octets `start` to `end` of a file."""

    def __init__(self, file: MessageFile, start: int, end: int, names: frozenset[bytes]) -> None:
        """`names`: all field names that are asked for, in lower case."""
        self._file = file
        self._start = start
        self._end = end
        self._names = names
        self._places: dict[bytes, array[int]] | None = {name: array("Q") for name in names}
        self._octets = dict.fromkeys(names, 0)
        self._unended: bytes | None = None
        """The name of a field at its end that has no line end."""

    def measure(self) -> Iterator[None]:
        """Find the fields; call it once, before `select`. Yields pauses. Raises: StoreUnavailable."""
        noted = 0
        for found in self._scan(self._names):
            if found is None:
                yield None
                continue
            name, low, high = found
            self._octets[name] += high - low
            if high == self._end and self._file.read(high - 1, 1) != b"\n":
                self._unended = name
            if self._places is None:
                continue
            places = self._places[name]
            if places and places[-1] == low:
                places[-1] = high
                continue
            places.extend((low, high))
            noted += 1
            if noted > MOST_PLACES:
                self._places = None

    def select(self, section: Section) -> SelectedFields:
        """As `Fields.select`, the item's partial included."""
        names = section.fields
        size = sum(self._octets[name] for name in names)
        end = b""
        ranges: Iterator[Range | None] = self._ranges(names)
        if section.text == "HEADER.FIELDS.NOT":
            size = self._end - self._start - size
            ranges = self._between(ranges)
        else:
            end = b"\r\n\r\n" if self._unended in names else b"\r\n"
        first, count = section.partial or (0, size + len(end))
        selected = max(0, min(count, size + len(end) - first))
        octets = self._read(_clipped(ranges, first, min(selected, max(0, size - first))))
        return SelectedFields(selected, chain(octets, [end[max(0, first - size) : max(0, first + selected - size)]]))

    def _ranges(self, names: frozenset[bytes]) -> Iterator[Range | None]:
        """The places of those fields, in their order."""
        if self._places is None:
            for found in self._scan(names):
                yield None if found is None else found[1:]
            return
        yield from sorted(chain.from_iterable([_pairs(self._places[name]) for name in names]))

    def _between(self, ranges: Iterable[Range | None]) -> Iterator[Range | None]:
        start = self._start
        for found in ranges:
            if found is None:
                yield None
                continue
            if found[0] > start:
                yield start, found[0]
            start = found[1]
        if start < self._end:
            yield start, self._end

    def _scan(self, names: frozenset[bytes]) -> Iterator[tuple[bytes, int, int] | None]:
        """(name, start, end) of each field of those names; None after each piece that has been read."""
        pattern = _runs_of(names) if len(names) <= FEW_NAMES else FIELD
        window = b""
        base = at = self._start
        open_: tuple[bytes | None, int] | None = None
        """Name and start of a field that goes on behind the window."""
        while at < self._end:
            piece = self._file.read(at, min(PIECE, self._end - at))
            if not piece:
                raise StoreUnavailable("a message file has changed while it was read")
            at += len(piece)
            window += piece
            if open_ is not None:
                match = _NEXT_FIELD.search(window)
                if match is None:
                    base += len(window) - 1
                    window = window[-1:]
                    yield None
                    continue
                if open_[0] in names:
                    yield open_[0], open_[1], base + match.end()
                base += match.end()
                window = window[match.end() :]
                open_ = None
            cut = len(window) if at == self._end else _last_start(window)
            if cut:
                for match in pattern.finditer(window, 0, cut):
                    name = match[1].lower()
                    if name in names:
                        yield name, base + match.start(), base + match.end()
                base += cut
                window = window[cut:]
            if len(window) > LONG_FIELD:
                name_ = _NAME.match(window)
                open_ = name_[1].lower() if name_ else None, base
            yield None
        if open_ is not None and open_[0] in names:
            yield open_[0], open_[1], self._end

    def _read(self, ranges: Iterable[Range | None]) -> Iterator[bytes | None]:
        """The octets of rising ranges, in pieces; most ranges are much shorter than one read."""
        window = b""
        base = size = 0
        parts: list[bytes] = []
        for found in ranges:
            if found is None:
                yield None
                continue
            low, high = found
            while low < high:
                if not base <= low < base + len(window):
                    base, window = low, self._file.read(low, min(PIECE, self._end - low))
                    if not window:
                        raise StoreUnavailable("a message file has changed while it was read")
                part = window[low - base : high - base]
                parts.append(part)
                low += len(part)
                size += len(part)
                if size >= PIECE:
                    yield b"".join(parts)
                    parts, size = [], 0
        yield b"".join(parts)


def _runs_of(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """Fields of those names, each with those of the same name right behind it."""
    alternatives = b"|".join(sorted(map(re.escape, names)))
    rest = rb"[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+\n?+"
    return re.compile(rb"^(%b)%b(?:^\1%b)*+" % (alternatives, rest, rest), re.MULTILINE | re.IGNORECASE)


def _clipped(ranges: Iterable[Range | None], first: int, count: int) -> Iterator[Range | None]:
    """A part of the ranges: so many octets from `first` on, counted over all of them."""
    for found in ranges:
        if found is None:
            yield None
            continue
        if count <= 0:
            return
        low, high = found
        skipped = min(first, high - low)
        first -= skipped
        low += skipped
        high = min(high, low + count)
        count -= high - low
        if low < high:
            yield low, high


def _last_start(window: bytes) -> int:
    """The start of the last line that is known not to continue the one before; 0 if there is none."""
    end = len(window) - 1
    while (at := window.rfind(b"\n", 0, end)) >= 0:
        if window[at + 1] not in b" \t":
            return at + 1
        end = at
    return 0
