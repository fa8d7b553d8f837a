"""Binary content that a client appends (RFC 3516 4.4): parts that no message may hold as they are become base64.

Those are leaf parts with NUL, or with CR or LF outside of line ends. Nothing else is changed, as signatures would break
(RFC 3516 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mailserver.errors import UnknownEncoding
from mailserver.message.headers import FIELD
from mailserver.message.structure import Part, parse_structure
from mailserver.message.text import all_parts
from mailserver.message.transfer import encoded_base64

_SLICE: Final = 256 * 1024
"""Octets that are examined at a time: other threads wait meanwhile."""
_ENCODING: Final = b"Content-Transfer-Encoding: base64\r\n"
_NO_CONTENT: Final = (b"7bit", b"8bit", b"binary")


def without_binary(source: bytes) -> Iterator[bytes] | None:
    """Return the message's pieces with such parts as base64; None if there are none, and it can be stored as it is.

    Raises: UnknownEncoding for NUL outside of leaf parts, or in a part that says that it is encoded otherwise.
    """
    root = parse_structure(source)
    parts = [part for part in all_parts(root) if not part.children and _is_binary(source, part.body, part.end)]
    if not parts and b"\0" not in source:
        return None
    at = 0
    for part in parts:
        if part.encoding.lower() not in _NO_CONTENT or not source[part.start : part.body].endswith(b"\r\n"):
            if b"\0" in source[part.body : part.end]:
                raise UnknownEncoding("there is NUL in a part that is no binary content")
            continue
        _check(source, at, part.body)
        at = part.end
    _check(source, at, len(source))
    return _pieces(source, parts)


def _is_binary(source: bytes, start: int, end: int) -> bool:
    """Is there NUL, or CR or LF outside of line ends? By counts, as a regular expression takes a second for 50 MB."""
    while start < end:
        stop = min(start + _SLICE, end)
        if stop < end and source[stop - 1 : stop + 1] == b"\r\n":
            stop += 1
        lines = source.count(b"\r\n", start, stop)
        if (
            source.find(b"\0", start, stop) >= 0
            or source.count(b"\r", start, stop) != lines
            or source.count(b"\n", start, stop) != lines
        ):
            return True
        start = stop
    return False


def _check(source: bytes, start: int, end: int) -> None:
    if source.find(b"\0", start, end) >= 0:
        raise UnknownEncoding("there is NUL outside of binary content")


def _pieces(source: bytes, parts: list[Part]) -> Iterator[bytes]:
    at = 0
    for part in parts:
        header = source[part.start : part.body]
        if part.encoding.lower() not in _NO_CONTENT or not header.endswith(b"\r\n"):
            continue
        yield source[at : part.start]
        yield _encoded_header(header)
        yield from encoded_base64(source[part.body : part.end])
        at = part.end
        if at == len(source):
            yield b"\r\n"
    yield source[at:]


def _encoded_header(header: bytes) -> bytes:
    """Return the header with this encoding in place of another."""
    fields = header[: -len(b"\r\n")]
    kept: list[bytes] = []
    at = 0
    for field in FIELD.finditer(fields):
        if field[1].lower() == b"content-transfer-encoding":
            kept.append(fields[at : field.start()])
            at = field.end()
    kept.append(fields[at:])
    return b"".join(kept) + _ENCODING + b"\r\n"
