"""SEARCH (RFC 3501 6.4.4, 7.2.5) and its RETURN options (RFC 4466 2.6, RFC 4731).

The keys become a tree of `store.interfaces` in which sequence numbers, UIDs and \\Recent are UID ranges already. A
tree of flags and ranges alone is answered from memory; any other goes to the store.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import define

from mailserver.errors import BadCharset, BadSyntax, LimitReached
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.sequence_set import format_set
from mailserver.message.encodings import CHARSETS
from mailserver.message.summary import KEPT_FIELDS
from mailserver.store.interfaces import (
    KEYWORD_BIT,
    SYSTEM_FLAGS,
    All,
    And,
    Body,
    HasFlag,
    Header,
    InUIDs,
    Larger,
    Mailbox,
    Not,
    Or,
    Query,
    Received,
    Sent,
    Smaller,
    Text,
)
from mailserver.types import UID, UNKNOWN_SIZE

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.store.view import View

MAX_DEPTH: Final = 50
"""Parentheses, NOT and OR within each other."""
MAX_KEYS: Final = 1000
LONGEST_TEXT: Final = 8192
"""Octets of one string to look for."""
_CHUNK: Final = 2000
"""Candidates that one hop looks at: others of the account get their turn in between."""
_FILES: Final = 200
_OCTETS: Final = 2 << 20
"""Octets of messages that one hop looks at, if more than one message."""
_TYPICAL: Final = 8192
"""Octets of a message whose size is not known."""
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

Read = Callable[["_Reading"], Query]


@define
class _Reading:
    """One SEARCH being read."""

    reader: Reader
    session: Session
    codec: str = "utf-8"
    """Without CHARSET: US-ASCII, and UTF-8 from clients that leave it out, as RFC 9051 6.4.4 allows."""
    keys: int = 0
    depth: int = 0

    @property
    def view(self) -> View:
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
    return lambda _reading: HasFlag(name)


def _no_flag(name: str) -> Read:
    return lambda _reading: Not(HasFlag(name))


def _header(name: str) -> Read:
    return lambda reading: Header(name, reading.text())


def _recent(reading: _Reading) -> InUIDs:
    view = reading.view
    return InUIDs(((view.recent_from, view.uids[view.count - 1]),)) if view.recent() else InUIDs(())


def _new(reading: _Reading) -> Query:
    return And((_recent(reading), Not(HasFlag("\\Seen"))))


def _read_header(reading: _Reading) -> Query:
    reading.reader.read_sp()
    name = reading.reader.read_astring()
    try:
        return Header(name.decode("ascii"), reading.text())
    except UnicodeDecodeError:
        raise BadSyntax("a field name is ASCII") from None


def _uids(reading: _Reading) -> Query:
    reading.reader.read_sp()
    view = reading.view
    return InUIDs(tuple(reading.reader.read_sequence_set().ranges(view.uids[view.count - 1] if view.count else 0)))


def _sequence(reading: _Reading) -> Query:
    """Numbers beyond the last message are no error here: nothing matches them, as with UIDs."""
    view = reading.view
    count = view.count
    ranges = reading.reader.read_sequence_set().ranges(count)
    return InUIDs(tuple((view.uids[low - 1], view.uids[min(high, count) - 1]) for low, high in ranges if low <= count))


def _on(kind: type[Received | Sent]) -> Read:
    def read(reading: _Reading) -> Query:
        day = reading.date()
        return kind(day, day + 1)

    return read


def _or(reading: _Reading) -> Query:
    first = reading.key()
    return Or((first, reading.key()))


KEYS: Final[dict[str, Read]] = {
    "ALL": lambda _reading: All(),
    "ANSWERED": _flag("\\Answered"),
    "BCC": _header("bcc"),
    "BEFORE": lambda reading: Received(None, reading.date()),
    "BODY": lambda reading: Body(reading.text()),
    "CC": _header("cc"),
    "DELETED": _flag("\\Deleted"),
    "DRAFT": _flag("\\Draft"),
    "FLAGGED": _flag("\\Flagged"),
    "FROM": _header("from"),
    "HEADER": _read_header,
    "KEYWORD": lambda reading: HasFlag(reading.flag()),
    "LARGER": lambda reading: Larger(reading.number()),
    "NEW": _new,
    "NOT": lambda reading: Not(reading.key()),
    "OLD": lambda reading: Not(_recent(reading)),
    "ON": _on(Received),
    "OR": _or,
    "RECENT": _recent,
    "SEEN": _flag("\\Seen"),
    "SENTBEFORE": lambda reading: Sent(None, reading.date()),
    "SENTON": _on(Sent),
    "SENTSINCE": lambda reading: Sent(reading.date(), None),
    "SINCE": lambda reading: Received(reading.date(), None),
    "SMALLER": lambda reading: Smaller(reading.number()),
    "SUBJECT": _header("subject"),
    "TEXT": lambda reading: Text(reading.text()),
    "TO": _header("to"),
    "UID": _uids,
    "UNANSWERED": _no_flag("\\Answered"),
    "UNDELETED": _no_flag("\\Deleted"),
    "UNDRAFT": _no_flag("\\Draft"),
    "UNFLAGGED": _no_flag("\\Flagged"),
    "UNKEYWORD": lambda reading: Not(HasFlag(reading.flag())),
    "UNSEEN": _no_flag("\\Seen"),
}
"""Search keys by name. Sequence sets and parentheses are read by `read_key`."""

RETURN_OPTIONS: Final = ("MIN", "MAX", "ALL", "COUNT")


def read_key(reading: _Reading, word: str | None = None) -> Query:
    """One search-key, of which the first word may have been read. Raises: BadSyntax, LimitReached."""
    reader = reading.reader
    reading.keys += 1
    if reading.keys > MAX_KEYS:
        raise LimitReached("too many search keys")
    if reading.depth > MAX_DEPTH:
        raise BadSyntax("search keys are nested too deeply")
    if word is None:
        if reader.skip(b"("):
            reading.depth += 1
            query = read_keys(reading)
            reading.depth -= 1
            reader.take(b")")
            return query
        if _at_set(reader):
            return _sequence(reading)
        word = reader.read_word()
    read = KEYS.get(word)
    if read is None:
        raise BadSyntax("unknown search key")
    return read(reading)


def read_keys(reading: _Reading, word: str | None = None) -> Query:
    """search-key *(SP search-key), which are ANDed."""
    parts = [read_key(reading, word)]
    while reading.reader.skip(b" "):
        parts.append(read_key(reading))
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _at_set(reader: Reader) -> bool:
    return any(reader.peek(character) for character in _SET_STARTS)


def _read_return(reader: Reader) -> frozenset[str]:
    """RETURN's options; none named means ALL (RFC 4731 3.1)."""
    reader.take(b"(")
    options = []
    if not reader.skip(b")"):
        options.append(reader.read_word())
        while reader.skip(b" "):
            options.append(reader.read_word())
        reader.take(b")")
    if any(option not in RETURN_OPTIONS for option in options):
        raise BadSyntax("unknown RETURN option")
    return frozenset(options or ("ALL",))


def _read_codec(reader: Reader) -> str:
    """CHARSET's argument, as Python's codec. Raises: BadCharset."""
    name = reader.read_astring()
    codec = CHARSETS.get(name.decode("ascii", "replace").lower())
    if codec is None:
        raise UnknownCharset
    return codec


class UnknownCharset(BadCharset):
    """NO [BADCHARSET (...)] with charsets that are known (RFC 3501 7.1)."""

    imap_code = f"BADCHARSET ({' '.join(_BADCHARSETS)})"


async def search(session: Session, command: Command) -> str | None:
    """SEARCH, UID SEARCH (RFC 3501 6.4.4, RFC 4731)."""
    reader = command.reader
    reading = _Reading(reader, session)
    reader.read_sp()
    options = None
    word = None if reader.peek(b"(") or _at_set(reader) else reader.read_word()
    if word == "RETURN":
        reader.read_sp()
        options = _read_return(reader)
        reader.read_sp()
        word = None if reader.peek(b"(") or _at_set(reader) else reader.read_word()
    if word == "CHARSET":
        reader.read_sp()
        reading.codec = _read_codec(reader)
        reader.read_sp()
        word = None
    query = read_keys(reading, word)
    reader.read_end()
    view = session.view
    positions, rest = _from_columns(view, query)
    if rest:
        positions = await _from_store(session, positions, And(tuple(rest)))
    numbers = [view.uids[at] for at in positions] if command.uid else [at + 1 for at in positions]
    if options is None:
        session.write(b"* SEARCH%b\r\n" % (b" %d" * len(numbers) % tuple(numbers)))
    else:
        session.write(_extended(command, options, numbers))
    return None


COMMANDS = (
    CommandSpec(
        "SEARCH",
        State.SELECTED,
        search,
        uses_sequence_numbers=True,
        capabilities=("ESEARCH",),
        reference="RFC 3501, RFC 4731",
        uid_form=True,
    ),
)


def _from_columns(view: View, query: Query) -> tuple[Sequence[int], list[Query]]:
    """Positions in the view that memory lets through, and the keys that are still to be asked of the store."""
    wanted = refused = 0
    ranges = [(0, view.count)]
    rest: list[Query] = []
    todo = [query]
    while todo:
        key = todo.pop()
        match key:
            case All():
                pass
            case And(parts):
                todo += reversed(parts)
            case InUIDs(pairs):
                ranges = _intersect(ranges, _positions(view, pairs))
            case Not(InUIDs(pairs)):
                ranges = _intersect(ranges, _complement(_positions(view, pairs), view.count))
            case HasFlag(flag):
                mask = _mask(view, flag)
                if not mask:
                    return [], []
                wanted |= mask
            case Not(HasFlag(flag)):
                refused |= _mask(view, flag)
            case _:
                rest.append(key)
    if wanted & refused:
        return [], []
    return _with_flags(view, ranges, wanted | refused, wanted), rest


def _with_flags(view: View, ranges: Iterable[tuple[int, int]], care: int, wanted: int) -> Sequence[int]:
    """Those positions whose flags, as far as we care, are the wanted ones."""
    if not care:
        return [at for low, high in ranges for at in range(low, high)]
    columns = view.columns
    if view.level:
        return [
            at for low, high in ranges for at, mask in enumerate(columns.flags[low:high], low) if mask & care == wanted
        ]
    return [
        at
        for low, high in ranges
        for at in range(low, high)
        if (place := columns.position(view.uids[at])) >= 0 and columns.flags[place] & care == wanted
    ]


def _mask(view: View, name: str) -> int:
    """A flag's bit, 0 for a keyword that the mailbox does not have."""
    mask = SYSTEM_FLAGS.get(name, 0)
    if not mask:
        for number, keyword in enumerate(view.columns.keywords):
            if keyword.lower() == name.lower():
                return 1 << (KEYWORD_BIT + number)
    return mask


def _positions(view: View, pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Half-open ranges of positions for rising ranges of UIDs."""
    found = []
    for first, last in pairs:
        low = bisect_left(view.uids, first, 0, view.count)
        high = bisect_right(view.uids, last, low, view.count)
        if low < high:
            found.append((low, high))
    return found


def _intersect(left: Sequence[tuple[int, int]], right: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    found = []
    here = there = 0
    while here < len(left) and there < len(right):
        low, high = max(left[here][0], right[there][0]), min(left[here][1], right[there][1])
        if low < high:
            found.append((low, high))
        if left[here][1] < right[there][1]:
            here += 1
        else:
            there += 1
    return found


def _complement(ranges: Iterable[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    found = []
    at = 0
    for low, high in ranges:
        if at < low:
            found.append((at, low))
        at = high
    if at < count:
        found.append((at, count))
    return found


async def _from_store(session: Session, positions: Sequence[int], query: Query) -> list[int]:
    """Those of the positions that match; in hops, so that the account and a client that goes are not forgotten."""
    view, live = session.view, session.mailbox.live
    keys = _file_keys(query)
    size = max(_FILES // keys, 1) if keys else _CHUNK
    found: list[int] = []
    start = 0
    while start < len(positions):
        group = positions[start : start + size]
        if keys:
            group = _together(view, group, _OCTETS // keys)
        start += len(group)
        places = {view.uids[at]: at for at in group}
        candidates = [UID(uid) for uid in places]
        matching = await live.run(partial(_search, query, candidates))
        found += [places[uid] for uid in matching]
        await session.channel.drain()
    return found


def _together(view: View, positions: Sequence[int], limit: int) -> Sequence[int]:
    """The first of them, at least one, which have that many octets together."""
    columns = view.columns
    for number, at in enumerate(positions):
        place = at if view.level else columns.position(view.uids[at])
        size = columns.sizes[place] if place >= 0 else 0
        limit -= _TYPICAL if size == UNKNOWN_SIZE else size
        if limit < 0:
            return positions[: max(number, 1)]
    return positions


def _search(query: Query, candidates: Sequence[UID], mailbox: Mailbox) -> Sequence[UID]:
    return mailbox.search(query, candidates)


def _file_keys(query: Query) -> int:
    """How many keys look into files."""
    count = 0
    todo = [query]
    while todo:
        key = todo.pop()
        match key:
            case Body() | Text():
                count += 1
            case Header(name, _):
                count += name.lower() not in KEPT_FIELDS
            case And(parts) | Or(parts):
                todo += parts
            case Not(part):
                todo.append(part)
    return count


def _extended(command: Command, options: frozenset[str], numbers: Sequence[int]) -> bytes:
    """The ESEARCH response (RFC 4466 2.6.2, RFC 4731 3.1): what is asked of an empty result is left out, but COUNT."""
    pieces = [b'* ESEARCH (TAG "%b")' % command.tag.encode("ascii")]
    if command.uid:
        pieces.append(b"UID")
    if numbers:
        if "MIN" in options:
            pieces.append(b"MIN %d" % numbers[0])
        if "MAX" in options:
            pieces.append(b"MAX %d" % numbers[-1])
        if "ALL" in options:
            pieces.append(b"ALL " + format_set(numbers))
    if "COUNT" in options:
        pieces.append(b"COUNT %d" % len(numbers))
    return b" ".join(pieces) + b"\r\n"
