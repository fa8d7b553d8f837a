"""Body sections, as in BODY[1.2.HEADER.FIELDS (From)]<0.1024>: parsing and meaning (RFC 3501 6.4.5)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from attrs import frozen

from mailserver.errors import BadSyntax, LimitReached
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.writer import string

MAX_NUMBERS: Final = 100
MAX_FIELDS: Final = 1000
PIECE: Final = 64 * 1024
"""Octets of a message that are read at once."""

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
    """A section and its partial."""

    numbers: tuple[int, ...] = ()
    text: str = ""
    """"", "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "MIME" or "TEXT"."""
    names: tuple[bytes, ...] = ()
    """Field names as the client wrote them."""
    partial: tuple[int, int] | None = None
    """First octet, and how many at most."""
    fields: frozenset[bytes] = frozenset()
    """Field names in lower case."""
    binary: str = ""
    """Of RFC 3516: "content" or "size", each without the transfer encoding; "" for BODY."""

    @property
    def is_of_header(self) -> bool:
        """Is it a part of the message's header?"""
        return not self.numbers and self.text.startswith("HEADER")

    @property
    def label(self) -> bytes:
        """The section as the response repeats it, in capitals (RFC 3501 7.4.2)."""
        inside = ".".join([*map(str, self.numbers), *([self.text] if self.text else [])]).encode("ascii")
        if self.names:
            names = b" ".join([name.upper() if _ATOM.match(name) else string(name) for name in self.names])
            inside = b"%b (%b)" % (inside, names)
        origin = b"<%d>" % self.partial[0] if self.partial else b""
        return b"[%b]%b" % (inside, origin)


WHOLE: Final = Section()
HEADER: Final = Section(text="HEADER")


def read_section(reader: Reader, specifier: str, *, binary: str = "") -> Section:
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
    reader.take(b"]")
    return Section(
        numbers, text, tuple(names), _read_partial(reader), frozenset(name.lower() for name in names), binary
    )  # fmt: skip


def _read_partial(reader: Reader) -> tuple[int, int] | None:
    if not reader.peek(b"<"):
        return None
    match = _PARTIAL.match(reader.read_atom())
    if match is None or max(int(match[1]), int(match[2])) > _LARGEST:
        raise BadSyntax("expected <number.number>")
    return int(match[1]), int(match[2])


def kept_lines(lines: bytes, names: frozenset[bytes]) -> bytes:
    """HEADER.FIELDS of a Summary's kept lines, which are well-formed; `names` are kept ones, in lower case."""
    return b"".join(lines_pattern(names).findall(lines)) + b"\r\n"


@lru_cache(maxsize=256)
def lines_pattern(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """Return a pattern that takes the lines from the start to the end, each once; a search would try each octet of others."""
    wanted = rb"(?:%b)[ \t]*+:" % b"|".join(sorted(map(re.escape, names)))
    line = rb"[^\n]*+\n(?:[ \t][^\n]*+\n)*+"
    return re.compile(rb"(?:(?!%b)%b)*+((?:%b%b)++|\Z)" % (wanted, line, wanted, line), re.IGNORECASE)


def without_nul(data: bytes) -> bytes:
    """The same number of octets without NUL, which no literal may hold (RFC 3501 4.3); 0x80 stands for it."""
    return data.replace(b"\0", b"\x80") if b"\0" in data else data
