"""The texts of a large message for SEARCH, in folded pieces: memory holds one piece beside the source.

They are those of `message.text.MessageText`, with two more limits: only the first FIELD_LIMIT octets of one header
field are searched, and a character's combining marks are joined to it only within a piece. A piece ends where a line or
a word ends, if possible.
"""

from __future__ import annotations

import binascii
import codecs
import enum
import html
import re
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Final, NamedTuple

from mailserver.message.content import CONTENT_FIELDS
from mailserver.message.encodings import codec_of, decode_text
from mailserver.message.headers import FIELD, header_end, parameter, unfold
from mailserver.message.structure import Part, parse_structure
from mailserver.message.text import HUGE_REFERENCE, TAG, TEXT_LIMIT, all_parts, field_text, fold

PIECE: Final = 64 * 1024
"""Octets of the message, about, for one piece."""
FIELD_LIMIT: Final = 1024 * 1024
"""Octets of one field's value that are searched."""
_LONG_HEADER: Final = 256 * 1024
_FIELDS: Final = 64
"""Fields that are read between two pauses."""
_FOLDED: Final = 4096
"""Characters that are folded at once if not all are ASCII."""
_UTF_7: Final = 1024 * 1024
"""Octets of a part in UTF-7 that are decoded: Python needs them in one piece, or quadratic time."""
_BY_MARK: Final = {
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}
"""Codecs whose text may begin with a byte order mark."""
_LONGEST_MARK: Final = 4
_LONGEST_TAG: Final = 64 * 1024
_LONGEST_REFERENCE: Final = 64
_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/=]+")
_UU: Final = (b"x-uuencode", b"uuencode", b"x-uue")


class Stream(enum.Enum):
    """The text of a message to which a piece belongs."""

    HEADER = "header"
    INNER = "inner"
    """The headers of parts, and of the messages in it."""
    BODY = "body"
    VISIBLE = "visible"
    """Text parts of HTML without tags and character references."""


class Piece(NamedTuple):
    """Folded text. The pieces of one stream follow each other without a gap."""

    stream: Stream
    text: str
    """Headers come as whole fields, each "\\n" + name + ": " + value. Empty: a pause, nothing new."""
    fields: tuple[tuple[str, str], ...] = ()
    """Of Stream.HEADER: name and folded value of each field in the text."""


PAUSE: Final = Piece(Stream.BODY, "")


def iterate_pieces(source: bytes, *, header: bool = True, inner: bool = True, body: bool = True) -> Iterator[Piece]:
    """Yield the pieces of these texts of a message with CRLF line ends. Never raises; linear; milliseconds for a piece."""
    end = header_end(source)
    content: dict[bytes, bytes] | None = None
    if end > _LONG_HEADER and (inner or body):
        # Collected on the way: `parse_structure` would copy the header, twice.
        content = {}
    if header or content is not None:
        yield from _field_pieces(Stream.HEADER, source, 0, end, content, wanted=header)
    if not inner and not body:
        return
    root = parse_structure(source, content)
    yield PAUSE
    if inner:
        for part in all_parts(root):
            if part is not root:
                yield from _field_pieces(Stream.INNER, source, part.start, part.body)
    if body:
        room = TEXT_LIMIT
        for part in all_parts(root):
            if not part.children and part.family in (b"text", b"message"):
                yield from _body_pieces(source, part, min(part.end, part.body + room))
                room = max(room - (part.end - part.body), 0)


def _field_pieces(
    stream: Stream,
    source: bytes,
    start: int,
    end: int,
    content: dict[bytes, bytes] | None = None,
    *,
    wanted: bool = True,
) -> Iterator[Piece]:
    """Collect the content fields in `content`. Unwanted fields yield pauses alone."""
    texts: list[str] = []
    fields: list[tuple[str, str]] = []
    octets = 0
    for count, match in enumerate(FIELD.finditer(source, start, end), 1):
        name = match[1].lower()
        first, stop = match.span(2)
        value = source[first : min(stop, first + FIELD_LIMIT)]
        if content is not None and name in CONTENT_FIELDS:
            content.setdefault(name, unfold(value))
        if wanted:
            text = fold(field_text(name, value))
            texts.append(text)
            if stream is Stream.HEADER:
                fields.append((text[1 : len(name) + 1], text[len(name) + 3 :]))
            octets += len(value)
        if octets >= PIECE:
            yield Piece(stream, "".join(texts), tuple(fields))
            texts, fields, octets = [], [], 0
        elif count % _FIELDS == 0:
            yield PAUSE
    if texts:
        yield Piece(stream, "".join(texts), tuple(fields))


def _body_pieces(source: bytes, part: Part, end: int) -> Iterator[Piece]:
    """Yield a text part; a line end comes first, as between two parts."""
    is_html = part.subtype.lower() == b"html"
    encoding = part.encoding.lower()
    yield Piece(Stream.BODY, "\n")
    yield Piece(Stream.VISIBLE, "\n")
    charset = parameter(part.parameters, b"charset")
    codec = codec_of(charset) if charset else None
    if codec is None or codec == "ascii":
        # As in `encodings.decode_text`: UTF-8 if all of it is.
        codec = "utf-8"
        check = codecs.getincrementaldecoder("utf-8")("strict")
        try:
            for data in _decoded(source, part.body, end, encoding):
                check.decode(data)
                yield PAUSE
            check.decode(b"", final=True)
        except UnicodeDecodeError:
            codec = "cp1252"
    if codec == "utf-7":
        yield from _utf_7_pieces(source, part, end, is_html=is_html)
        return
    shown = _Words(Stream.BODY)
    visible = _Words(Stream.VISIBLE)
    markup = ""
    decoder = _Decoder(codec)
    pieces: Iterator[bytes | None] = chain(_decoded(source, part.body, end, encoding), (None,))
    for piece in pieces:
        last = piece is None
        text = decoder.decode(piece or b"", last=last)
        yield from shown.add(text, last=last)
        if is_html:
            whole, markup = _cut_markup(markup + text, last=last)
            plain = html.unescape(HUGE_REFERENCE.sub("\ufffd", TAG.sub("", whole)))
            yield from visible.add(plain, last=last)


def _utf_7_pieces(source: bytes, part: Part, end: int, *, is_html: bool) -> Iterator[Piece]:
    """Yield the beginning of a part in UTF-7."""
    found: list[bytes] = []
    room = _UTF_7
    for data in _decoded(source, part.body, end, part.encoding.lower()):
        found.append(data[:room])
        room -= len(found[-1])
        if not room:
            break
    text = decode_text(b"".join(found), "utf-7")
    yield PAUSE
    yield from _Words(Stream.BODY).add(text, last=True)
    if is_html:
        yield from _Words(Stream.VISIBLE).add(html.unescape(HUGE_REFERENCE.sub("\ufffd", TAG.sub("", text))), last=True)


def _cut_markup(text: str, *, last: bool) -> tuple[str, str]:
    """Cut before an unfinished tag or reference. Return the text, and the rest for the next piece."""
    if last:
        return text, ""
    cut = len(text)
    opened = text.rfind("<", max(0, cut - _LONGEST_TAG))
    if opened >= 0 and text.find(">", opened) < 0:
        cut = opened
    reference = text.rfind("&", max(0, cut - _LONGEST_REFERENCE), cut)
    if reference >= 0 and text.find(";", reference, cut) < 0:
        cut = reference
    return text[:cut], text[cut:]


class _Decoder:
    """An incremental decoder like `bytes.decode` with "replace". Python's own raise for some octets."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._decoder: codecs.IncrementalDecoder | None = None
        """None until the byte order is known."""
        if codec not in _BY_MARK:
            self._decoder = codecs.getincrementaldecoder(codec)("replace")
        self._beginning = b""

    def decode(self, data: bytes, *, last: bool) -> str:
        """Return the next characters. Never raises."""
        if self._decoder is None:
            data = self._beginning + data
            if len(data) < _LONGEST_MARK and not last:
                self._beginning = data
                return ""
            data = self._begin(data)
        assert self._decoder is not None
        try:
            return self._decoder.decode(data, last)
        except UnicodeError:
            # More octets of an incomplete escape sequence than it can keep for the next piece.
            self._decoder.reset()
            return data.decode(self._codec, "replace")

    def _begin(self, data: bytes) -> bytes:
        """Find the byte order: by its mark, else the machine's, like `bytes.decode`."""
        little, big = _BY_MARK[self._codec]
        is_little = sys.byteorder == "little"
        for mark in (little, big):
            if data.startswith(mark):
                data, is_little = data[len(mark) :], mark == little
                break
        self._codec = f"{self._codec}-{'le' if is_little else 'be'}"
        self._decoder = codecs.getincrementaldecoder(self._codec)("replace")
        return data


class _Words:
    """Text of one stream, folded in pieces that end at the end of a word."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._rest = ""

    def add(self, text: str, *, last: bool) -> Iterator[Piece]:
        text = self._rest + text
        self._rest = ""
        if not last and not text.isascii():
            end = max(text.rfind(" "), text.rfind("\n")) + 1
            if end or len(text) < PIECE:
                text, self._rest = text[:end], text[end:]
        # Folding keeps all other threads waiting: letters that become eighteen take microseconds each.
        step = PIECE if text.isascii() else _FOLDED
        at = 0
        while at < len(text):
            end = at + step
            if step == _FOLDED and end < len(text):
                end = text.rfind(" ", at, end) + 1 or end
            yield Piece(self._stream, fold(text[at:end]))
            at = end


def _decoded(source: bytes, start: int, end: int, encoding: bytes) -> Iterator[bytes]:
    """Yield the octets of a part without their transfer encoding."""
    if encoding == b"base64":
        return _base64(source, start, end)
    if encoding == b"quoted-printable":
        return (binascii.a2b_qp(data) for data in _lines(source, start, end))
    if encoding in _UU:
        return _uu(source, start, end)
    return (source[at : min(at + PIECE, end)] for at in range(start, end, PIECE))


def _lines(source: bytes, start: int, end: int) -> Iterator[bytes]:
    """Yield pieces that end with a line, or, in a long line, before an escape."""
    while start < end:
        stop = min(start + PIECE, end)
        if stop < end:
            cut = source.rfind(b"\n", start, stop) + 1
            if not cut:
                cut = source.rfind(b"=", max(start, stop - 2), stop)
            stop = cut if cut > start else stop
        yield source[start:stop]
        start = stop


def _base64(source: bytes, start: int, end: int) -> Iterator[bytes]:
    rest = b""
    for at in range(start, end, PIECE):
        clean = rest + _NOT_BASE64.sub(b"", source[at : min(at + PIECE, end)])
        clean, padded, _ = clean.partition(b"=")
        whole = len(clean) // 4 * 4
        yield binascii.a2b_base64(clean[:whole])
        rest = clean[whole:]
        if padded:
            break
    if len(rest) > 1:
        yield binascii.a2b_base64(rest + b"=" * (-len(rest) % 4))


def _uu(source: bytes, start: int, end: int) -> Iterator[bytes]:
    """Do `encodings.decode_transfer`: text without a begin line stays as it is."""
    begun = source.startswith(b"begin ", start) or source.find(b"\nbegin ", start, end) >= 0
    if not begun:
        yield from (source[at : min(at + PIECE, end)] for at in range(start, end, PIECE))
        return
    started = False
    for data in _lines(source, start, end):
        decoded: list[bytes] = []
        for line in data.splitlines():
            if not started:
                started = line.startswith(b"begin ")
            elif line == b"end":
                yield b"".join(decoded)
                return
            else:
                try:
                    decoded.append(binascii.a2b_uu(line))
                except binascii.Error:
                    continue
        yield b"".join(decoded)
