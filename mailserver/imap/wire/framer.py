"""The framer of IMAP input: cuts octets into command lines and literals (RFC 3501 4.3, RFC 7888). No I/O, bounded memory.

Problems: a literal must not be read into memory, or even requested, before the command's code has accepted it;
after a refusal the stream must stay in step, though a client that sends `{n+}` has sent its octets already; commands can be
smuggled by a bare LF that one program takes for a line's end and another for text.

Rules:

*   A line ends at CRLF only. A line with NUL, a bare CR or a bare LF, or one that is too long, is refused whole.
*   A line whose end announces a literal pauses the framer until `accept_literal` or `refuse_literal`.
*   After a refusal the rest of that command is discarded: to the end of its line, the octets of each `{n+}` in it, and
    so on. A `{n}` ends it too, as the client then waits for the answer, which is a refusal. `swallow_limit` bounds the octets
    that are discarded; beyond it `FramingLost` is raised (RFC 7888 4: then the connection ends).

Rejected: to end a refused line at its bare LF. The next octets may be the inside of a quoted string.
"""

from __future__ import annotations

import enum
import re
from typing import Final

from attrs import field, frozen

_ANNOUNCEMENT = re.compile(rb"(~?)\{([0-9]+)(\+?)\}\Z")
_LONGEST_ANNOUNCEMENT = 32
_HEAD = 128
"""Octets of a refused line that are kept, for its tag."""
MOST_DROPPED = 1000
"""Literals of a refused command that are discarded: tiny ones take far more time than their octets suggest."""


class FramingLost(Exception):
    """More would have to be discarded than is allowed: the connection must end."""


@frozen
class Line:
    """The last line of a command, or a continuation, without its CRLF; it may hold a password."""

    data: bytes = field(repr=False)


@frozen
class LineRefused:
    """A line that breaks the rules; it is being discarded."""

    head: bytes = field(repr=False)
    """Its first octets; they may hold a password."""
    reason: str


@frozen
class LiteralAnnounced:
    """A line that ends in `{n}`: accept or refuse it before asking for the next event."""

    data: bytes = field(repr=False)
    """The line before the announcement; it may hold a password."""
    size: int
    """The announced octets; a number beyond 2**63 counts as 2**63."""
    non_sync: bool
    """`{n+}`: the octets come without being asked for (RFC 7888)."""
    literal8: bool = False
    """`~{n}` (RFC 3516)."""


@frozen
class LiteralData:
    """Some octets of an accepted literal, never none; they may be a password."""

    data: bytes = field(repr=False)


class Mark(enum.Enum):
    """Events without content."""

    LITERAL_END = "the literal is complete; its command goes on with the next line"
    NEED_DATA = "nothing more until receive_data"


NEED_DATA: Final = Mark.NEED_DATA
LITERAL_END: Final = Mark.LITERAL_END

Event = Line | LineRefused | LiteralAnnounced | LiteralData | Mark


class _State(enum.Enum):
    LINE = 0
    PAUSED = 1
    LITERAL = 2
    DISCARD_LINE = 3
    DISCARD_LITERAL = 4


_LINE = _State.LINE


class Framer:
    """Lines and literals of one connection. Both bounds may be changed between commands."""

    def __init__(self, max_line: int, swallow_limit: int = 1 << 16) -> None:
        self.max_line = max_line
        self.swallow_limit = swallow_limit
        self._buffer = bytearray()
        self._scanned = 0
        self._state = _State.LINE
        self._literal = 0
        self._non_sync = False
        self._command = 0
        self._swallowed = 0
        self._dropped = 0

    @property
    def buffered(self) -> bool:
        """Are there bytes that no event has given out yet?"""
        return bool(self._buffer)

    @property
    def within_command(self) -> bool:
        """Has a command begun whose last line has not been given out?"""
        return bool(self._buffer) or self._state is not _State.LINE or self._command > 0

    def receive_data(self, data: bytes) -> None:
        """Add what the client sent."""
        self._buffer += data

    def next_event(self) -> Event:
        """The next event. Raises: FramingLost."""
        if self._state is _LINE:
            return self._line()
        while True:
            match self._state:
                case _State.LINE:
                    return self._line()
                case _State.LITERAL:
                    return self._literal_data()
                case _State.PAUSED:
                    raise AssertionError("accept or refuse the literal first")
                case _State.DISCARD_LINE:
                    if not self._discard_line():
                        return NEED_DATA
                case _State.DISCARD_LITERAL:
                    if not self._discard_literal():
                        return NEED_DATA

    def peek_run(self, line: re.Pattern[bytes], run: re.Pattern[bytes]) -> list[tuple[bytes, ...]]:
        """The groups of `line` in each of the next whole lines, which match `run` together; the lines stay in the buffer.

        The patterns match CRLF at the end of a line, and no literal. They bound the lines.
        """
        if self._state is not _LINE or self._command:
            return []
        together = run.match(self._buffer)
        return line.findall(self._buffer, 0, together.end()) if together else []

    def skip(self, octets: int) -> None:
        """Drop those octets of whole commands, which `peek_run` has returned."""
        del self._buffer[:octets]
        self._scanned = 0

    def accept_literal(self) -> None:
        """Take the announced literal; for `{n}` the caller also writes the continuation request."""
        assert self._state is _State.PAUSED
        self._state = _State.LITERAL

    def refuse_literal(self) -> None:
        """Refuse the announced literal and discard the rest of the command. The caller answers the command."""
        assert self._state is _State.PAUSED
        if self._non_sync:
            self._swallow(self._literal)
            self._state = _State.DISCARD_LITERAL
        else:
            self._new_command()

    def abandon_command(self) -> None:
        """Discard the rest of a command that was answered before its end, if there is any."""
        if self._state is _LINE:
            if self._command:
                self._state = _State.DISCARD_LINE
        elif self._state is _State.PAUSED:
            self.refuse_literal()
        elif self._state is _State.LITERAL:
            self._state = _State.DISCARD_LITERAL

    def _line(self) -> Event:
        buffer = self._buffer
        end = buffer.find(b"\n", self._scanned)
        room = self.max_line - self._command
        if end < 0:
            self._scanned = len(buffer)
            if len(buffer) > room + 1:
                return self._refuse("line too long", head=room + 2)
            return NEED_DATA
        if end > room + 1:
            return self._refuse("line too long", head=room + 2)
        if end == 0 or buffer[end - 1] != 0x0D:
            return self._refuse("bare LF: lines end with CRLF", head=end + 1, consume=end + 1)
        data = bytes(buffer[: end - 1])
        del buffer[: end + 1]
        self._scanned = 0
        announced = _announcement(data) if data[-1:] == b"}" else None
        if b"\r" in data or b"\0" in data:
            self._start_discarding(announced)
            return LineRefused(data[:_HEAD], "NUL or bare CR in a line")
        if announced is None:
            self._new_command()
            return Line(data)
        self._command += len(data) + 1
        self._literal, self._non_sync = announced.size, announced.non_sync
        self._state = _State.PAUSED
        return announced

    def _literal_data(self) -> Event:
        if self._literal == 0:
            self._state = _State.LINE
            return LITERAL_END
        buffer = self._buffer
        if not buffer:
            return NEED_DATA
        if len(buffer) <= self._literal:
            data = bytes(buffer)
            buffer.clear()
        else:
            data = bytes(buffer[: self._literal])
            del buffer[: self._literal]
        self._literal -= len(data)
        return LiteralData(data)

    def _refuse(self, reason: str, *, head: int, consume: int = 0) -> LineRefused:
        kept = bytes(self._buffer[: min(head, _HEAD)])
        del self._buffer[:consume]
        self._swallowed = consume
        self._scanned = 0
        self._state = _State.DISCARD_LINE
        return LineRefused(kept, reason)

    def _discard_line(self) -> bool:
        """Drop octets up to the end of the line; False if it has not come yet."""
        buffer = self._buffer
        end = buffer.find(b"\r\n", self._scanned)
        if end < 0:
            excess = len(buffer) - _LONGEST_ANNOUNCEMENT
            if excess > 0:
                self._swallow(excess)
                del buffer[:excess]
            self._scanned = max(0, len(buffer) - 1)
            return False
        self._swallow(end + 2)
        announced = _announcement(bytes(buffer[max(0, end - _LONGEST_ANNOUNCEMENT) : end]))
        del buffer[: end + 2]
        self._start_discarding(announced)
        return True

    def _start_discarding(self, announced: LiteralAnnounced | None) -> None:
        """Continue behind a refused line: with its non-synchronizing literal, or with the next command."""
        self._scanned = 0
        if announced is not None and announced.non_sync:
            self._literal = announced.size
            self._swallow(announced.size)
            self._dropped += 1
            if self._dropped > MOST_DROPPED:
                raise FramingLost
            self._state = _State.DISCARD_LITERAL
        else:
            self._new_command()

    def _discard_literal(self) -> bool:
        taken = min(len(self._buffer), self._literal)
        del self._buffer[:taken]
        self._literal -= taken
        if self._literal:
            return False
        self._state = _State.DISCARD_LINE
        return True

    def _swallow(self, size: int) -> None:
        self._swallowed += size
        if self._swallowed > self.swallow_limit:
            raise FramingLost

    def _new_command(self) -> None:
        self._state = _State.LINE
        self._scanned = self._command = self._swallowed = self._dropped = 0


def _announcement(line: bytes) -> LiteralAnnounced | None:
    if line[-1:] != b"}":
        return None
    match = _ANNOUNCEMENT.search(line)
    if match is None:
        return None
    digits = match[2].lstrip(b"0")
    size = int(digits or b"0") if len(digits) < 20 else 1 << 63
    return LiteralAnnounced(line[: match.start()], min(size, 1 << 63), bool(match[3]), bool(match[1]))
