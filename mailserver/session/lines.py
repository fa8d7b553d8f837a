"""Lines of a client and dot-stuffed text, without I/O, for POP3 and SMTP (RFC 1939 3, RFC 5321 2.3.8).

A line ends at CRLF and at nothing else; one with a bare CR or LF, another control character or too many octets is
consumed to its end and refused, so that the stream stays in step. No line takes more memory than its limit.
"""

from __future__ import annotations

import enum
import re

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_DOT = re.compile(rb"\n\.")
_HEAD = 16
_HTTP_METHODS = frozenset(
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"]
)


def is_http(word: bytes) -> bool:
    """Is the first word of a line, in upper case, an HTTP method or a header field's name?

    Neither is a command here. A web page must not be able to make a browser run the commands in a form's data.
    """
    return word in _HTTP_METHODS or word.endswith(b":")


class LineFault(enum.Enum):
    """The reason why a line is refused."""

    TOO_LONG = "line too long"
    MALFORMED = "control character, or a line end that is not CRLF"


class LineReader:
    """Cuts a client's bytes into lines; commands that are followed by data take raw bytes."""

    def __init__(self, limit: int) -> None:
        """`limit` is the octets of the longest line, its CRLF included."""
        self.limit = limit
        self.head = b""
        """First octets of the last line, also of one that is refused."""
        self._buffer = bytearray()
        self._overlong = False

    @property
    def pending(self) -> bool:
        """Is there a byte that has not been taken yet?"""
        return bool(self._buffer) or self._overlong

    def receive_data(self, data: bytes) -> None:
        """Add bytes of the client."""
        self._buffer += data

    def next_line(self) -> bytes | LineFault | None:
        """The next line without its CRLF, its fault, or None if more bytes are needed."""
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
            return LineFault.TOO_LONG
        self.head = line[:_HEAD]
        if len(line) > self.limit:
            return LineFault.TOO_LONG
        if not line.endswith(b"\r\n") or _CONTROL.search(line, 0, len(line) - 2):
            return LineFault.MALFORMED
        return line[:-2]

    def take(self, count: int | None = None) -> bytes:
        """Take raw bytes that are here, at most `count`."""
        data = bytes(self._buffer if count is None else self._buffer[:count])
        del self._buffer[: len(data)]
        return data

    def give_back(self, data: bytes) -> None:
        """Put back bytes that were taken too many."""
        self._buffer[:0] = data


def dot_stuffed(text: bytes) -> bytes:
    """A whole text as a multi-line answer: dot-stuffed, with its end (RFC 1939 3). Its line ends are CRLF."""
    dotted = _stuffed(text)
    if text.startswith(b"."):
        dotted = b"." + dotted
    return dotted + (b".\r\n" if not text or text.endswith(b"\r\n") else b"\r\n.\r\n")


def _stuffed(data: bytes) -> bytes:
    """Give one more dot to the lines that begin with one, but for the first."""
    # The pattern searches for the LF alone, which takes half the time of bytes.replace() or less.
    return data.replace(b"\n.", b"\n..") if _DOT.search(data) else data


class DotStuffer:
    """Makes a multi-line answer, or DATA, of a text in pieces (RFC 1939 3, RFC 5321 4.5.2). Its line ends are CRLF."""

    def __init__(self) -> None:
        self._last = b"\r\n"

    def stuff(self, data: bytes) -> bytes:
        """The octets for the next piece: lines that begin with a dot get one more."""
        if not data:
            return data
        dotted = _stuffed(data)
        if self._last.endswith(b"\n") and data.startswith(b"."):
            dotted = b"." + dotted
        self._last = (self._last + data[-2:])[-2:]
        return dotted

    def finish(self) -> bytes:
        """The end: the last line's CRLF if it lacks one, then the line with a single dot."""
        return b".\r\n" if self._last == b"\r\n" else b"\r\n.\r\n"
