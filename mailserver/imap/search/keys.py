"""SEARCH keys (RFC 3501 6.4.4); they make a tree of `store.query`.

In the tree, sequence numbers, UIDs and \\Recent are UID ranges.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from mailserver.errors import BadSyntax
from mailserver.imap import condstore
from mailserver.imap.object_ids import EMAIL_PREFIX, OBJECT_ID
from mailserver.imap.search.charset import FilterCharset, read_codec
from mailserver.imap.search.filters import read_filter_name
from mailserver.imap.search.parser import CriteriaParser
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.sequence_set import STAR, SequenceSet, runs
from mailserver.store.query import (
    All,
    And,
    Arrived,
    Body,
    HasFlag,
    Header,
    InUIDs,
    Larger,
    Not,
    Or,
    Query,
    Received,
    Saved,
    Sent,
    Smaller,
    Text,
    WithEmailId,
)
from mailserver.store.view import View

MAX_DEPTH: Final = 50
"""Parentheses, NOT and OR within each other."""
_SET_STARTS: Final = tuple(b"%c" % character for character in b"123456789*$")
_HIGHEST: Final = 2**32 - 1
"""The largest UID."""

_UTF8_CODECS: Final = ("utf-8", "ascii")
"""Those of a command with FILTER."""

Read = Callable[["CriteriaParser"], Query]


def _flag(name: str) -> Read:
    return lambda _parser: HasFlag(name)


def _no_flag(name: str) -> Read:
    return lambda _parser: Not(HasFlag(name))


def _header(name: str) -> Read:
    return lambda parser: parser.text_key(partial(Header, name))


def _recent(parser: CriteriaParser) -> InUIDs:
    # A session claims \\Recent for a new message only after the search.
    parser.not_followed = "\\Recent messages cannot be followed"
    return parser.shared("RECENT", lambda view: InUIDs(view.recent_uids.pairs))


def _new(parser: CriteriaParser) -> Query:
    return And((_recent(parser), Not(HasFlag("\\Seen"))))


def _read_header(parser: CriteriaParser) -> Query:
    parser.reader.read_sp()
    name = parser.reader.read_astring()
    try:
        return parser.text_key(partial(Header, name.decode("ascii")))
    except UnicodeDecodeError:
        raise BadSyntax("a field name is ASCII") from None


def _saved(parser: CriteriaParser) -> InUIDs:
    """`$` (RFC 5182). It has no messages of a mailbox that is not selected."""
    return parser.shared("$", lambda view: InUIDs(tuple(runs(parser.saved_result)) if parser.is_selected(view) else ()))


def _object_id(parser: CriteriaParser) -> str:
    parser.reader.read_sp()
    name = parser.reader.read_atom()
    if not OBJECT_ID.fullmatch(name):
        raise BadSyntax("expected an object identifier")
    return name


def _email_id(parser: CriteriaParser) -> Query:
    name = _object_id(parser)
    return WithEmailId(name.removeprefix(EMAIL_PREFIX)) if name.startswith(EMAIL_PREFIX) else Not(All())


def _thread_id(parser: CriteriaParser) -> Query:
    """RFC 8474 5.2: it matches nothing where no message has one."""
    _object_id(parser)
    return Not(All())


def _uids(parser: CriteriaParser) -> Query:
    parser.reader.read_sp()
    sequence_set = parser.reader.read_sequence_set()
    if sequence_set.is_saved:
        return _saved(parser)
    return parser.in_mailbox(lambda view: _uids_in(parser, sequence_set, view))


def _uids_in(parser: CriteriaParser, sequence_set: SequenceSet, view: View) -> InUIDs:
    last = view.last_uid
    if parser.follows and parser.is_selected(view):
        lows = [max(pair) for pair in sequence_set.elements if STAR in pair]
        if STAR in lows or (lows and last and max(lows) > last):
            parser.not_followed = "the last message cannot be followed"
        elif lows:
            last = _HIGHEST
    return InUIDs(tuple(sequence_set.ranges(last)))


def _uid_after(parser: CriteriaParser) -> Query:
    """RFC 9738 3.2."""
    return InUIDs(((uid + 1, _HIGHEST),) if (uid := parser.uid()) < _HIGHEST else ())


def _uid_before(parser: CriteriaParser) -> Query:
    """RFC 9738 3.2."""
    return InUIDs(((1, uid - 1),) if (uid := parser.uid()) > 1 else ())


def _older(parser: CriteriaParser) -> Query:
    """RFC 5032: INTERNALDATE is not after a moment so many seconds ago."""
    return Arrived(None, int(time.time()) - _interval(parser) + 1)


def _younger(parser: CriteriaParser) -> Query:
    """RFC 5032: INTERNALDATE is not before a moment so many seconds ago."""
    return Arrived(int(time.time()) - _interval(parser), None)


def _interval(parser: CriteriaParser) -> int:
    seconds = parser.number()
    parser.not_followed = "the age of messages cannot be followed"
    if not seconds:
        raise BadSyntax("an interval has at least one second")
    return seconds


def _sequence(parser: CriteriaParser) -> Query:
    """Numbers beyond the last message are no error here: nothing matches them, as with UIDs. Raises: UIDRequired."""
    sequence_set = parser.reader.read_sequence_set()
    if sequence_set.is_saved:
        return _saved(parser)
    parser.refuse_numbers()
    return parser.in_mailbox(partial(_numbers_in, sequence_set))


def _numbers_in(sequence_set: SequenceSet, view: View) -> InUIDs:
    count = view.count
    ranges = sequence_set.ranges(count)
    return InUIDs(tuple((view.uids[low - 1], view.uids[min(high, count) - 1]) for low, high in ranges if low <= count))


def _on(kind: type[Received | Saved | Sent]) -> Read:
    def read(parser: CriteriaParser) -> Query:
        day = parser.date()
        return kind(day, day + 1)

    return read


def _or(parser: CriteriaParser) -> Query:
    first = _key(parser)
    return Or((first, _key(parser)))


def _fuzzy(parser: CriteriaParser) -> Query:
    """RFC 6203 3."""
    outer = parser.in_fuzzy
    parser.in_fuzzy = parser.is_fuzzy = True
    query = _key(parser)
    parser.in_fuzzy = outer
    return query


def _filter(parser: CriteriaParser) -> Query:
    """RFC 5466 3.1: the keys of the filter stand in its place, so that an operator before it takes the first one of them alone."""
    parser.reader.read_sp()
    name = read_filter_name(parser.reader)
    if parser.codec not in _UTF8_CODECS:
        raise FilterCharset
    if parser.filters is None:
        return All()
    outer = parser.reader, parser.codec
    with parser.filters.reading(name) as parser.reader:
        parser.codec = "utf-8"
        first, *parser.pending = _key_list(parser)
    parser.reader, parser.codec = outer
    return first


KEYS: Final[dict[str, Read]] = {
    "ALL": lambda _parser: All(),
    "ANSWERED": _flag("\\Answered"),
    "BCC": _header("bcc"),
    "BEFORE": lambda parser: Received(None, parser.date()),
    "BODY": lambda parser: parser.text_key(Body),
    "CC": _header("cc"),
    "DELETED": _flag("\\Deleted"),
    "DRAFT": _flag("\\Draft"),
    "EMAILID": _email_id,
    "FILTER": _filter,
    "FLAGGED": _flag("\\Flagged"),
    "FUZZY": _fuzzy,
    "FROM": _header("from"),
    "HEADER": _read_header,
    "KEYWORD": lambda parser: HasFlag(parser.flag()),
    "LARGER": lambda parser: Larger(parser.number()),
    "MODSEQ": lambda parser: condstore.read_search_key(parser.reader),
    "NEW": _new,
    "NOT": lambda parser: Not(_key(parser)),
    "OLDER": _older,
    "OLD": lambda parser: Not(_recent(parser)),
    "ON": _on(Received),
    "OR": _or,
    "RECENT": _recent,
    "SAVEDATESUPPORTED": lambda _parser: All(),
    "SAVEDBEFORE": lambda parser: Saved(None, parser.date()),
    "SAVEDON": _on(Saved),
    "SAVEDSINCE": lambda parser: Saved(parser.date(), None),
    "SEEN": _flag("\\Seen"),
    "SENTBEFORE": lambda parser: Sent(None, parser.date()),
    "SENTON": _on(Sent),
    "SENTSINCE": lambda parser: Sent(parser.date(), None),
    "SINCE": lambda parser: Received(parser.date(), None),
    "SMALLER": lambda parser: Smaller(parser.number()),
    "SUBJECT": _header("subject"),
    "TEXT": lambda parser: parser.text_key(Text),
    "THREADID": _thread_id,
    "TO": _header("to"),
    "UID": _uids,
    "UIDAFTER": _uid_after,
    "UIDBEFORE": _uid_before,
    "YOUNGER": _younger,
    "UNANSWERED": _no_flag("\\Answered"),
    "UNDELETED": _no_flag("\\Deleted"),
    "UNDRAFT": _no_flag("\\Draft"),
    "UNFLAGGED": _no_flag("\\Flagged"),
    "UNKEYWORD": lambda parser: Not(HasFlag(parser.flag())),
    "UNSEEN": _no_flag("\\Seen"),
}
"""Search keys by name. Sequence sets and parentheses are read by `read_key`."""


def read_key(parser: CriteriaParser, word: str | None = None) -> Query:
    """One search-key, of which the first word may have been read. Raises: BadSyntax, LimitReached."""
    reader = parser.reader
    parser.count_keys(1)
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


def _key(parser: CriteriaParser) -> Query:
    """SP search-key."""
    if parser.pending:
        return parser.pending.pop(0)
    parser.reader.read_sp()
    parser.depth += 1
    query = read_key(parser)
    parser.depth -= 1
    return query


def read_keys(parser: CriteriaParser, word: str | None = None) -> Query:
    """search-key *(SP search-key), which are ANDed."""
    parts = _key_list(parser, word)
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _key_list(parser: CriteriaParser, word: str | None = None) -> list[Query]:
    parts = [read_key(parser, word)]
    while parser.pending or parser.reader.skip(b" "):
        parts.append(parser.pending.pop(0) if parser.pending else read_key(parser))
    return parts


def read_criteria(parser: CriteriaParser) -> Query:
    """SP search-criteria: a charset and search-keys (RFC 5256 5). Raises: BadCharset, BadSyntax, LimitReached."""
    reader = parser.reader
    reader.read_sp()
    parser.codec = read_codec(reader)
    reader.read_sp()
    return read_keys(parser)


def at_set(reader: Reader) -> bool:
    """Does a sequence set stand next?"""
    return any(reader.peek(character) for character in _SET_STARTS)
