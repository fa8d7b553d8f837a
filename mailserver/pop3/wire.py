"""POP3 octets without I/O: the limit of a line, and the text of TOP. Lines are cut by `mailserver.session.lines`."""

from __future__ import annotations

MAX_LINE = 12288 + 2
"""Octets of the longest line kept: a SASL response (RFC 5034 4, RFC 4954 4). Commands are at most 255 (RFC 2449 4)."""


class TopCutter:
    """Cuts a message, in pieces, to its header, the empty line and the first lines of its body (RFC 1939 7, TOP)."""

    def __init__(self, lines: int) -> None:
        self._left = lines
        self._in_body = False
        self._tail = b"\r\n"
        self.done = False
        """Is the text complete?"""

    def cut(self, data: bytes) -> bytes:
        """The part of the next piece that belongs to the answer."""
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
