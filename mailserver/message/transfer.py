"""Transfer encodings, decoded and encoded piece by piece (RFC 2045 6): a large part is never in memory whole.

Decoding is lenient, as the whole-part functions in `encodings` are: foreign characters in base64 are skipped, and what follows
its padding; spaces at the end of a line of quoted-printable do not count, and "=" without two hexadecimal digits stays.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Final, Protocol

LINE: Final = 57
"""Octets in a line of base64."""
_LONGEST_LINE: Final = 64 * 1024
"""Octets of a line of quoted-printable that are held until its end comes."""
_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/=]+")
# A run of spaces is looked at from its beginning alone: without that a long one takes quadratic time.
_TRAILING: Final = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n)")


class TransferDecoder(Protocol):
    """The decoder of one part."""

    def decode(self, data: bytes) -> bytes:
        """Decode the next octets; some of them may be held until more come."""

    def finish(self) -> bytes:
        """Decode what is held, at the end of the part."""


class _Identity:
    def decode(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class _Base64:
    def __init__(self) -> None:
        self._rest = b""
        self._ended = False

    def decode(self, data: bytes) -> bytes:
        if self._ended:
            return b""
        clean, padded, _ = (self._rest + _NOT_BASE64.sub(b"", data)).partition(b"=")
        self._ended = bool(padded)
        whole = len(clean) // 4 * 4
        self._rest = clean[whole:]
        return binascii.a2b_base64(clean[:whole])

    def finish(self) -> bytes:
        rest, self._rest = self._rest, b""
        return binascii.a2b_base64(rest + b"=" * (-len(rest) % 4)) if len(rest) > 1 else b""


class _QuotedPrintable:
    def __init__(self) -> None:
        self._rest = b""

    def decode(self, data: bytes) -> bytes:
        data = self._rest + data
        cut = data.rfind(b"\n") + 1
        if not cut and len(data) > _LONGEST_LINE:
            # Not within an escape.
            cut = data.rfind(b"=", len(data) - 2)
            cut = len(data) if cut < 0 else cut
        self._rest = data[cut:]
        return _unquoted(data[:cut])

    def finish(self) -> bytes:
        rest, self._rest = self._rest, b""
        return _unquoted(rest.rstrip(b" \t"))


def _unquoted(data: bytes) -> bytes:
    return binascii.a2b_qp(_TRAILING.sub(b"", data))


_DECODERS: Final[dict[bytes, type[_Identity | _Base64 | _QuotedPrintable]]] = {
    b"7bit": _Identity,
    b"8bit": _Identity,
    b"binary": _Identity,
    b"base64": _Base64,
    b"quoted-printable": _QuotedPrintable,
}
KNOWN: Final = frozenset(_DECODERS)
"""The encodings of RFC 2045 6.1, in lower case."""


def decoder(encoding: bytes) -> TransferDecoder:
    """Return a decoder for one of KNOWN."""
    return _DECODERS[encoding]()


def encoded_base64(data: bytes) -> Iterator[bytes]:
    """Yield the lines of base64, some thousand at a time, with CRLF between them and none at the end."""
    step = 1024 * LINE
    for at in range(0, len(data), step):
        lines = [
            binascii.b2a_base64(data[start : start + LINE], newline=False)
            for start in range(at, min(at + step, len(data)), LINE)
        ]
        yield (b"\r\n" if at else b"") + b"\r\n".join(lines)
