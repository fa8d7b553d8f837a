"""A check of incoming messages for headers that are too large: a message's own, or that of a part or message in it.

Headers are those of `structure.parse_structure`: the message's; that of a part, after each delimiter of an open
multipart; that of the message at the start of a message/rfc822 part, if no transfer encoding hides it. A header ends
with its empty line, or at a delimiter of an enclosing level. A message without an empty line is one header.

The problem is to find them while the message comes, in linear time and in memory for little more than one header. So
the same rules apply to a window of the message: each open level knows how far its delimiter has been searched for, and
none searches beyond the next delimiter of the enclosing level. Nothing is decided at a position before as many octets
follow as the longest delimiter has. A message that is no longer than the limit of a header is not parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mailserver.errors import TooBig
from mailserver.message.content import PLAIN, Content, read_content
from mailserver.message.limits import ALL_SEEN, MAX_HEADER, SEEN
from mailserver.message.structure import MAX_DEPTH, MAX_PARTS

_STEP: Final = 16 * 1024
"""Octets that are collected before they are parsed."""
_STEPS: Final = 100
"""Headers and delimiters between two pauses: a few milliseconds."""


class _Level:
    """An open multipart. Positions are octets of the message."""

    __slots__ = ("delimiter", "following", "is_digest", "looked", "opened")

    def __init__(self, delimiter: bytes, opened: int, looked: int, *, is_digest: bool) -> None:
        self.delimiter = delimiter
        self.opened = opened
        """The number of open parts around and including it."""
        self.looked = looked
        """No unprocessed delimiter begins before this position."""
        self.following = -1
        """The position of the next delimiter, if it has been found."""
        self.is_digest = is_digest


class HeaderSizeChecker:
    """The check of one message, with line ends CRLF or LF: `write` all of it, then `finish`. Either raises TooBig.

    Where other sessions wait, `writing` and `finishing` do the same in small steps.
    """

    def __init__(self, limit: int = MAX_HEADER, step: int = _STEP) -> None:
        """`limit`: octets of a header, as sent (each line end is CRLF), with its empty line."""
        self._limit = limit
        self._step = step
        self._size = 0
        self._held = b""
        """A CR that may be followed by an LF."""
        self._data = bytearray()
        """The window: octets that are still to be decided."""
        self._base = 0
        """The window's position in the message."""
        self._waiting = 0
        """Octets of the window that have not been parsed."""
        self._is_ended = False
        self._levels: list[_Level] = []
        self._open = 0
        self._parts = 0
        self._room = ALL_SEEN
        self._from = 0
        """Delimiters count from this position on."""
        self._start = 0
        """Start of the header that is being read, or, between two, the position after the last delimiter."""
        self._blank_from = 0
        """No empty line begins before this position in that header."""
        self._is_digest = False
        """True if that header belongs to a part of a digest."""
        self._step_on: Callable[[HeaderSizeChecker], bool] = HeaderSizeChecker._header
        """The next step: a function, as a method of this object would make a cycle, which keeps the window in memory."""

    def write(self, data: bytes) -> None:
        """Check the next octets. Raises: TooBig; later calls then mean nothing."""
        for _ in self.writing(data):
            pass

    def finish(self) -> None:
        """Check the end of the message. Raises: TooBig."""
        for _ in self.finishing():
            pass

    def writing(self, data: bytes) -> Iterator[None]:
        """Do `write` with pauses: 64 KiB may have thousands of parts. Exhaust it before the next call."""
        if self._is_over:
            return
        data = self._held + data
        self._held = b"\r" if data.endswith(b"\r") else b""
        if self._held:
            data = data[:-1]
        yield from self._take(data)

    def finishing(self) -> Iterator[None]:
        """Do `finish` with pauses."""
        if self._is_over:
            return
        yield from self._take(self._held)
        self._is_ended = True
        if self._size > self._limit:
            yield from self._look()

    @property
    def _is_over(self) -> bool:
        return self._step_on is HeaderSizeChecker._nothing

    def _take(self, data: bytes) -> Iterator[None]:
        if data.count(b"\n") != data.count(b"\r\n"):
            data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._data += data
        self._size += len(data)
        self._waiting += len(data)
        if self._size > self._limit and self._waiting >= self._step:
            yield from self._look()

    def _look(self) -> Iterator[None]:
        self._waiting = 0
        count = 0
        while self._step_on(self):
            count += 1
            if count % _STEPS == 0:
                yield

    # --- Steps: True if another one can be done with what is here

    def _nothing(self) -> bool:
        """Stop: no further header can come."""
        self._drop(self._end)
        return False

    def _header(self) -> bool:
        """Find the header's end, and start what follows."""
        end = self._header_end()
        if end < 0:
            if self._sure - self._start > self._limit:
                raise TooBig(f"a header of the message, or of a part of it, is larger than {self._limit} octets")
            return False
        if end - self._start > self._limit:
            raise TooBig(f"a header of the message, or of a part of it, is larger than {self._limit} octets")
        content = self._content(self._start, end)
        self._parts += 1
        self._open += 1
        self._is_digest = False
        if content.family == b"message" and content.subtype.lower() == b"rfc822":
            if self._open < MAX_DEPTH:
                self._begin_header(end)
                return True
        elif content.family == b"multipart" and content.delimiter and self._open < MAX_DEPTH:
            # The line end before a delimiter belongs to it: it may be the one of the empty line.
            is_digest = content.subtype.lower() == b"digest"
            self._levels.append(
                _Level(b"\r\n--" + content.delimiter, self._open - 1, max(end - 2, 0), is_digest=is_digest)
            )
        self._start = end
        self._step_on = HeaderSizeChecker._body
        return True

    def _body(self) -> bool:
        """Find the next delimiter."""
        if not self._levels or self._parts >= MAX_PARTS:
            self._step_on = HeaderSizeChecker._nothing
            return True
        found = self._next_delimiter()
        if found is None:
            self._drop(min([self._sure, *[level.looked for level in self._levels]]))
            if self._is_ended:
                self._step_on = HeaderSizeChecker._nothing
            return self._is_ended
        index, at = found
        level = self._levels[index]
        self._start = at + len(level.delimiter)
        self._open = level.opened + 1
        self._is_digest = level.is_digest
        is_closing = self._data.startswith(b"--", self._start - self._base)
        del self._levels[index + (not is_closing) :]
        self._step_on = HeaderSizeChecker._line_of_closing if is_closing else HeaderSizeChecker._line
        return True

    def _line(self) -> bool:
        """Find the end of the delimiter's line, after which a part begins."""
        end = self._line_end()
        if end < 0:
            return False
        self._from = end
        self._begin_header(min(end + 2, self._end) if self._is_ended else end + 2)
        return True

    def _line_of_closing(self) -> bool:
        end = self._line_end()
        if end < 0:
            return False
        self._from = self._start = end
        self._step_on = HeaderSizeChecker._body
        return True

    # ---

    def _begin_header(self, start: int) -> None:
        self._start = self._blank_from = start
        self._step_on = HeaderSizeChecker._header
        self._drop(min(start, self._from))

    def _content(self, start: int, end: int) -> Content:
        self._room -= end - start
        if self._room < 0:
            return PLAIN
        seen = min(end, start + SEEN)
        return read_content(bytes(self._data[start - self._base : seen - self._base]), digest=self._is_digest)

    @property
    def _end(self) -> int:
        return self._base + len(self._data)

    @property
    def _sure(self) -> int:
        """Return the position up to which all delimiters are known."""
        if self._is_ended or not self._levels:
            return self._end
        return max(self._base, self._end - max(len(level.delimiter) for level in self._levels) - 2)

    def _header_end(self) -> int:
        """Return the end of the header; -1 if it is not known yet."""
        data, base, start = self._data, self._base, self._start
        following = self._next_delimiter()
        # An empty line after the delimiter belongs to another header, and would be searched for again and again.
        limit = self._end if following is None else following[1]
        end = -1
        if self._end - start >= 2 and data.startswith(b"\r\n", start - base):
            end = start + 2
        else:
            blank = data.find(b"\r\n\r\n", self._blank_from - base, max(limit - base, 0))
            if blank >= 0:
                end = base + blank + 4
                self._blank_from = base + blank
            else:
                self._blank_from = max(self._blank_from, limit - 3)
        if following is not None and (end < 0 or following[1] < end):
            return max(following[1], start)
        if 0 <= end <= self._sure:
            return end
        return self._end if self._is_ended else -1

    def _next_delimiter(self) -> tuple[int, int] | None:
        """Return (level, position) of the next delimiter; of several at one position the longest, then the innermost."""
        limit = self._sure
        best: tuple[int, int] | None = None
        for index, level in enumerate(self._levels):
            if level.following < self._from:
                level.following = -1
                start = max(self._from, level.looked)
                if start < limit:
                    at = self._data.find(
                        level.delimiter, start - self._base, limit - self._base + len(level.delimiter) - 1
                    )
                    level.looked = limit if at < 0 else self._base + at
                    level.following = -1 if at < 0 else self._base + at
            if 0 <= level.following < limit:
                if (
                    best is None
                    or level.following < best[1]
                    or len(level.delimiter) >= len(self._levels[best[0]].delimiter)
                ):
                    best = index, level.following
                # Nothing inside it counts after that position.
                limit = level.following + 1
        return best

    def _line_end(self) -> int:
        at = self._data.find(b"\r\n", self._start - self._base)
        if at >= 0:
            return self._base + at
        if self._is_ended:
            return self._end
        self._start = max(self._start, self._end - 1)
        self._drop(self._start)
        return -1

    def _drop(self, place: int) -> None:
        """Drop the window's octets before that position."""
        if place - self._base >= self._step or place == self._end:
            del self._data[: place - self._base]
            self._base = place
