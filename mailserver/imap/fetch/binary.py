"""FETCH BINARY, BINARY.PEEK and BINARY.SIZE (RFC 3516): sections without their transfer encoding.

A part is decoded in pieces as they are sent. Its size comes first, so a large part is decoded once more to measure it, and
the result is cached: BINARY.SIZE, and clients that fetch a part piece by piece, pay for that once. A section that is no leaf
part (multipart, message/rfc822, the whole of such a message) has no transfer encoding of its own, and is sent as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Hashable, Iterator
from itertools import chain
from typing import Final, NamedTuple

from mailserver.errors import BadSyntax, StoreUnavailable, UnknownEncoding
from mailserver.imap.capabilities import Capability
from mailserver.imap.fetch.budget import Budget
from mailserver.imap.fetch.plan import Item, Need
from mailserver.imap.fetch.section import PIECE, Range, read_section
from mailserver.imap.wire.reader import Reader
from mailserver.message.structure import Part
from mailserver.message.transfer import KNOWN, decoder
from mailserver.store.interfaces import MessageFile

BINARY: Final = Capability("BINARY", "RFC 3516", __name__, "binary")
_CACHED: Final = 4096
"""Sizes of parts that are cached, some 200 octets each."""
_IDENTITY: Final = frozenset({b"7bit", b"8bit", b"binary"})


def read_binary(reader: Reader, name: str, specifier: str) -> Item:
    """The rest of `BINARY[`, `BINARY.PEEK[` or `BINARY.SIZE[`. Raises: BadSyntax, LimitReached."""
    kind = "size" if name == "BINARY.SIZE" else "content"
    section = read_section(reader, specifier, binary=kind)
    if section.text or (kind == "size" and section.partial is not None):
        raise BadSyntax("no such binary section")
    label = (b"BINARY.SIZE" if kind == "size" else b"BINARY") + section.label
    return Item(label, Need.FILE, section, sets_seen=name == "BINARY")


class Measure(NamedTuple):
    """The decoded content of a part."""

    size: int
    has_nul: bool


class DecodedSection:
    """A section as it is sent: its size, and its octets in pieces (None: a pause)."""

    def __init__(self, size: int, pieces: Iterator[bytes | None], *, has_nul: bool) -> None:
        self.size = size
        self.pieces = pieces
        self.has_nul = has_nul
        """There may be NUL in it."""


_measures: OrderedDict[Hashable, Measure] = OrderedDict()
"""By message and part, the last used ones last. Messages never change. Threads of several accounts use it: each step is one call."""


class PartDecoder:
    """One part of an open message, or all of it."""

    def __init__(self, file: MessageFile, key: Hashable, octets: Range, encoding: bytes, budget: Budget) -> None:
        """`key` stands for the message; `octets` are those of the part, with that encoding, one of KNOWN."""
        self._file = file
        self._key = key, file.size, octets
        self._low, self._high = octets
        self._encoding = encoding
        self._budget = budget

    def size(self) -> Generator[None, None, int]:
        """The decoded octets. Yields pauses. Raises: StoreUnavailable; NotCached, BudgetExceeded."""
        if self._encoding in _IDENTITY:
            return self._high - self._low
        return (yield from self._measured()).size

    def section(self, partial: tuple[int, int] | None) -> Generator[None, None, DecodedSection]:
        """The decoded octets, or part of them. Yields pauses, and raises, as `size`; the pieces raise the same."""
        if self._high - self._low <= PIECE:
            return _held(b"".join(self._decoded()), partial)
        measure = yield from self._measured()
        first, count = partial or (0, measure.size)
        size = max(0, min(count, measure.size - first))
        if size <= PIECE:
            found = []
            for piece in _clipped(self._decoded(), first, size):
                if piece:
                    found.append(piece)
                yield
            return _held(b"".join(found), None)
        return DecodedSection(size, _clipped(self._decoded(), first, size), has_nul=measure.has_nul)

    def _measured(self) -> Generator[None, None, Measure]:
        known = _measures.pop(self._key, None)
        if known is None:
            size, has_nul = 0, False
            for piece in self._decoded():
                size += len(piece)
                has_nul = has_nul or b"\0" in piece
                yield
            known = Measure(size, has_nul)
        _measures[self._key] = known
        if len(_measures) > _CACHED:
            _measures.popitem(last=False)
        return known

    def _decoded(self) -> Iterator[bytes]:
        decode = decoder(self._encoding)
        at = self._low
        while at < self._high:
            count = min(PIECE, self._high - at)
            self._budget.spend(count // 4)
            data = self._file.read(at, count)
            if len(data) != count:
                raise StoreUnavailable("a message file has changed while it was read")
            at += count
            yield decode.decode(data)
        yield decode.finish()


def encoding_of(part: Part) -> bytes:
    """The transfer encoding of a part's octets. Raises: UnknownEncoding."""
    if part.children:
        return b"binary"
    encoding = part.encoding.lower()
    if encoding not in KNOWN:
        raise UnknownEncoding
    return encoding


def _held(data: bytes, partial: tuple[int, int] | None) -> DecodedSection:
    if partial is not None:
        data = data[partial[0] : partial[0] + partial[1]]
    return DecodedSection(len(data), iter((data,)), has_nul=b"\0" in data)


def _clipped(pieces: Iterator[bytes], first: int, count: int) -> Iterator[bytes | None]:
    """So many octets from `first` on, and pauses."""
    for piece in pieces:
        if count <= 0:
            return
        skipped = min(first, len(piece))
        first -= skipped
        found = piece[skipped : skipped + count]
        count -= len(found)
        yield found or None


def formatted(label: bytes, found: DecodedSection) -> Iterator[bytes | None]:
    """The item: a literal, or a literal8 where there may be NUL (RFC 3516 4.3)."""
    mark = b"~" if found.has_nul else b""
    return chain((b"%b %b{%d}\r\n" % (label, mark, found.size),), found.pieces)
