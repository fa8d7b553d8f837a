"""A message's facts in IMAP's notation: `summarise` for the index, BODY and BODYSTRUCTURE (RFC 3501 7.4.2)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from mailserver.message.content import Content, Parameters
from mailserver.message.envelope import ENVELOPE_FIELDS, add_field, nstring, render_envelope
from mailserver.message.header_summary import HeaderSummary
from mailserver.message.headers import FIELD, parse_disposition, strip_comments, unfold
from mailserver.message.limits import ENVELOPES_SEEN, SEEN
from mailserver.message.structure import Part, parse_structure
from mailserver.message.summary import Summary

_EXTENSION: Final = frozenset({b"content-disposition", b"content-language", b"content-location"})


def summarise(source: bytes) -> Summary:
    """Render the facts of a message with CRLF line ends. Never raises for any octets; linear in their number."""
    header = HeaderSummary.of_message(source)
    body, structure = render_structure(source, parse_structure(source, header.content()))
    return Summary(header.envelope(), body, structure, header.fields)


class _Room:
    """The room for envelopes of messages in a message."""

    def __init__(self) -> None:
        self._left = ENVELOPES_SEEN

    def take(self, octets: int) -> bool:
        """Take the room for a header of so many octets. False if there is none."""
        self._left -= octets
        return self._left >= 0


class _Lines:
    """Line ends of nested messages, counted once and not once a level."""

    def __init__(self, source: bytes, root: Part) -> None:
        self._source = source
        self._root = root
        self._before: dict[int, int] = {}
        """Line ends before the start or end of such a message; empty until one is needed."""

    def of_message(self, part: Part) -> int:
        """Count the line ends in the body of a message/rfc822 part."""
        if not self._before:
            self._count()
        return self._before[part.end] - self._before[part.body]

    def _count(self) -> None:
        places: set[int] = set()
        todo = [self._root]
        while todo:
            part = todo.pop()
            todo += part.children
            if part.message is not None:
                places |= {part.body, part.end}
        at = count = 0
        for place in sorted(places):
            count += count_lines(self._source, at, place)
            self._before[place] = count
            at = place


def count_lines(source: bytes, start: int, end: int) -> int:
    """Count line ends. Each call of `count` keeps all other threads waiting."""
    if end - start <= _COUNTED:
        return source.count(b"\n", start, end)
    return sum([source.count(b"\n", at, min(at + _COUNTED, end)) for at in range(start, end, _COUNTED)])


_COUNTED: Final = 1024 * 1024
"""Octets in which one call counts line ends."""
_NO_ENVELOPE: Final = render_envelope({})


def message_envelope(source: bytes, part: Part) -> bytes:
    """Render the ENVELOPE of the message in a Part."""
    fields: dict[bytes, bytes] = {}
    for match in FIELD.finditer(source, part.start, min(part.body, part.start + SEEN)):
        name = match[1].lower()
        if name in ENVELOPE_FIELDS:
            add_field(fields, name, unfold(match[2]))
    return render_envelope(fields)


def render_structure(source: bytes, part: Part) -> tuple[bytes, bytes]:
    """Render BODY and BODYSTRUCTURE. Depth is bounded by structure.MAX_DEPTH."""
    return _render(source, part, _Room(), _Lines(source, part))


def _render(source: bytes, part: Part, room: _Room, lines_of: _Lines) -> tuple[bytes, bytes]:
    if part.multipart:
        bodies, structures = zip(*[_render(source, child, room, lines_of) for child in part.children], strict=True)
        subtype = nstring(part.subtype)
        parameters = _parameters(part.parameters)
        return (
            b"(%b %b)" % (b"".join(bodies), subtype),
            b"(%b %b %b %b)" % (b"".join(structures), subtype, parameters, _extension(part.fields)),
        )
    start, tail = _ends(part.content, bool(part.children))
    size = part.end - part.body
    if part.children:
        message = part.children[0]
        seen = min(message.body - message.start, SEEN)
        envelope = message_envelope(source, message) if room.take(seen) else _NO_ENVELOPE
        body, structure = _render(source, message, room, lines_of)
        lines = lines_of.of_message(part)
        return (
            b"%b %d %b %b %d)" % (start, size, envelope, body, lines),
            b"%b %d %b %b %d%b" % (start, size, envelope, structure, lines, tail),
        )
    if part.family == b"text":
        head = b"%b %d %d" % (start, size, count_lines(source, part.body, part.end))
    else:
        head = b"%b %d" % (start, size)
    return head + b")", head + tail


def _ends(content: Content, is_message: bool) -> tuple[bytes, bytes]:
    """Render the fields before the size of a part that is no multipart, and its extension data."""
    # A sender's fields may be as long as the message: they are not cached.
    return (_common_ends if content.is_common else _any_ends)(content, is_message)


@lru_cache(maxsize=1024)
def _common_ends(content: Content, is_message: bool) -> tuple[bytes, bytes]:
    return _any_ends(content, is_message)


def _any_ends(content: Content, is_message: bool) -> tuple[bytes, bytes]:
    type_, subtype, parameters, fields = content.type, content.subtype, content.parameters, content.fields
    encoding = fields.get(b"content-transfer-encoding")
    start = b"(%b %b %b %b %b" % (
        b'"message" "rfc822"' if is_message else b"%b %b" % (nstring(type_), nstring(subtype)),
        _parameters(parameters),
        nstring(fields.get(b"content-id")),
        nstring(fields.get(b"content-description")),
        nstring((encoding and strip_comments(encoding).strip()) or b"7bit"),
    )
    return start, b" %b %b)" % (nstring(fields.get(b"content-md5")), _extension(fields))


def _extension(fields: dict[bytes, bytes]) -> bytes:
    """Render disposition, language, location."""
    if fields.keys().isdisjoint(_EXTENSION):
        return b"NIL NIL NIL"
    disposition = b"NIL"
    value = fields.get(b"content-disposition")
    if value is not None:
        parsed = parse_disposition(value)
        if parsed is not None:
            disposition = b"(%b %b)" % (nstring(parsed[0]), _parameters(parsed[1]))
    languages, location = fields.get(b"content-language"), fields.get(b"content-location")
    return b"%b %b %b" % (disposition, _languages(languages), nstring(location))


def _languages(value: bytes | None) -> bytes:
    """Render Content-Language (RFC 3282), always as a list."""
    if value is None:
        return b"NIL"
    tags = [nstring(tag.strip()) for tag in strip_comments(value).split(b",") if tag.strip()]
    return b"(%b)" % b" ".join(tags) if tags else b"NIL"


def _parameters(parameters: Parameters) -> bytes:
    if not parameters:
        return b"NIL"
    return b"(%b)" % b" ".join([b"%b %b" % (nstring(key), nstring(value)) for key, value in parameters])
