"""SMTP and LMTP bytes without I/O: lines, DATA, BDAT (RFC 5321, RFC 3030).

Problems this module exists for: message data must never be run as commands, nor commands end up in a message, for
any cut of the stream; and what other programs might take for the end of a message must not pass through.

Rules: DATA ends at CRLF "." CRLF and at nothing else. A bare CR or LF marks the message as refused, and it is still
read to its end. BDAT is counted in octets, refused or not. A line over its limit is consumed to its end, and refused.
"""

from __future__ import annotations

import enum
import re

from attrs import frozen

from mailserver.errors import BadMessage, MailError

MAX_LINE = 12288 + 512
"""Octets of the longest command line kept: AUTH with its initial response (RFC 4954 4); others are at most 512."""

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_HEAD = 16
_END = b"\r\n.\r\n"


class Refused(enum.Enum):
    """Why a line is not given to anyone."""

    TOO_LONG = "line too long"
    MALFORMED = "control character, or a line end that is not CRLF"


class Framer:
    """Cuts a client's bytes into command lines, and gives out raw bytes where the commands say that data follows."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self.limit = limit
        self.head = b""
        """First octets of the last line, also of one that is refused."""
        self._buffer = bytearray()
        self._overlong = False

    @property
    def pending(self) -> bool:
        """Is there a byte that has not been given out yet?"""
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

    def take(self, count: int | None = None) -> bytes:
        """Raw bytes that are here, at most `count`."""
        data = bytes(self._buffer if count is None else self._buffer[:count])
        del self._buffer[: len(data)]
        return data

    def give_back(self, data: bytes) -> None:
        """Put bytes that were taken too many before all others."""
        self._buffer[:0] = data


class DataDecoder:
    """The message behind DATA: takes dot-stuffing away and finds the end (RFC 5321 4.5.2)."""

    def __init__(self) -> None:
        # The data begins at the start of a line, as if a CRLF came before; it is not given out.
        self._held = b"\r\n"
        self._skip = 2
        self.done = False
        self.rest = b""
        """What followed the end: commands."""

    def receive_data(self, data: bytes) -> bytes:
        """The next part of the message."""
        data = self._held + data
        end = data.find(_END)
        if end >= 0:
            self.done = True
            self.rest = data[end + len(_END) :]
            self._held = b""
            data = data[: end + 2]
        else:
            # Neither CRLF nor CRLF "." is ever cut in two between parts.
            held = next((size for size in (4, 3, 2, 1) if data.endswith(_END[:size])), 0)
            self._held = data[len(data) - held :]
            data = data[: len(data) - held]
        if self._skip and data:
            text = data.replace(b"\r\n.", b"\r\n")[2:]
            self._skip = 0
            return text
        return data.replace(b"\r\n.", b"\r\n")


class LineEnds:
    """Watches that a message has CR and LF only as CRLF, and no NUL (RFC 5321 2.3.8, RFC 5322 2.1)."""

    def __init__(self) -> None:
        self._after_cr = False
        self.complete = True
        """Does the message so far end with CRLF (or is it empty)?"""

    def check(self, data: bytes) -> None:
        """Look at the next part. Raises: BadMessage; later calls then mean nothing."""
        if not data:
            return
        returns, feeds, pairs = data.count(b"\r"), data.count(b"\n"), data.count(b"\r\n")
        if self._after_cr:
            if not data.startswith(b"\n"):
                raise BadMessage("the message has a CR that no LF follows")
            feeds -= 1
        ended = self._after_cr and data == b"\n"
        self._after_cr = data.endswith(b"\r")
        if returns - self._after_cr != pairs or feeds != pairs:
            raise BadMessage("the message has a CR or LF that is not part of a CRLF")
        if b"\0" in data:
            raise BadMessage("the message has a NUL")
        self.complete = ended or data.endswith(b"\r\n")

    def finish(self) -> None:
        """The message is over. Raises: BadMessage."""
        if self._after_cr:
            raise BadMessage("the message has a CR that no LF follows")


class DotStuffer:
    """Makes DATA of a message, in pieces (RFC 5321 4.5.2). Its line ends must be CRLF."""

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


@frozen
class Reply:
    """One reply of one or more lines (RFC 5321 4.2), each with its enhanced status (RFC 2034 4)."""

    code: int
    enhanced: str | None
    lines: tuple[str, ...]

    def write(self) -> bytes:
        """Its bytes."""
        status = f"{self.enhanced} " if self.enhanced else ""
        last = len(self.lines) - 1
        written = [f"{self.code}{'-' if at < last else ' '}{status}{line}\r\n" for at, line in enumerate(self.lines)]
        return "".join(written).encode("ascii", "replace")


def reply(code: int, enhanced: str | None, *lines: str) -> Reply:
    """A reply."""
    return Reply(code, enhanced, lines)


def reply_to(error: MailError) -> Reply:
    """What is answered for an expected failure."""
    code, enhanced = error.smtp_reply
    return Reply(code, enhanced, (error.sentence,))
