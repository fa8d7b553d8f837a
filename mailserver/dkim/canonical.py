"""Canonical forms of header fields and bodies (RFC 6376 3.4). The body comes in pieces; memory is bounded, time linear.

Only CRLF ends a line. A bare CR or LF is an octet like another, as the standard leaves it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, Literal, TypeAlias

from attrs import frozen

Form: TypeAlias = Literal["simple", "relaxed"]

_CRLF: Final = b"\r\n"
_SPACES = re.compile(rb"  +")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\r\n]++|\r\n[ \t]|\r(?!\n)|\n)*+)(?:\r\n|\Z)")
_CRLF_PIECES: Final = 4096
"""CRLFs that are hashed at once."""


@frozen
class HeaderField:
    """A header field as it stands in the message."""

    name: bytes
    """Lower case."""
    raw: bytes
    """The whole field, with its CRLF."""

    def canonical(self, form: Form) -> bytes:
        """The canonical form, with its CRLF (RFC 6376 3.4.1, 3.4.2)."""
        return self.raw if form == "simple" else relaxed_field(self.raw)


def split_header(header: bytes) -> list[HeaderField]:
    """Split a header, up to its empty line or its end. What is no field ends it."""
    fields = []
    at = 0
    while found := _FIELD.match(header, at):
        raw = found[0] if found[0].endswith(_CRLF) else found[0] + _CRLF
        fields.append(HeaderField(found[1].lower(), raw))
        at = found.end()
    return fields


def relaxed_field(raw: bytes) -> bytes:
    """The relaxed form of a field: name in lower case, unfolded, runs of white space as one space (RFC 6376 3.4.2)."""
    name, _colon, body = raw.partition(b":")
    body = body.replace(_CRLF, b"").replace(b"\t", b" ")
    if b"  " in body:
        body = _SPACES.sub(b" ", body)
    return name.rstrip(b" \t").lower() + b":" + body.strip(b" ") + _CRLF


class BodyDigest:
    """The SHA-256 of a body in a canonical form (RFC 6376 3.4.3, 3.4.4, 3.7)."""

    def __init__(self, form: Form, limit: int | None = None) -> None:
        """`limit`: octets of the canonical form that are hashed, of a signature with `l=`."""
        self.length = 0
        """Octets of the canonical form so far."""
        self._relaxed = form == "relaxed"
        self._limit = limit
        self._hash = hashlib.sha256()
        self._held = b""
        """The end of the last piece, whose form depends on what follows."""
        self._line_ends = 0
        """CRLFs at the end: those of empty lines count only if another line follows."""

    def update(self, piece: bytes) -> None:
        """Add octets."""
        data = self._held + piece if self._held else piece
        if self._relaxed:
            if b"\t" in data:
                data = data.replace(b"\t", b" ")
            if b"  " in data:
                data = _SPACES.sub(b" ", data)
            data = data.replace(b" \r\n", _CRLF)
            held = 2 if data.endswith(b" \r") else int(data.endswith((b" ", b"\r")))
        else:
            held = int(data.endswith(b"\r"))
        end = len(data) - held
        self._held = data[end:]
        empty = 0
        while data.endswith(_CRLF, 0, end):
            end -= 2
            empty += 1
        if end:
            self._write_line_ends()
            self._write(data[:end])
        self._line_ends += empty

    def digest(self) -> bytes:
        """End the body and return the hash. Once."""
        held = self._held.rstrip(b" ") if self._relaxed else self._held
        if held:
            self._write_line_ends()
            self._write(held)
        # A last line without CRLF gets one; an empty body in the simple form is one (RFC 6376 3.4.3).
        if self.length or not self._relaxed:
            self._write(_CRLF)
        return self._hash.digest()

    def _write_line_ends(self) -> None:
        count, self._line_ends = self._line_ends, 0
        while count:
            some = min(count, _CRLF_PIECES)
            self._write(_CRLF * some)
            count -= some

    def _write(self, data: bytes) -> None:
        if self._limit is None:
            self._hash.update(data)
        else:
            self._hash.update(data[: max(0, self._limit - self.length)])
        self.length += len(data)


class MessageDigest:
    """The digest of a message's body, of a message that comes whole: its header is passed over."""

    def __init__(self, body: BodyDigest) -> None:
        self._body = body
        # A message that begins with an empty line has no header.
        self._tail: bytes | None = _CRLF

    def update(self, piece: bytes) -> None:
        """Add octets of the message."""
        if self._tail is None:
            self._body.update(piece)
            return
        data = self._tail + piece
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._tail = data[-3:]
        else:
            self._tail = None
            self._body.update(data[end + 4 :])

    def digest(self) -> bytes:
        """End the message and return the hash of its body. Once."""
        return self._body.digest()
