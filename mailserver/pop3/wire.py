"""POP3 bytes without I/O: lines, and dot-stuffing (RFC 1939 3)."""

from __future__ import annotations

import enum
import re

MAX_LINE = 12288 + 2
"""Octets of the longest line kept: a SASL response (RFC 5034 4, RFC 4954 4). Commands are at most 255 (RFC 2449 4)."""

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_HEAD = 16


class Refused(enum.Enum):
    """Why a line is not given to anyone."""

    TOO_LONG = "line too long"
    MALFORMED = "control character, or a line end that is not CRLF"


class LineReader:
    """Cuts a client's bytes into lines. Memory is bounded by `limit`; a refused line is consumed to its end."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self.limit = limit
        self.head = b""
        """First octets of the last line, also of one that is refused."""
        self._buffer = bytearray()
        self._overlong = False

    @property
    def pending(self) -> bool:
        """Is there a byte that no line has given out yet?"""
        return bool(self._buffer) or self._overlong

    def receive_data(self, data: bytes) -> None:
        """Take up bytes of the client."""
        self._buffer += data

    def next_line(self) -> bytes | Refused | None:
        """The next line without its CRLF, why it is refused, or None: more bytes are needed."""
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > self.limit and not self._overlong:
                self._overlong = True
                self.head = bytes(self._buffer[:_HEAD])
            if self._overlong:
                self._buffer.clear()
            return None
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        if self._overlong:
            self._overlong = False
            return Refused.TOO_LONG
        self.head = line[:_HEAD]
        if len(line) > self.limit:
            return Refused.TOO_LONG
        if not line.endswith(b"\r\n") or _CONTROL.search(line, 0, len(line) - 2):
            return Refused.MALFORMED
        return line[:-2]


class DotStuffer:
    """Makes a multi-line answer of a text, in pieces: lines that begin with a dot get one more (RFC 1939 3)."""

    def __init__(self) -> None:
        self._last = b"\r\n"

    def stuff(self, data: bytes) -> bytes:
        """What to send for the next piece."""
        if not data:
            return data
        dotted = data.replace(b"\n.", b"\n..")
        if self._last.endswith(b"\n") and data.startswith(b"."):
            dotted = b"." + dotted
        self._last = (self._last + data[-2:])[-2:]
        return dotted

    def finish(self) -> bytes:
        """The end: the last line's CRLF if it lacks one, then the line with a single dot."""
        return b".\r\n" if self._last == b"\r\n" else b"\r\n.\r\n"


class TopCutter:
    """Cuts a message, in pieces, to its header, the empty line and the first lines of its body (RFC 1939 7, TOP)."""

    def __init__(self, lines: int) -> None:
        self._left = lines
        self._in_body = False
        self._tail = b"\r\n"
        self.done = False
        """Nothing more will be given out."""

    def cut(self, data: bytes) -> bytes:
        """What of the next piece belongs to the answer."""
        if self.done:
            return b""
        start = 0
        if not self._in_body:
            joined = self._tail + data
            blank = joined.find(b"\r\n\r\n")
            if blank < 0:
                self._tail = joined[-3:]
                return data
            start = blank + 4 - len(self._tail)
            self._in_body = True
        while self._left:
            end = data.find(b"\n", start)
            if end < 0:
                return data
            start = end + 1
            self._left -= 1
        self.done = True
        return data[:start]
