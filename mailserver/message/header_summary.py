"""The header's part of a Summary: envelope, kept lines, searchable text, the day it was sent.

A few calls into C parse nearly every header (`_read_usual`). Cases that these could get wrong (NUL, bare CR or LF,
white space before a colon, very long headers) are left to the pattern for single fields (`_read_any`). Both give the
same result.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mailserver.message.content import CONTENT_FIELDS
from mailserver.message.dates import sent_day
from mailserver.message.envelope import ADDRESS_FIELDS, ENVELOPE_FIELDS, add_field, render_envelope
from mailserver.message.headers import FIELD, unfold
from mailserver.message.summary import INCOMPLETE, KEPT_FIELDS, KEPT_LIMIT
from mailserver.message.text import SEARCHED_ADDRESSES, fold, is_torn, line_text

KEPT: Final = frozenset(name.encode("ascii") for name in KEPT_FIELDS)

_KEPT, _ENVELOPE, _CONTENT = 1, 2, 4
_USES: Final = {
    name: _KEPT * (name in KEPT) | _ENVELOPE * (name in ENVELOPE_FIELDS) | _CONTENT * (name in CONTENT_FIELDS)
    for name in KEPT | ENVELOPE_FIELDS | CONTENT_FIELDS
}


class HeaderSummary(NamedTuple):
    """The facts of a header; the first four are those of a Summary."""

    envelope: bytes
    fields: bytes
    search: str
    sent: int | None
    content: dict[bytes, bytes] | None
    """The content fields, unfolded, like `structure.Part.fields`; None if they were not searched for."""


def parse_header_summary(header: bytes) -> HeaderSummary:
    """Parse a header with CRLF line ends, with its empty line if there is one. Never raises; linear in its length."""
    return _read_usual(header) or _read_any(header)


def _read_usual(header: bytes) -> HeaderSummary | None:
    # One octet is found much faster than two: these go first.
    has_tabs = b"\t" in header
    if len(header) > KEPT_LIMIT or b"\0" in header or b" :" in header or (has_tabs and b"\t:" in header):
        return None
    # A NUL marks where a line is folded.
    marked = header.replace(b"\r\n ", b"\0 ")
    if has_tabs:
        marked = marked.replace(b"\r\n\t", b"\0\t")
    lines = marked.split(b"\r\n")
    if marked.count(b"\n") != len(lines) - 1 or marked.count(b"\r") != len(lines) - 1:
        return None
    is_folded = len(marked) != len(header)
    by_name: dict[bytes, bytes] = {}
    content: dict[bytes, bytes] = {}
    kept: list[bytes] = []
    words: list[bytes] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if name not in _USES or not colon:
            continue
        uses = _USES[name]
        if is_folded:
            value = value.replace(b"\0", b"")
        value = value.strip(b" \t")
        if uses & _KEPT:
            kept.append(line)
            words += name, value
        if uses & _ENVELOPE:
            if name not in by_name:
                by_name[name] = value
            elif name in ADDRESS_FIELDS:
                add_field(by_name, name, value)
        elif uses & _CONTENT and name not in content:
            content[name] = value
    kept.append(b"")
    fields = b"\r\n".join(kept)
    date = by_name.get(b"date")
    return HeaderSummary(
        render_envelope(by_name),
        fields.replace(b"\0", b"\r\n") if is_folded else fields,
        _search_text(header, words, by_name),
        sent_day(date) if date is not None else None,
        content,
    )


def _search_text(header: bytes, words: list[bytes], by_name: dict[bytes, bytes]) -> str:
    """Make the text of these fields, each a name and a value. Unencoded ASCII is used as it is."""
    if (
        header.isascii()
        and (b"?" not in header or b"=?" not in header)
        and not any(map(is_torn, [by_name[name] for name in SEARCHED_ADDRESSES if name in by_name]))
    ):
        text = b"\n%b: %b" * (len(words) // 2) % tuple(words)
        return text.decode("ascii").lower()
    return fold("".join([line_text(*word) for word in zip(words[::2], words[1::2], strict=True)]))


def _read_any(header: bytes) -> HeaderSummary:
    by_name: dict[bytes, bytes] = {}
    kept: list[bytes] = []
    words: list[str] = []
    room = KEPT_LIMIT
    for match in FIELD.finditer(header):
        name = match[1].lower()
        # The fields of an ENVELOPE are among the kept ones.
        if name not in KEPT:
            continue
        field, value = match.group(0, 2)
        line = unfold(value)
        if name in ENVELOPE_FIELDS:
            add_field(by_name, name, line)
        room -= len(field)
        if room >= 0:
            kept.append(field)
            words.append(line_text(name, line))
    if room < 0:
        kept, words = [INCOMPLETE.encode("ascii")], [INCOMPLETE]
    elif kept and not kept[-1].endswith(b"\r\n"):
        kept.append(b"\r\n")
    date = by_name.get(b"date")
    return HeaderSummary(
        render_envelope(by_name),
        b"".join(kept),
        fold("".join(words)),
        sent_day(date) if date is not None else None,
        None,
    )
