"""The facts of a header: kept lines, and what is made of them: envelope, text for SEARCH, the day it was sent.

A first request for a mailbox makes one of these of thousands of headers, so each is made when it is asked for. Kept
lines are a header themselves, with the same envelope, text and day: what is missing in the index is made of them
without the message.

One pattern cuts a header into all of its fields, in one call into C. It takes CRLF and LF line ends alike, so that a
header is not converted before most of it is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from mailserver.message.content import CONTENT_FIELDS
from mailserver.message.dates import sent_day
from mailserver.message.envelope import ENVELOPE_FIELDS, FIELD_LIMIT, add_field, render_envelope
from mailserver.message.headers import FIELD, header_end, unfold
from mailserver.message.limits import SEEN
from mailserver.message.summary import INCOMPLETE, KEPT_FIELDS, KEPT_LIMIT, HeaderText
from mailserver.message.text import folded_line

KEPT: Final = frozenset(name.encode("ascii") for name in KEPT_FIELDS)

NO_LINES: Final = INCOMPLETE.encode("ascii")
"""In place of kept lines that are too many."""
# As headers.FIELD: white space before the colon is part of the name here, as most fields are known by their name.
_FIELDS: Final = re.compile(rb"^([!-9;-~]++[ \t]*+):([^\n]*+(?:\n[ \t][^\n]*+)*+)\n?", re.MULTILINE).findall
_READ: Final = KEPT | ENVELOPE_FIELDS | CONTENT_FIELDS
_SPELLED: Final = {
    spelled: name
    for name in _READ
    for spelled in (name, name.title(), name.upper(), name.title().replace(b"-Id", b"-ID").replace(b"Mime-", b"MIME-"))
}
"""The usual spellings of the names, in lower case: the others are converted first."""


class HeaderSummary:
    """The facts of a header. Each method computes anew what it returns."""

    __slots__ = ("_fields", "_is_odd", "fields")

    def __init__(self, header: bytes, *, is_whole: bool = True) -> None:
        """`header` has CRLF or LF line ends, and its empty line if there is one; not `is_whole`: the first octets of one
        that is longer than `limits.SEEN`. Never raises for any octets; linear in their number.
        """
        if header.endswith(b"\r"):
            header += b"\r\n"
        fields: list[tuple[bytes, bytes]] = []
        kept: list[bytes] = []
        get = _SPELLED.get
        for spelled, value in _FIELDS(header):
            name = get(spelled)
            if name is None:
                name = spelled.rstrip(b" \t").lower()
                if name not in _READ:
                    continue
            fields.append((name, value))
            if name in KEPT:
                kept += spelled, value
        lines = b"%b:%b\n" * (len(kept) // 2) % tuple(kept)
        is_odd = b"\0" in lines
        if b"\r" not in header:
            lines = lines.replace(b"\n", b"\r\n")
        else:
            ends = lines.count(b"\r\n")
            is_odd = is_odd or lines.count(b"\r") != ends
            if lines.count(b"\n") != ends:
                lines = lines.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._fields = fields
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
        by_name: dict[bytes, bytes] = {}
        is_odd = self._is_odd
        for name, value in self._fields:
            if name not in ENVELOPE_FIELDS:
                continue
            line = unfold(value) if is_odd or b"\n" in value else value.strip(b" \t\r")
            if name in by_name or len(line) > FIELD_LIMIT:
                add_field(by_name, name, line)
            else:
                by_name[name] = line
        return render_envelope(by_name)

    def text(self) -> HeaderText:
        """Make the text for SEARCH."""
        date = next((value for name, value in self._fields if name == b"date"), None)
        sent = sent_day(unfold(date)) if date is not None else None
        return HeaderText(INCOMPLETE if self.fields == NO_LINES else self._folded_lines(), sent)

    def _folded_lines(self) -> str:
        is_odd = self._is_odd
        lines = []
        for name, value in self._fields:
            if name in KEPT:
                line = unfold(value) if is_odd or b"\n" in value else value.strip(b" \t\r")
                lines.append(folded_line(name, line))
        return "".join(lines)

    def content(self) -> dict[bytes, bytes]:
        """Return the content fields, unfolded, like `structure.Part.fields`."""
        found: dict[bytes, bytes] = {}
        for name, value in self._fields:
            if name in CONTENT_FIELDS and name not in found:
                found[name] = unfold(value)
        return found


def fields_text(header: bytes, names: Collection[str]) -> str:
    """Make the part of HeaderText.text that these kept fields have, field by field.

    `header` as for `HeaderSummary`. The other fields are not cut: searching for two names takes a fifth of the time.
    """
    lowered = b"\n" + header.lower()
    lines = []
    for name in names:
        encoded = name.encode("ascii")
        at = lowered.find(b"\n" + encoded)
        while at >= 0:
            match = FIELD.match(header, at)
            if match is not None and len(match[1]) == len(encoded):
                lines.append(folded_line(encoded, unfold(match[2])))
            at = lowered.find(b"\n" + encoded, at + 1)
    text = "".join(lines)
    return text if len(text) <= KEPT_LIMIT else INCOMPLETE
