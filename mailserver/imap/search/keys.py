"""The parser of SEARCH keys (RFC 3501 6.4.4); it makes a tree of `store.query`.

In the tree, sequence numbers, UIDs and \\Recent are UID ranges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define

from mailserver.errors import BadCharset, BadSyntax, LimitReached
from mailserver.imap.session import Session
from mailserver.imap.wire.reader import Reader
from mailserver.message.encodings import CHARSETS
from mailserver.store.query import (
    All,
    And,
    Body,
    HasFlag,
    Header,
    InUIDs,
    Larger,
    Not,
    Or,
    Query,
    Received,
    Sent,
    Smaller,
    Text,
)
from mailserver.store.view import View

MAX_DEPTH: Final = 50
"""Parentheses, NOT and OR within each other."""
MAX_KEYS: Final = 1000
LONGEST_TEXT: Final = 8192
"""Octets of one search string."""
_SET_STARTS: Final = tuple(b"%c" % character for character in b"123456789*")
_BADCHARSETS: Final = (
    "US-ASCII",
    "UTF-8",
    "ISO-8859-1",
    "ISO-8859-15",
    "WINDOWS-1252",
    "KOI8-R",
    "ISO-2022-JP",
    "GB18030",
)

Read = Callable[["SearchParser"], Query]


@define
class SearchParser:
    """The state of parsing one SEARCH."""

    reader: Reader
    session: Session
    codec: str = "utf-8"
    """Without CHARSET: US-ASCII, and UTF-8 from clients that leave it out, as RFC 9051 6.4.4 allows."""
    keys: int = 0
    depth: int = 0

    @property
    def view(self) -> View:
        """The session's."""
        return self.session.view

    def text(self) -> str:
        """SP astring, in the command's charset. Raises: BadSyntax."""
        self.reader.read_sp()
        data = self.reader.read_astring()
        if len(data) > LONGEST_TEXT:
            raise LimitReached("the text to search for is too long")
        try:
            return data.decode(self.codec)
        except UnicodeDecodeError:
            raise BadSyntax("the text is not of the command's charset") from None

    def number(self) -> int:
        """SP number."""
        self.reader.read_sp()
        return self.reader.read_number()

    def date(self) -> int:
        """SP date, in days."""
        self.reader.read_sp()
        return self.reader.read_date()

    def flag(self) -> str:
        """SP flag-keyword."""
        self.reader.read_sp()
        return self.reader.read_atom()

    def key(self) -> Query:
        """SP search-key."""
        self.reader.read_sp()
        self.depth += 1
        query = read_key(self)
        self.depth -= 1
        return query


def _flag(name: str) -> Read:
    return lambda _parser: HasFlag(name)


def _no_flag(name: str) -> Read:
    return lambda _parser: Not(HasFlag(name))


def _header(name: str) -> Read:
    return lambda parser: Header(name, parser.text())


def _recent(parser: SearchParser) -> InUIDs:
    return InUIDs(parser.view.recent_uids.pairs)


def _new(parser: SearchParser) -> Query:
    return And((_recent(parser), Not(HasFlag("\\Seen"))))


def _read_header(parser: SearchParser) -> Query:
    parser.reader.read_sp()
    name = parser.reader.read_astring()
    try:
        return Header(name.decode("ascii"), parser.text())
    except UnicodeDecodeError:
        raise BadSyntax("a field name is ASCII") from None


def _uids(parser: SearchParser) -> Query:
    parser.reader.read_sp()
    view = parser.view
    return InUIDs(tuple(parser.reader.read_sequence_set().ranges(view.uids[view.count - 1] if view.count else 0)))


def _sequence(parser: SearchParser) -> Query:
    """Numbers beyond the last message are no error here: nothing matches them, as with UIDs."""
    view = parser.view
    count = view.count
    ranges = parser.reader.read_sequence_set().ranges(count)
    return InUIDs(tuple((view.uids[low - 1], view.uids[min(high, count) - 1]) for low, high in ranges if low <= count))


def _on(kind: type[Received | Sent]) -> Read:
    def read(parser: SearchParser) -> Query:
        day = parser.date()
        return kind(day, day + 1)

    return read


def _or(parser: SearchParser) -> Query:
    first = parser.key()
    return Or((first, parser.key()))


KEYS: Final[dict[str, Read]] = {
    "ALL": lambda _parser: All(),
    "ANSWERED": _flag("\\Answered"),
    "BCC": _header("bcc"),
    "BEFORE": lambda parser: Received(None, parser.date()),
    "BODY": lambda parser: Body(parser.text()),
    "CC": _header("cc"),
    "DELETED": _flag("\\Deleted"),
    "DRAFT": _flag("\\Draft"),
    "FLAGGED": _flag("\\Flagged"),
    "FROM": _header("from"),
    "HEADER": _read_header,
    "KEYWORD": lambda parser: HasFlag(parser.flag()),
    "LARGER": lambda parser: Larger(parser.number()),
    "NEW": _new,
    "NOT": lambda parser: Not(parser.key()),
    "OLD": lambda parser: Not(_recent(parser)),
    "ON": _on(Received),
    "OR": _or,
    "RECENT": _recent,
    "SEEN": _flag("\\Seen"),
    "SENTBEFORE": lambda parser: Sent(None, parser.date()),
    "SENTON": _on(Sent),
    "SENTSINCE": lambda parser: Sent(parser.date(), None),
    "SINCE": lambda parser: Received(parser.date(), None),
    "SMALLER": lambda parser: Smaller(parser.number()),
    "SUBJECT": _header("subject"),
    "TEXT": lambda parser: Text(parser.text()),
    "TO": _header("to"),
    "UID": _uids,
    "UNANSWERED": _no_flag("\\Answered"),
    "UNDELETED": _no_flag("\\Deleted"),
    "UNDRAFT": _no_flag("\\Draft"),
    "UNFLAGGED": _no_flag("\\Flagged"),
    "UNKEYWORD": lambda parser: Not(HasFlag(parser.flag())),
    "UNSEEN": _no_flag("\\Seen"),
}
"""Search keys by name. Sequence sets and parentheses are read by `read_key`."""


def read_key(parser: SearchParser, word: str | None = None) -> Query:
    """One search-key, of which the first word may have been read. Raises: BadSyntax, LimitReached."""
    reader = parser.reader
    parser.keys += 1
    if parser.keys > MAX_KEYS:
        raise LimitReached("too many search keys")
    if parser.depth > MAX_DEPTH:
        raise BadSyntax("search keys are nested too deeply")
    if word is None:
        if reader.skip(b"("):
            parser.depth += 1
            query = read_keys(parser)
            parser.depth -= 1
            reader.take(b")")
            return query
        if at_set(reader):
            return _sequence(parser)
        word = reader.read_word()
    read = KEYS.get(word)
    if read is None:
        raise BadSyntax("unknown search key")
    return read(parser)


def read_keys(parser: SearchParser, word: str | None = None) -> Query:
    """search-key *(SP search-key), which are ANDed."""
    parts = [read_key(parser, word)]
    while parser.reader.skip(b" "):
        parts.append(read_key(parser))
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def at_set(reader: Reader) -> bool:
    """Does a sequence set stand next?"""
    return any(reader.peek(character) for character in _SET_STARTS)


def read_codec(reader: Reader) -> str:
    """CHARSET's argument, as Python's codec. Raises: BadCharset."""
    name = reader.read_astring()
    codec = CHARSETS.get(name.decode("ascii", "replace").lower())
    if codec is None:
        raise UnknownCharset
    return codec


class UnknownCharset(BadCharset):
    """NO [BADCHARSET (...)] with charsets that are known (RFC 3501 7.1)."""

    imap_code = f"BADCHARSET ({' '.join(_BADCHARSETS)})"
