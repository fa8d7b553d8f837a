"""A message's facts in IMAP's notation: `summarise` for the index, BODY and BODYSTRUCTURE (RFC 3501 7.4.2)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from mailserver.message.dates import sent_day
from mailserver.message.envelope import ENVELOPE_FIELDS, add_field, nstring, render_envelope
from mailserver.message.headers import FIELD, parse_disposition, strip_comments, unfold
from mailserver.message.structure import Parameters, Part, parse_structure
from mailserver.message.summary import INCOMPLETE, KEPT_FIELDS, KEPT_LIMIT, Summary
from mailserver.message.text import fold, line_text

_SHORT: Final = 20
_EXTENSION: Final = frozenset({b"disposition", b"language", b"location"})

KEPT: Final = frozenset(name.encode("ascii") for name in KEPT_FIELDS)


def summarise(source: bytes) -> Summary:
    """All facts of a message with CRLF line ends. Never raises for any octets; linear in their number."""
    root = parse_structure(source)
    fields: dict[bytes, bytes] = {}
    kept: list[bytes] = []
    words: list[str] = []
    room = KEPT_LIMIT
    for match in FIELD.finditer(source, 0, root.body):
        name = match[1].lower()
        # The fields of an ENVELOPE are among those that are kept.
        if name not in KEPT:
            continue
        field, value = match.group(0, 2)
        line = unfold(value)
        if name in ENVELOPE_FIELDS:
            add_field(fields, name, line)
        room -= len(field)
        if room >= 0:
            kept.append(field)
            words.append(line_text(name, line))
    date = fields.get(b"date")
    if room < 0:
        kept, words = [INCOMPLETE.encode("ascii")], [INCOMPLETE]
    elif kept and not kept[-1].endswith(b"\r\n"):
        kept.append(b"\r\n")
    body, structure = render_structure(source, root)
    return Summary(
        envelope=render_envelope(fields),
        body=body,
        body_structure=structure,
        fields=b"".join(kept),
        search=fold("".join(words)),
        sent=sent_day(date) if date is not None else None,
    )


def message_envelope(source: bytes, part: Part) -> bytes:
    """The ENVELOPE value of the message that a Part is."""
    fields: dict[bytes, bytes] = {}
    for match in FIELD.finditer(source, part.start, part.body):
        name = match[1].lower()
        if name in ENVELOPE_FIELDS:
            add_field(fields, name, unfold(match[2]))
    return render_envelope(fields)


def render_structure(source: bytes, part: Part) -> tuple[bytes, bytes]:
    """The values of BODY and of BODYSTRUCTURE. Depth is bounded by structure.MAX_DEPTH."""
    if part.multipart:
        bodies, structures = zip(*[render_structure(source, child) for child in part.children], strict=True)
        subtype = nstring(part.subtype)
        parameters = _parameters(part.parameters)
        return (
            b"(%b %b)" % (b"".join(bodies), subtype),
            b"(%b %b %b %b)" % (b"".join(structures), subtype, parameters, _extension(part)),
        )
    fields = part.fields
    head = b"(%b %b %b %b %d" % (
        _kind(b"message", b"rfc822", part.parameters)
        if part.message is not None
        else _kind(part.type, part.subtype, part.parameters),
        _value(fields.get(b"id")),
        _value(fields.get(b"description")),
        nstring(part.encoding),
        part.end - part.body,
    )
    tail = b" %b %b)" % (_value(fields.get(b"md5")), _extension(part))
    if part.message is not None:
        envelope = message_envelope(source, part.message)
        body, structure = render_structure(source, part.message)
        lines = source.count(b"\n", part.body, part.end)
        return (
            b"%b %b %b %d)" % (head, envelope, body, lines),
            b"%b %b %b %d%b" % (head, envelope, structure, lines, tail),
        )
    if part.type.lower() == b"text":
        head = b"%b %d" % (head, source.count(b"\n", part.body, part.end))
    return head + b")", head + tail


def _kind(type_: bytes, subtype: bytes, parameters: Parameters) -> bytes:
    """Type, subtype, parameters."""
    if len(parameters) == 1 and len(parameters[0][1]) < _SHORT:
        return _common_kind(type_, subtype, parameters)
    return b"%b %b %b" % (nstring(type_), nstring(subtype), _parameters(parameters))


@lru_cache(maxsize=256)
def _common_kind(type_: bytes, subtype: bytes, parameters: Parameters) -> bytes:
    """Of text with a charset: the same few again and again."""
    return b"%b %b %b" % (nstring(type_), nstring(subtype), _parameters(parameters))


def _extension(part: Part) -> bytes:
    """Disposition, language, location."""
    fields = part.fields
    if fields.keys().isdisjoint(_EXTENSION):
        return b"NIL NIL NIL"
    disposition = b"NIL"
    value = fields.get(b"disposition")
    if value is not None:
        parsed = parse_disposition(value)
        if parsed is not None:
            disposition = b"(%b %b)" % (nstring(parsed[0]), _parameters(parsed[1]))
    return b"%b %b %b" % (disposition, _languages(fields.get(b"language")), _value(fields.get(b"location")))


def _languages(value: bytes | None) -> bytes:
    """Content-Language (RFC 3282), always as a list."""
    if value is None:
        return b"NIL"
    tags = [nstring(tag.strip()) for tag in strip_comments(unfold(value)).split(b",") if tag.strip()]
    return b"(%b)" % b" ".join(tags) if tags else b"NIL"


def _value(value: bytes | None) -> bytes:
    return b"NIL" if value is None else nstring(unfold(value))


def _parameters(parameters: tuple[tuple[bytes, bytes], ...]) -> bytes:
    if not parameters:
        return b"NIL"
    return b"(%b)" % b" ".join([b"%b %b" % (nstring(key), nstring(value)) for key, value in parameters])
