"""The MIME tree of a message, as offsets into its source (RFC 2046 5.1).

The problems: boundaries that are prefixes of each other, or the same on several levels; delimiters that are missing,
inside a part's header, or right after it; 10,000 levels, 100,000 parts; endless headers. A parser that reads each line
on each level, or searches for the end of each part anew, takes quadratic time on them.

The rules: each open multipart knows the position of its next delimiter. It was found by one `find`, and only up to the
next delimiter of the enclosing level, where the inner one ends anyway. So no octet is read more often than levels are
open, and those are at most MAX_DEPTH. If delimiters of two levels are at one position, the longer boundary counts, then
the inner level. Deeper levels and further parts stay text of the part they are in.

Rejected: a line loop, which costs 0.2 us for each line of each attachment; the package `email`, which builds objects
and costs 40 times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mailserver.message.content import ASCII, PLAIN, Content, Parameters, content_of, read_content
from mailserver.message.headers import header_end, strip_comments
from mailserver.message.limits import ALL_SEEN, SEEN

MAX_DEPTH: Final = 100
"""Levels of multipart and message/rfc822 that are parsed."""

SOUGHT: Final = 4
"""Average number of times that each octet of a message is searched for delimiters."""
SOUGHT_AT_LEAST: Final = 64 * 1024 * 1024
"""Octets that are searched in any case: no limit for a message of less than a megabyte, whatever its depth.

What is deeper or later stays text: a hundred levels around a large message would take many seconds.
"""

MAX_PARTS: Final = 10_000
"""Parts of one message that are distinguished."""

_COMPOSITE: Final = frozenset({b"multipart", b"message"})


class Part:
    """A body part, or a whole message: source[start:body] is its header, source[body:end] its body."""

    __slots__ = ("body", "children", "content", "end", "multipart", "start")

    def __init__(self, start: int, body: int, content: Content) -> None:
        self.start = start
        self.body = body
        self.end = -1
        self.content = content
        self.children: list[Part] = []
        """The parts of a multipart (never empty); or the one message inside a message/rfc822."""
        self.multipart = False

    @property
    def type(self) -> bytes:
        """As in the message; compare `family`."""
        return self.content.type

    @property
    def family(self) -> bytes:
        """The type in lower case."""
        return self.content.family

    @property
    def subtype(self) -> bytes:
        """As in the message."""
        return self.content.subtype

    @property
    def parameters(self) -> Parameters:
        """Those of the Content-Type, as in the message."""
        return self.content.parameters

    @property
    def fields(self) -> dict[bytes, bytes]:
        """The content fields, unfolded, by lower-case name."""
        return self.content.fields

    @property
    def message(self) -> Part | None:
        """The message inside this message/rfc822 part, None in any other part."""
        return self.children[0] if self.children and not self.multipart else None

    @property
    def encoding(self) -> bytes:
        """Content-Transfer-Encoding as in the message, without comments; "7bit" without one (RFC 2045 6.1)."""
        value = self.content.fields.get(b"content-transfer-encoding")
        return (strip_comments(value).strip() or b"7bit") if value is not None else b"7bit"


class _Level:
    """An open multipart: its delimiter, and the next position of that (-1: not before the enclosing level ends)."""

    __slots__ = ("delimiter", "following", "opened")

    def __init__(self, delimiter: bytes, opened: int) -> None:
        self.delimiter = delimiter
        self.opened = opened
        """The index of its part among the open parts."""
        self.following = -1


def parse_structure(source: bytes, fields: dict[bytes, bytes] | None = None) -> Part:
    """Parse a message with CRLF line ends. Never raises; linear in the size of the source.

    `fields`: the content fields of its header, as in `Content`, if the caller has them already.
    """
    end = header_end(source)
    content = read_content(source[: min(end, SEEN)]) if fields is None else content_of(fields)
    if content.family in _COMPOSITE:
        return _Scanner(source, content).scan()
    root = Part(0, end, content)
    root.end = len(source)
    return root


def has_8bit_header(source: bytes) -> bool:
    """Has the header of the message, or of a part of it, octets above 127?"""
    if source.isascii():
        return False
    todo = [parse_structure(source)]
    for part in todo:
        if not source[part.start : part.body].isascii():
            return True
        todo += part.children
    return False


def find_part(root: Part, numbers: Sequence[int]) -> Part | None:
    """Return the part of an IMAP part number (RFC 3501 6.4.5), or None.

    In a message that is no multipart, part 1 is its body: the Part of the message itself is returned.
    """
    part = root
    whole = True
    for number in numbers:
        if not whole and part.message is not None:
            part = part.message
            whole = True
        if part.multipart:
            if not 1 <= number <= len(part.children):
                return None
            part = part.children[number - 1]
        elif number != 1 or not whole:
            return None
        whole = False
    return part


class _Scanner:
    def __init__(self, source: bytes, content: Content) -> None:
        self._source = source
        self._root = content
        self._levels: list[_Level] = []
        self._open: list[Part] = []
        """From the root to the current part, each inside the one before."""
        self._parts = 0
        self._sought = 0
        """Octets that have been searched for delimiters, on all levels."""
        self._most_sought = SOUGHT * len(source) + SOUGHT_AT_LEAST
        self._room = ALL_SEEN
        """Octets of headers that may still be parsed."""
        self._blank = -1
        """The last empty line found: it ends every header that begins before it."""

    def scan(self) -> Part:
        root = self._enter(0, digest=False)
        while self._levels and self._parts < MAX_PARTS and self._sought <= self._most_sought:
            found = self._next_delimiter()
            if found is None:
                break
            index, at = found
            self._pass_delimiter(index, at)
        self._end(0, len(self._source))
        return root

    def _next_delimiter(self) -> tuple[int, int] | None:
        """Return (level, position) of the next delimiter; inner levels never have one after an outer one's."""
        if len(self._levels) == 1:
            following = self._levels[0].following
            return None if following < 0 else (0, following)
        best = None
        for index in range(len(self._levels) - 1, -1, -1):
            level = self._levels[index]
            if level.following < 0:
                continue
            if best is None:
                best = index, level.following, len(level.delimiter)
            elif level.following != best[1]:
                break
            elif len(level.delimiter) > best[2]:
                best = index, level.following, len(level.delimiter)
        return None if best is None else best[:2]

    def _pass_delimiter(self, index: int, at: int) -> None:
        """End the parts that the delimiter ends, and begin the next part unless it is a closing one."""
        source = self._source
        level = self._levels[index]
        self._end(level.opened + 1, at)
        behind = at + len(level.delimiter)
        closing = source.startswith(b"--", behind)
        del self._levels[index + (not closing) :]
        line_end = source.find(b"\r\n", behind)
        if line_end < 0:
            line_end = len(source)
        self._seek(line_end)
        if not closing:
            parent = self._open[level.opened]
            self._enter(min(line_end + 2, len(source)), digest=parent.subtype.lower() == b"digest")

    def _find(self, level: _Level, start: int, limit: int) -> int:
        """Return the level's next delimiter, -1 if none begins before the limit."""
        found = self._source.find(level.delimiter, start, limit + len(level.delimiter))
        self._sought += (limit if found < 0 else found) - start
        return found

    def _seek(self, position: int) -> None:
        """Search again for delimiters before that position."""
        limit = len(self._source)
        for level in self._levels:
            if 0 <= level.following < position:
                level.following = self._find(level, position, limit)
            if level.following >= 0:
                limit = level.following

    def _enter(self, start: int, *, digest: bool) -> Part:
        """Begin a part at its header, and the messages at its start."""
        first = part = self._begin(start, digest=digest)
        while part.family == b"message" and part.subtype.lower() == b"rfc822":
            if len(self._open) >= MAX_DEPTH:
                _as_text(part)
                return first
            part = self._begin(part.body, digest=False)
        if part.family == b"multipart":
            self._open_multipart(part)
        return first

    def _begin(self, start: int, *, digest: bool) -> Part:
        if self._parts:
            body = min(self._header_end(start), max(self._limit(), start))
            self._room -= body - start
            content = PLAIN
            if self._room >= 0:
                content = read_content(self._source[start : min(body, start + SEEN)], digest=digest)
        else:
            body, content = self._header_end(start), self._root
            self._room -= body - start
        part = Part(start, body, content)
        self._parts += 1
        if self._open:
            self._open[-1].children.append(part)
        self._open.append(part)
        return part

    def _open_multipart(self, part: Part) -> None:
        delimiter = part.content.delimiter
        if not delimiter or len(self._open) >= MAX_DEPTH or self._sought > self._most_sought:
            _as_text(part)
            return
        part.multipart = True
        level = _Level(b"\r\n--" + delimiter, len(self._open) - 1)
        # The line end before a delimiter belongs to it: it may be the one of the empty line.
        level.following = self._find(level, part.body - 2, self._limit())
        if level.following == part.body < self._header_end(part.start):
            # What looked like a delimiter of the enclosing level, right after the empty line, is this one's.
            part.body += 2
        self._levels.append(level)

    def _limit(self) -> int:
        """Return the position of the open levels' next delimiter, or the end of the source."""
        for level in reversed(self._levels):
            if level.following >= 0:
                return level.following
        return len(self._source)

    def _header_end(self, start: int) -> int:
        source = self._source
        if source.startswith(b"\r\n", start):
            return start + 2
        if self._blank < start:
            blank = source.find(b"\r\n\r\n", start)
            self._blank = len(source) if blank < 0 else blank
        return min(self._blank + 4, len(source))

    def _end(self, first: int, at: int) -> None:
        """End the open parts from `first` on."""
        for part in self._open[first:]:
            part.end = max(at, part.body)
            if part.multipart and not part.children:
                # A multipart has at least one part (RFC 2046 5.1): an empty one.
                empty = Part(part.end, part.end, PLAIN)
                empty.end = part.end
                part.children.append(empty)
        del self._open[first:]


def _as_text(part: Part) -> None:
    """Treat a part as plain text, where it cannot be parsed further (RFC 2045 5.2)."""
    part.content = Content(b"text", b"plain", ASCII, part.content.fields, b"text")
