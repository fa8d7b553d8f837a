"""An open message. Only the octets that the sections of a FETCH need are read.

A section is resolved to a range of the file wherever it can be, so that a large one is sent in pieces and never held
whole. Only part numbers need the message's structure, and only they read the message whole. Header and structure are
examined once for all items; where that takes long, there are pauses in which the caller may stop for a while.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Sequence
from functools import cached_property, lru_cache
from typing import Final

from mailserver.errors import StoreUnavailable
from mailserver.imap.fetch.binary import PartDecoder, encoding_of
from mailserver.imap.fetch.budget import Budget, NotCached
from mailserver.imap.fetch.header_fields import Fields, LongHeader, SelectedFields, select_fields
from mailserver.imap.fetch.section import PIECE, Range, Section
from mailserver.message.content import PLAIN, Content, content_of
from mailserver.message.limits import SEEN
from mailserver.message.structure import Part, find_part, parse_structure
from mailserver.message.transfer import KNOWN
from mailserver.store.interfaces import MessageFile

LARGE: Final = 256 * 1024
FEW_PARTS: Final = 100
"""Structures of messages of at least LARGE octets are cached, unless they have more parts than that."""
_CUT: Final = SEEN
"""Octets of headers whose fields are held at a time."""
_PART: Final = 32
"""The cost of a part, or an empty line, of a message whose structure is parsed; see `Budget`."""


@lru_cache(maxsize=64)
def _known_structure(key: Hashable) -> list[Part]:  # noqa: ARG001 - the key is what the cache is about
    """A place for one structure. Messages never change, and neither do their structures."""
    return []


class LoadedMessage:
    """A small message that has been read whole."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Those octets, fewer at the end."""
        return self._data[offset:] if count is None else self._data[offset : offset + count]

    def read_now(self, offset: int, count: int) -> bytes | None:
        """The same."""
        return self._data[offset : offset + count] or None

    def close(self) -> None:
        """Do nothing."""


class NonBlockingFile:
    """A file whose reads never block: only pieces that are in the page cache are read."""

    def __init__(self, file: MessageFile, limit: int) -> None:
        """`limit`: octets that are read by one call at most."""
        self.size = file.size
        self._file = file
        self._limit = limit

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Those octets, fewer at the end. Raises: NotCached."""
        wanted = self.size - offset if count is None else min(count, self.size - offset)
        if wanted > self._limit:
            raise NotCached
        data = self._file.read_now(offset, wanted) if wanted > 0 else b""
        if data is None or len(data) != max(wanted, 0):
            raise NotCached
        return data

    def read_now(self, offset: int, count: int) -> bytes | None:
        """The same as the file's."""
        return self._file.read_now(offset, count)

    def close(self) -> None:
        """Do nothing: its owner closes the file."""


class OpenMessage:
    """A message file and its parsed structure.

    `key` identifies the message: clients fetch a large part piece by piece, and the structure of a large message is not
    parsed anew for each.
    """

    def __init__(self, file: MessageFile, key: Hashable, sections: Sequence[Section], budget: Budget) -> None:
        """`sections` are all that will be asked for; the work for them is charged to the budget."""
        self._file = file
        self._key = key
        self._sections = sections
        self._budget = budget
        self._header_end = -1
        self._whole: bytes | None = None
        """All of it, if it is not large and has been read."""
        self._fields: dict[int, Fields] = {}
        self._cut = 0
        """Octets of the headers in `_fields`."""
        self._long: tuple[int, LongHeader] | None = None
        """The start of the last long header, and the header."""

    def resolve(self, section: Section) -> Generator[None, None, bytes | Range | SelectedFields | None]:
        """The section's octets, or where they are in the file; None if there is no such part. Yields pauses.

        Raises: StoreUnavailable; NotCached and BudgetExceeded where not all may be done.
        """
        found = yield from self._resolve_whole(section)
        if section.partial is None or found is None or isinstance(found, SelectedFields):
            return found
        first, count = section.partial
        if isinstance(found, bytes):
            return found[first : first + count]
        low, high = found
        start = min(low + first, high)
        return start, min(start + count, high)

    def check_encodings(self) -> None:
        """Look for sections that cannot be decoded, before anything is sent. Raises: UnknownEncoding, StoreUnavailable."""
        for section in self._sections:
            if section.binary and section.numbers and (part := find_part(self.root, section.numbers)) is not None:
                encoding_of(part)

    def decoder(self, section: Section) -> PartDecoder | None:
        """A section of RFC 3516; None if there is no such part. Raises: UnknownEncoding, StoreUnavailable."""
        if not section.numbers:
            return PartDecoder(self._file, self._key, (0, self._file.size), b"binary", self._budget)
        part = find_part(self.root, section.numbers)
        if part is None:
            return None
        return PartDecoder(self._file, self._key, (part.body, part.end), encoding_of(part), self._budget)

    def _resolve_whole(self, section: Section) -> Generator[None, None, bytes | Range | SelectedFields | None]:
        text = section.text
        if not section.numbers:
            if not text:
                return 0, self._file.size
            if self._header_end < 0:
                yield from self._find_body()
            if text == "TEXT":
                return self._header_end, self._file.size
            if text == "HEADER":
                return 0, self._header_end
            return (yield from self._select(section, 0, self._header_end))
        part = find_part(self.root, section.numbers)
        if part is None:
            return None
        if not text:
            return part.body, part.end
        if text == "MIME":
            return part.start, part.body
        message = part.message
        if message is None:
            return None
        if text == "HEADER":
            return message.start, message.body
        if text == "TEXT":
            return message.body, message.end
        return (yield from self._select(section, message.start, message.body))

    def _find_body(self) -> Generator[None, None, None]:
        """Find the empty line, without reading the body."""
        size = self._file.size
        at = 0
        last = b""
        while at < size:
            piece = self._file.read(at, PIECE)
            if not piece:
                raise StoreUnavailable("a message file has changed while it was read")
            self._budget.copy(len(piece))
            if not at and piece.startswith(b"\r\n"):
                self._header_end = 2
                return
            joined = last + piece
            blank = joined.find(b"\r\n\r\n")
            if blank >= 0:
                self._header_end = at - len(last) + blank + 4
                return
            at += len(piece)
            last = joined[-3:]
            yield
        self._header_end = size

    def _select(self, section: Section, start: int, end: int) -> Generator[None, None, bytes | SelectedFields]:
        if end - start > SEEN:
            if self._long is None or self._long[0] != start:
                header = LongHeader(self._file, start, end, self._names)
                self._budget.spend(end - start)
                yield from header.measure()
                self._long = start, header
            return self._long[1].select(section)
        fields = self._fields.get(start)
        if fields is None:
            self._budget.spend(end - start)
            if len(self._sections) == 1:
                return select_fields(self.read((start, end)), section)
            fields = self._cut_fields(start, end)
        else:
            self._budget.spend((end - start) // 4)
        return fields.select(section)

    def _cut_fields(self, start: int, end: int) -> Fields:
        fields = Fields(self.read((start, end)), self._names)
        self._cut += end - start
        if self._cut > _CUT:
            self._fields.clear()
            self._cut = end - start
        self._fields[start] = fields
        return fields

    @cached_property
    def _names(self) -> frozenset[bytes]:
        """The names of all fields that are asked for."""
        return frozenset().union(*[section.fields for section in self._sections])

    @cached_property
    def root(self) -> Part:
        """Its structure."""
        if self._file.size < LARGE:
            whole = self._whole = self._file.read()
            parts = whole.count(b"\r\n--") + whole.count(b"\r\n\r\n")
            self._budget.spend(len(whole) // 16 + _PART * parts)
            return parse_structure(whole)
        known = _known_structure((self._key, self._file.size))
        if known:
            return known[0]
        self._budget.spend(self._file.size)
        # Not kept: the client may stop reading the response.
        root = parse_structure(self._file.read())
        if _slim(root) <= FEW_PARTS:
            known.append(root)
        return root

    def read(self, found: Range) -> bytes:
        """Those octets. Raises: StoreUnavailable if the file has become shorter."""
        low, high = found
        data = self._file.read(low, high - low) if self._whole is None else self._whole[low:high]
        if len(data) != high - low:
            raise StoreUnavailable("a message file has changed while it was read")
        return data


@lru_cache(maxsize=16)
def _content_with(encoding: bytes) -> Content:
    return content_of({b"content-transfer-encoding": encoding})


def _encoded(encoding: bytes) -> Content:
    """Content of which nothing but the transfer encoding is known; one object for each encoding."""
    return PLAIN if encoding == b"7bit" else _content_with(encoding if encoding in KNOWN else b"x-unknown")


def _slim(root: Part) -> int:
    """Drop the headers, so that the structure can be cached; return the number of parts."""
    todo = [root]
    for part in todo:
        todo += part.children
        # Later only places and transfer encodings are asked for.
        part.content = _encoded(part.encoding.lower())
    return len(todo)
