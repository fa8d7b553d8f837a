"""Body sections: BODY[1.2.HEADER.FIELDS (From)]<0.1024> from its text to octets of a message (RFC 3501 6.4.5).

A section is resolved to a range of the file wherever it can be, so that a large one is sent in pieces and never held
whole. Only part numbers need the message's structure, and only they read the message whole.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from functools import cached_property, lru_cache
from typing import Final

from attrs import frozen

from mailserver.errors import BadSyntax, LimitReached, StoreUnavailable
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.writer import string
from mailserver.message.headers import iterate_fields
from mailserver.message.structure import PLAIN, Part, find_part, parse_structure
from mailserver.store.interfaces import MessageFile

MAX_NUMBERS: Final = 100
MAX_FIELDS: Final = 1000
PIECE: Final = 64 * 1024
LARGE: Final = 256 * 1024
FEW_PARTS: Final = 100
"""Structures of messages of at least LARGE octets are remembered, unless they have more parts than that."""

_SPECIFIER: Final = re.compile(
    r"((?:[1-9][0-9]{0,9}(?:\.(?=.)|$))*)(HEADER|HEADER\.FIELDS|HEADER\.FIELDS\.NOT|MIME|TEXT|)$"
)
_PARTIAL: Final = re.compile(r"<([0-9]{1,10})\.([1-9][0-9]{0,9})>$")
_ATOM: Final = re.compile(rb"[!#$&'+-\[^-z|}~]+\Z")
_LARGEST: Final = 2**32 - 1

Range = tuple[int, int]
"""Octets of the message file, the end not included."""


@frozen
class Section:
    """What stands between the brackets, and behind them."""

    numbers: tuple[int, ...] = ()
    text: str = ""
    """"", "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "MIME" or "TEXT"."""
    names: tuple[bytes, ...] = ()
    """Field names as the client wrote them."""
    partial: tuple[int, int] | None = None
    """First octet, and how many at most."""
    fields: frozenset[bytes] = frozenset()
    """Field names in lower case."""

    @property
    def label(self) -> bytes:
        """As the answer repeats it, in capitals (RFC 3501 7.4.2)."""
        inside = ".".join([*map(str, self.numbers), *([self.text] if self.text else [])]).encode("ascii")
        if self.names:
            names = b" ".join([name.upper() if _ATOM.match(name) else string(name) for name in self.names])
            inside = b"%b (%b)" % (inside, names)
        origin = b"<%d>" % self.partial[0] if self.partial else b""
        return b"[%b]%b" % (inside, origin)


def read_section(reader: Reader, specifier: str) -> Section:
    """The rest of a section, from behind `BODY[specifier`, the partial included. Raises: BadSyntax, LimitReached."""
    match = _SPECIFIER.match(specifier.upper())
    if match is None:
        raise BadSyntax("no such body section")
    numbers = tuple(int(number) for number in match[1].split(".") if number)
    text = match[2]
    if len(numbers) > MAX_NUMBERS:
        raise LimitReached("the part number has too many levels")
    if any(number > _LARGEST for number in numbers) or (text == "MIME" and not numbers):
        raise BadSyntax("no such body section")
    names: list[bytes] = []
    if text.startswith("HEADER.FIELDS"):
        reader.read_sp()
        reader.take(b"(")
        names.append(reader.read_astring())
        while reader.skip(b" "):
            names.append(reader.read_astring())
            if len(names) > MAX_FIELDS:
                raise LimitReached("too many field names")
        reader.take(b")")
        if any(not name for name in names):
            raise BadSyntax("an empty field name")
    reader.take(b"]")
    return Section(
        numbers, text, tuple(names), _read_partial(reader), frozenset(name.lower() for name in names)
    )  # fmt: skip


def _read_partial(reader: Reader) -> tuple[int, int] | None:
    if not reader.peek(b"<"):
        return None
    match = _PARTIAL.match(reader.read_atom())
    if match is None or max(int(match[1]), int(match[2])) > _LARGEST:
        raise BadSyntax("expected <number.number>")
    return int(match[1]), int(match[2])


@lru_cache(maxsize=64)
def _known_structure(key: Hashable) -> list[Part]:  # noqa: ARG001 - the key is what the cache is about
    """Room for one structure. Messages never change, so neither does what is put here."""
    return []


class ReadMessage:
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
        """There is nothing to give back."""


class NotKnown(Exception):
    """It cannot be answered from what is known."""


class AtOnce:
    """A file of which only what takes no waiting is read: pieces that are in the page cache."""

    def __init__(self, file: MessageFile, limit: int) -> None:
        """`limit`: octets that are read by one call at most."""
        self.size = file.size
        self._file = file
        self._limit = limit

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Those octets, fewer at the end. Raises: NotKnown."""
        wanted = self.size - offset if count is None else min(count, self.size - offset)
        if wanted > self._limit:
            raise NotKnown
        data = self._file.read_now(offset, wanted) if wanted > 0 else b""
        if data is None or len(data) != max(wanted, 0):
            raise NotKnown
        return data

    def read_now(self, offset: int, count: int) -> bytes | None:
        """The same as the file's."""
        return self._file.read_now(offset, count)

    def close(self) -> None:
        """The file is closed by who has it."""


class OpenMessage:
    """A message file, of which only as much is read as sections need.

    `key` stands for this message and no other one: clients fetch a large part piece by piece, and the structure of a
    large message is not worked out anew for each.
    """

    def __init__(self, file: MessageFile, key: Hashable) -> None:
        self._file = file
        self._key = key

    @cached_property
    def header(self) -> bytes:
        """The message's header, its empty line included; found without reading the body."""
        data = bytearray()
        while True:
            seen = max(0, len(data) - 3)
            piece = self._file.read(len(data), PIECE)
            data += piece
            if data.startswith(b"\r\n"):
                return b"\r\n"
            blank = data.find(b"\r\n\r\n", seen)
            if blank >= 0:
                return bytes(data[: blank + 4])
            if len(piece) < PIECE:
                return bytes(data)

    @cached_property
    def whole(self) -> bytes:
        """All of it."""
        return self._file.read()

    @cached_property
    def root(self) -> Part:
        """Its structure."""
        if self._file.size < LARGE:
            return parse_structure(self.whole)
        known = _known_structure((self._key, self._file.size))
        if known:
            return known[0]
        root = parse_structure(self.whole)
        if _slimmed(root):
            known.append(root)
        return root

    def resolve(self, section: Section) -> bytes | Range | None:
        """The section's octets, or where they are in the file; None if there is no such part."""
        found = self._resolve_whole(section)
        if section.partial is None or found is None:
            return found
        first, count = section.partial
        if isinstance(found, bytes):
            return found[first : first + count]
        low, high = found
        start = min(low + first, high)
        return start, min(start + count, high)

    def _resolve_whole(self, section: Section) -> bytes | Range | None:
        text = section.text
        if not section.numbers:
            size = self._file.size
            if not text:
                return 0, size
            if text == "TEXT":
                return min(len(self.header), size), size
            return (0, len(self.header)) if text == "HEADER" else select_fields(self.header, section)
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
        return select_fields(self.read((message.start, message.body)), section)

    def read(self, found: Range) -> bytes:
        """Those octets. Raises: StoreUnavailable if the file has become shorter."""
        low, high = found
        data = self.whole[low:high] if "whole" in self.__dict__ else self._file.read(low, high - low)
        if len(data) != high - low:
            raise StoreUnavailable("a message file has changed while it was read")
        return data


def _slimmed(root: Part) -> bool:
    """Make it fit to be remembered; False if it has too many parts."""
    todo = [root]
    for part in todo:
        todo += part.children
        if len(todo) > FEW_PARTS:
            return False
    for part in todo:
        # Only places are asked for later: do not hold on to the headers.
        part.content = PLAIN
    return True


def select_fields(header: bytes, section: Section) -> bytes:
    """HEADER.FIELDS: those fields in the order of the message, and an empty line. HEADER.FIELDS.NOT: all the rest."""
    wanted = section.fields
    found = [
        (start, end) for name, _, start, end in iterate_fields(header, 0, len(header)) if name in wanted
    ]  # fmt: skip
    if section.text == "HEADER.FIELDS.NOT":
        starts = [0, *(end for _, end in found)]
        ends = [*(start for start, _ in found), len(header)]
        return b"".join([header[start:end] for start, end in zip(starts, ends, strict=True)])
    lines = [header[start:end] for start, end in found]
    if lines and not lines[-1].endswith(b"\n"):
        lines.append(b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def kept_lines(lines: bytes, names: frozenset[bytes]) -> bytes:
    """HEADER.FIELDS of a Summary's kept lines, which are well-formed; `names` are kept ones, in lower case."""
    return b"".join(_lines_of(names).findall(lines)) + b"\r\n"


@lru_cache(maxsize=256)
def _lines_of(names: frozenset[bytes]) -> re.Pattern[bytes]:
    alternatives = b"|".join(sorted(map(re.escape, names)))
    return re.compile(rb"^(?:%b)[ \t]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*+" % alternatives, re.MULTILINE | re.IGNORECASE)


def without_nul(data: bytes) -> bytes:
    """The same number of octets without NUL, which no literal may hold (RFC 3501 4.3); 0x80 stands for it."""
    return data.replace(b"\0", b"\x80") if b"\0" in data else data


def total(pieces: Iterable[bytes | Range]) -> int:
    """How many octets the ranges have."""
    return sum(piece[1] - piece[0] for piece in pieces if isinstance(piece, tuple))
