"""The facts of a header: kept lines, and what is made of them: envelope, text for SEARCH, the day it was sent.

A first request for a mailbox makes one of these of thousands of headers, so each is made when it is asked for. Kept
lines are a header themselves, with the same envelope, text and day: what is missing in the index is made of them
without the message.

One pattern cuts a header into all of its fields, in one call into C. It takes CRLF and LF line ends alike, so that a
header is not converted before most of it is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Final

from mailserver.message.content import CONTENT_FIELDS
from mailserver.message.dates import sent_day
from mailserver.message.envelope import ENVELOPE_FIELDS, FIELD_LIMIT, add_field, render_envelope
from mailserver.message.headers import FIELD, header_end, unfold
from mailserver.message.limits import SEEN
from mailserver.message.summary import INCOMPLETE, KEPT_FIELDS, KEPT_LIMIT, HeaderText
from mailserver.message.text import folded_line

KEPT: Final = frozenset(name.encode("ascii") for name in KEPT_FIELDS)

_CONTENT_NOT_KEPT: Final = CONTENT_FIELDS - KEPT
NO_LINES: Final = INCOMPLETE.encode("ascii")
"""In place of kept lines that are too many."""
# As headers.FIELD: white space before the colon is part of the name here, as most fields are known by their name.
_FIELDS: Final = re.compile(rb"^([!-9;-~]++[ \t]*+):([^\n]*+(?:\n[ \t][^\n]*+)*+)\n?", re.MULTILINE)


class _Names(dict[bytes, bytes | None]):
    """Names of kept fields in lower case, by their spelling; None for others. Learned from headers, up to a limit."""

    def __missing__(self, spelled: bytes) -> bytes | None:
        name: bytes | None = spelled.rstrip(b" \t").lower()
        if name not in KEPT:
            name = None
        if len(self) < _SPELLINGS and len(spelled) <= _SHORT:
            self[spelled] = name
        return name


_SPELLINGS: Final = 2048
_SHORT: Final = 64
"""Octets of a name that is learned."""
_NAMES: Final = _Names(
    (spelled, name) for name in KEPT for spelled in (name, name.title(), name.title().replace(b"-Id", b"-ID"))
)


class HeaderSummary:
    """The facts of a header. Each method computes anew what it returns."""

    __slots__ = ("_header", "_is_odd", "_pairs", "fields")

    def __init__(self, header: bytes, *, is_whole: bool = True) -> None:
        """`header` has CRLF or LF line ends, and its empty line if there is one; not `is_whole`: the first octets of one
        that is longer than `limits.SEEN`. Never raises for any octets; linear in their number.
        """
        if header.endswith(b"\r"):
            header += b"\r\n"
        names = _NAMES
        self._header = header
        fields: Iterable[tuple[bytes, bytes]]
        if len(header) <= KEPT_LIMIT:
            fields = _FIELDS.findall(header)
        else:
            # One call for all of them would keep all other threads waiting.
            fields = ((match[1], match[2]) for match in _FIELDS.finditer(header))
        self._pairs = [pair for pair in fields if names[pair[0]] is not None]
        """Name as spelled, and value, of the kept fields."""
        lines = b"\n".join(map(b":".join, self._pairs))
        if lines:
            lines += b"\n"
        is_odd = b"\0" in lines
        if b"\r" not in header:
            lines = lines.replace(b"\n", b"\r\n")
        else:
            ends = lines.count(b"\r\n")
            is_odd = is_odd or lines.count(b"\r") != ends
            if lines.count(b"\n") != ends:
                lines = lines.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._is_odd = is_odd
        """A kept line has NUL or a bare CR."""
        self.fields = lines if is_whole and len(lines) <= KEPT_LIMIT else NO_LINES
        """`Summary.fields`."""

    @classmethod
    def of_message(cls, source: bytes) -> HeaderSummary:
        """Read the header of a message with CRLF line ends."""
        end = header_end(source)
        return cls(source[: min(end, SEEN)], is_whole=end <= SEEN)

    def envelope(self) -> bytes:
        """Render `Summary.envelope`."""
        names, is_odd = _NAMES, self._is_odd
        by_name: dict[bytes, bytes] = {}
        for spelled, value in self._pairs:
            name = names[spelled]
            if name in ENVELOPE_FIELDS:
                line = unfold(value) if is_odd or b"\n" in value else value.strip(b" \t\r")
                if name in by_name or len(line) > FIELD_LIMIT:
                    add_field(by_name, name, line)
                else:
                    by_name[name] = line
        return render_envelope(by_name)

    def text(self) -> HeaderText:
        """Make the text for SEARCH."""
        date = next((value for spelled, value in self._pairs if _NAMES[spelled] == b"date"), None)
        sent = sent_day(unfold(date)) if date is not None else None
        return HeaderText(INCOMPLETE if self.fields == NO_LINES else self._folded_lines(), sent)

    def _folded_lines(self) -> str:
        names, is_odd = _NAMES, self._is_odd
        lines = []
        for spelled, value in self._pairs:
            line = unfold(value) if is_odd or b"\n" in value else value.strip(b" \t\r")
            lines.append(folded_line(names[spelled] or b"", line))
        return "".join(lines)

    def content(self) -> dict[bytes, bytes]:
        """Return the content fields, unfolded, like `structure.Part.fields`."""
        found: dict[bytes, bytes] = {}
        for spelled, value in self._pairs:
            name = _NAMES[spelled]
            if name in CONTENT_FIELDS and name not in found:
                found[name] = unfold(value)
        lowered = b"\n" + self._header.lower()
        for name in _CONTENT_NOT_KEPT:
            for value in islice(_values(self._header, lowered, name), 1):
                found[name] = unfold(value)
        return found


def first_values(header: bytes, names: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """Return the unfolded value of the first field of each name that has one; `header` as for `HeaderSummary`.

    The other fields are not cut. Names are in lower case.
    """
    lowered = b"\n" + header.lower()
    found: dict[bytes, bytes] = {}
    for match in _fields_named(names).finditer(lowered):
        name = match[1]
        if name not in found:
            start, end = match.span(2)
            line = unfold(header[start - 1 : end - 1])
            if line:
                found[name] = line
    return found


@cache
def _fields_named(names: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """Return the pattern of fields of these names, behind a line end."""
    return re.compile(rb"\n(%b)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)" % b"|".join(map(re.escape, names)))


def fields_text(header: bytes, names: Collection[str]) -> str:
    """Make the part of HeaderText.text that these kept fields have, field by field.

    `header` as for `HeaderSummary`. The other fields are not cut: searching for two names takes a fifth of the time.
    """
    lowered = b"\n" + header.lower()
    lines = []
    for name in names:
        encoded = name.encode("ascii")
        lines += [folded_line(encoded, unfold(value)) for value in _values(header, lowered, encoded)]
    text = "".join(lines)
    return text if len(text) <= KEPT_LIMIT else INCOMPLETE


def _values(header: bytes, lowered: bytes, name: bytes) -> Iterator[bytes]:
    """Yield the values of the fields of that name; `lowered` is a line end and the header, in lower case."""
    start = b"\n" + name
    at = lowered.find(start)
    while at >= 0:
        match = FIELD.match(header, at)
        if match is not None and len(match[1]) == len(name):
            yield match[2]
        at = lowered.find(start, at + 1)
