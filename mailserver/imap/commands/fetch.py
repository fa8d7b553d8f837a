"""FETCH (RFC 3501 6.4.5, 7.4.2).

An item costs nothing but memory (FLAGS, UID, INTERNALDATE, RFC822.SIZE), or a row of the index (ENVELOPE, BODY,
BODYSTRUCTURE, the usual header fields), or a file. The three are answered in three ways:

*   From columns, on the reactor's thread: one format string for hundreds of messages.
*   From the index and from files in the account's thread, until about CHUNK octets are ready; the client takes them
    before the next hop. So a session holds one chunk, however much is asked for.
*   A message with more than that to send is sent in pieces of PIECE octets, each read when the last one has gone.

A message that is gone is left out, the others are told, and the end is NO [EXPUNGEISSUED] (RFC 2180 4.1.2).
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from mailserver.errors import (
    BadSyntax,
    ConnectionLost,
    InUse,
    LimitReached,
    MailError,
    MessageExpunged,
    NoSpace,
    ReadOnly,
    StoreUnavailable,
)
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.section import PIECE, OpenMessage, Range, Section, read_section, select_fields, total, without_nul
from mailserver.imap.wire import writer
from mailserver.imap.wire.reader import Reader
from mailserver.message.render import KEPT
from mailserver.message.summary import INCOMPLETE, Summary
from mailserver.store.interfaces import SEEN, FlagChange, Mailbox, MessageFile, Row
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE

if TYPE_CHECKING:
    from mailserver.imap.session import Selected, Session

CHUNK: Final = 256 * 1024
"""Octets that are made ready before the client must take them."""
MAX_ITEMS: Final = 1000
_ROWS: Final = 500
_SUMMARIES: Final = 200
_FILES: Final = 64
_LONGEST_CACHED: Final = 1024
_UNKNOWN_SIZE: Final = array("I", [UNKNOWN_SIZE]).tobytes()
_UNKNOWN_DATE: Final = array("q", [UNKNOWN_DATE]).tobytes()
_KEPT_LINES_UNKNOWN: Final = INCOMPLETE.encode("ascii")


class Need(enum.Enum):
    """What an item is made from."""

    COLUMN = 0
    SUMMARY = 1
    FILE = 2


@frozen
class Item:
    """One thing to tell of each message."""

    label: bytes
    need: Need
    section: Section | None = None
    sets_seen: bool = False


ITEMS: Final = {
    item.label.decode("ascii"): item
    for item in (
        Item(b"FLAGS", Need.COLUMN),
        Item(b"UID", Need.COLUMN),
        Item(b"INTERNALDATE", Need.COLUMN),
        Item(b"RFC822.SIZE", Need.COLUMN),
        Item(b"ENVELOPE", Need.SUMMARY),
        Item(b"BODY", Need.SUMMARY),
        Item(b"BODYSTRUCTURE", Need.SUMMARY),
        Item(b"RFC822", Need.FILE, Section(), sets_seen=True),
        Item(b"RFC822.HEADER", Need.FILE, Section(text="HEADER")),
        Item(b"RFC822.TEXT", Need.FILE, Section(text="TEXT"), sets_seen=True),
    )
}
"""Items by name. BODY[...] and BODY.PEEK[...] are made by `read_item`."""

MACROS: Final = {
    "ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"),
    "FAST": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    "FULL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"),
}

FLAGS: Final = ITEMS["FLAGS"]
_UID: Final = ITEMS["UID"]
_FORMATS: Final = {
    b"FLAGS": b"FLAGS %b",
    b"UID": b"UID %d",
    b"INTERNALDATE": b"INTERNALDATE %b",
    b"RFC822.SIZE": b"RFC822.SIZE %d",
}


@frozen
class Plan:
    """The items of one FETCH, and what they need together."""

    items: tuple[Item, ...]
    line: bytes = field(init=False)
    """One message of a plan of columns alone."""
    needs_summary: bool = field(init=False)
    needs_file: bool = field(init=False)
    sets_seen: bool = field(init=False)
    measured: bool = field(init=False)
    """Sizes or dates are asked for."""

    @line.default
    def _line(self) -> bytes:
        return b"* %%d FETCH (%b)\r\n" % b" ".join(_FORMATS.get(item.label, b"") for item in self.items)

    @needs_summary.default
    def _needs_summary(self) -> bool:
        return any(item.need is Need.SUMMARY for item in self.items)

    @needs_file.default
    def _needs_file(self) -> bool:
        return any(item.need is Need.FILE for item in self.items)

    @sets_seen.default
    def _sets_seen(self) -> bool:
        return any(item.sets_seen for item in self.items)

    @measured.default
    def _measured(self) -> bool:
        return any(item.label in (b"INTERNALDATE", b"RFC822.SIZE") for item in self.items)


def read_items(reader: Reader) -> tuple[Item, ...]:
    """A macro, one item, or a list in parentheses; each item once. Raises: BadSyntax, LimitReached."""
    if not reader.skip(b"("):
        word = reader.read_atom()
        macro = MACROS.get(word.upper())
        return tuple(ITEMS[name] for name in macro) if macro else (_item(reader, word),)
    items = [_item(reader, reader.read_atom())]
    while reader.skip(b" "):
        items.append(_item(reader, reader.read_atom()))
        if len(items) > MAX_ITEMS:
            raise LimitReached("too many FETCH items")
    reader.take(b")")
    return tuple(dict.fromkeys(items))


def _item(reader: Reader, word: str) -> Item:
    name, bracket, specifier = word.partition("[")
    name = name.upper()
    if not bracket:
        if name in ITEMS:
            return ITEMS[name]
        raise BadSyntax("unknown FETCH item")
    if name not in ("BODY", "BODY.PEEK"):
        raise BadSyntax("unknown FETCH item")
    section = read_section(reader, specifier)
    kept = section.text == "HEADER.FIELDS" and not section.numbers and section.fields <= KEPT
    return Item(b"BODY" + section.label, Need.SUMMARY if kept else Need.FILE, section, sets_seen=name == "BODY")


def _plan(reader: Reader, *, uid: bool) -> Plan:
    items = read_items(reader)
    reader.read_end()
    return Plan((_UID, *items) if uid and _UID not in items else items)


@lru_cache(maxsize=512)
def _cached_plan(data: bytes, *, uid: bool) -> Plan:
    return _plan(Reader([data]), uid=uid)


async def fetch(session: Session, command: Command) -> str | None:
    """FETCH, UID FETCH (RFC 3501 6.4.5, 6.4.8)."""
    reader = command.reader
    reader.read_sp()
    sequence_set = reader.read_sequence_set()
    reader.read_sp()
    rest = reader.rest()
    if rest is None:
        plan = _plan(reader, uid=command.uid)
    elif len(rest) > _LONGEST_CACHED:
        plan = _plan(Reader([rest]), uid=command.uid)
    else:
        plan = _cached_plan(rest, uid=command.uid)
    ranges = session.positions(command, sequence_set)
    selected = session.mailbox
    seen = await _set_seen(session, selected, ranges) if plan.sets_seen else frozenset[int]()
    answer = _Answer(session, selected, plan, seen)
    await answer.write(ranges)
    if answer.error is not None:
        if isinstance(answer.error, MessageExpunged):
            # Let the next sync look for what else has gone.
            selected.live.poked()
        raise answer.error
    return None


COMMANDS = (CommandSpec("FETCH", State.SELECTED, fetch, uses_sequence_numbers=True, uid_form=True),)


async def _set_seen(session: Session, selected: Selected, ranges: Sequence[Range]) -> frozenset[int]:
    """Flag \\Seen what is not, in one operation; the UIDs that were changed.

    Mail is still read where flags cannot be written: on a full disk, in somebody else's directory.
    """
    view, live = selected.view, selected.live
    if selected.read_only or live.mailbox.read_only:
        return frozenset()
    uids = []
    for rows in _gather(selected, ranges, _ROWS):
        uids += [UID(uid) for uid, mask in zip(rows.uids, rows.masks, strict=True) if not mask & SEEN]
    if not uids:
        return frozenset()
    try:
        await live.change(lambda mailbox: mailbox.store_flags(uids, FlagChange.ADD, ("\\Seen",)))
    except (NoSpace, InUse, ReadOnly, StoreUnavailable) as error:
        session.channel.log("seen_not_stored", user=session.user, reason=error.sentence)
        return frozenset()
    view.silence(uids)
    return frozenset(uids)


def _unmeasured(rows: _Rows) -> bool:
    """Is a size or date among these not known yet? Octets are compared: that is 50 times as fast as numbers."""
    if isinstance(rows.sizes, array) and isinstance(rows.dates, array):
        sizes, dates = rows.sizes.tobytes(), rows.dates.tobytes()
        if _UNKNOWN_SIZE not in sizes and _UNKNOWN_DATE not in dates:
            return False
    return UNKNOWN_SIZE in rows.sizes or UNKNOWN_DATE in rows.dates


@frozen
class _Rows:
    """What columns say of some messages; parallel."""

    seqs: Sequence[int]
    uids: Sequence[int]
    masks: Sequence[int]
    sizes: Sequence[int]
    dates: Sequence[int]
    gone: bool
    """Some are left out: they have been expunged, and the client has not been told yet."""


def _gather(selected: Selected, ranges: Iterable[Range], count: int) -> Iterator[_Rows]:
    """The messages at those positions of the view, `count` at a time."""
    view = selected.view
    for group in _groups(ranges, count):
        columns = view.columns
        seqs: list[int] = []
        places: list[int] = []
        gone = False
        if view.level:
            if len(group) == 1:
                low, high = group[0]
                yield _Rows(
                    range(low + 1, high + 1), columns.uids[low:high], columns.flags[low:high],
                    columns.sizes[low:high], columns.dates[low:high], gone=False,
                )  # fmt: skip
                continue
            places = [at for low, high in group for at in range(low, high)]
            seqs = [at + 1 for at in places]
        else:
            for low, high in group:
                for at in range(low, high):
                    place = columns.position(view.uids[at])
                    if place < 0:
                        gone = True
                    else:
                        seqs.append(at + 1)
                        places.append(place)
        uids, flags, sizes, dates = (
            [column[at] for at in places] for column in (columns.uids, columns.flags, columns.sizes, columns.dates)
        )
        yield _Rows(seqs, uids, flags, sizes, dates, gone)


def _groups(ranges: Iterable[Range], count: int) -> Iterator[list[Range]]:
    """The same positions in groups of `count`."""
    group: list[Range] = []
    room = count
    for first, high in ranges:
        low = first
        while low < high:
            end = min(high, low + room)
            group.append((low, end))
            room -= end - low
            low = end
            if room == 0:
                yield group
                group, room = [], count
    if group:
        yield group


class _FlagTexts(dict[int, bytes]):
    """Flag lists by mask, made when first needed."""

    def __init__(self, keywords: tuple[str, ...], *, recent: bool) -> None:
        super().__init__()
        self._keywords = keywords
        self._recent = recent

    def __missing__(self, mask: int) -> bytes:
        text = self[mask] = writer.flags(mask, self._keywords, self._recent)
        return text


@frozen
class _Ready:
    """What one hop made."""

    data: bytes
    done: int
    """How many of the messages are in it."""
    learned: Sequence[Row]
    error: MailError | None
    large: _Large | None


@frozen
class _Large:
    """The answer for one message that is sent in pieces."""

    file: MessageFile
    pieces: Sequence[bytes | Range]


class _Answer:
    """One FETCH being answered."""

    def __init__(self, session: Session, selected: Selected, plan: Plan, seen: frozenset[int]) -> None:
        self._session = session
        self._selected = selected
        self._plan = plan
        self._seen = seen
        self.error: MailError | None = None

    async def write(self, ranges: Sequence[Range]) -> None:
        """All answers, as much at a time as the client takes."""
        plan, channel = self._plan, self._session.channel
        if plan.needs_summary or plan.needs_file:
            for rows in _gather(self._selected, ranges, _FILES if plan.needs_file else _SUMMARIES):
                await self._from_store(rows)
            return
        size = 0
        for rows in _gather(self._selected, ranges, _ROWS):
            if plan.measured and _unmeasured(rows):
                await self._from_store(rows)
                continue
            self._note(rows)
            text = plan.line * len(rows.uids) % tuple(self._cells(rows))
            channel.write(text)
            size += len(text)
            if size >= CHUNK:
                size = 0
                await channel.drain()

    def _note(self, rows: _Rows) -> None:
        if rows.gone and self.error is None:
            self.error = MessageExpunged()

    def _cells(self, rows: _Rows) -> Iterable[object]:
        columns: list[Sequence[object]] = [rows.seqs]
        for item in self._plan.items:
            match item.label:
                case b"FLAGS":
                    columns.append(self._flags(rows))
                case b"UID":
                    columns.append(rows.uids)
                case b"RFC822.SIZE":
                    columns.append(rows.sizes)
                case b"INTERNALDATE":
                    columns.append(list(map(writer.date_time, rows.dates)))
        return chain.from_iterable(zip(*columns, strict=True))

    def _flags(self, rows: _Rows) -> list[bytes]:
        """Flag lists. \\Recent messages are the last ones of a view."""
        view = self._selected.view
        keywords = view.columns.keywords
        border = bisect_left(rows.uids, view.recent_from)
        plain, recent = _FlagTexts(keywords, recent=False), _FlagTexts(keywords, recent=True)
        return [plain[mask] for mask in rows.masks[:border]] + [recent[mask] for mask in rows.masks[border:]]

    async def _from_store(self, rows: _Rows) -> None:
        """From the index or from files, about CHUNK octets a hop."""
        live, channel = self._selected.live, self._session.channel
        self._note(rows)
        work = _Work(self._session.user, self._plan, rows, self._flags(rows), self._seen)
        start = 0
        while start < len(rows.uids):
            ready = await live.run(partial(work.run, start))
            start += ready.done
            for row in ready.learned:
                live.columns.learn(row.uid, row.size, row.date)
            if ready.error is not None and self.error is None:
                self.error = ready.error
            channel.write(ready.data)
            await self._send_large(ready.large)
            await channel.drain()

    async def _send_large(self, large: _Large | None) -> None:
        if large is None:
            return
        channel, account = self._session.channel, self._selected.live.account
        try:
            for piece in large.pieces:
                if isinstance(piece, bytes):
                    channel.write(piece)
                    continue
                at, end = piece
                while at < end:
                    data = await account.run(partial(large.file.read, at, min(PIECE, end - at)))
                    if not data:
                        # The literal's size has been told: only the end of the connection can take that back.
                        channel.log("message_truncated", user=self._session.user)
                        channel.close()
                        raise ConnectionLost
                    channel.write(without_nul(data))
                    at += len(data)
                    await channel.drain()
        finally:
            await account.run(large.file.close)


class _Work:
    """The part that runs in the account's thread. It touches nothing that the reactor's thread changes."""

    def __init__(self, owner: str, plan: Plan, rows: _Rows, flags: Sequence[bytes], seen: frozenset[int]) -> None:
        self._owner = owner
        self._plan = plan
        self._rows = rows
        self._flags = flags
        self._seen = seen
        self._summaries: dict[int, tuple[Row, Summary]] | None = None

    def run(self, start: int, mailbox: Mailbox) -> _Ready:
        """Answers from the message at `start` on, until there are enough."""
        learned: list[Row] = []
        if self._summaries is None:
            self._summaries = self._read_summaries(mailbox)
            learned = [row for row, _ in self._summaries.values()]
        out: list[bytes] = []
        error: MailError | None = None
        size = 0
        at = start
        while at < len(self._rows.uids) and size < CHUNK:
            try:
                found = self._message(mailbox, at)
            except (MessageExpunged, StoreUnavailable) as problem:
                error = error or problem
                at += 1
                continue
            at += 1
            if isinstance(found, _Large):
                return _Ready(b"".join(out), at - start, learned, error, found)
            out.append(found)
            size += len(found)
        return _Ready(b"".join(out), at - start, learned, error, None)

    def _read_summaries(self, mailbox: Mailbox) -> dict[int, tuple[Row, Summary]]:
        rows = self._rows
        if self._plan.needs_summary:
            wanted = [UID(uid) for uid in rows.uids]
        elif self._plan.measured:
            # Making its summary is how a message gets its size and date.
            wanted = [
                UID(uid)
                for uid, size, date in zip(rows.uids, rows.sizes, rows.dates, strict=True)
                if size == UNKNOWN_SIZE or date == UNKNOWN_DATE
            ]
        else:
            wanted = []
        return {uid: (row, summary) for uid, row, summary in mailbox.summaries(wanted)} if wanted else {}

    def _message(self, mailbox: Mailbox, at: int) -> bytes | _Large:
        """One message's answer. Raises: MessageExpunged, StoreUnavailable."""
        assert self._summaries is not None
        known = self._summaries.get(self._rows.uids[at])
        if known is None and self._plan.needs_summary:
            raise MessageExpunged
        incomplete = known is not None and known[1].fields == _KEPT_LINES_UNKNOWN
        if not self._plan.needs_file and not (incomplete and any(item.section for item in self._plan.items)):
            return self._finish(at, [self._simple(item, at, known) for item in self._plan.items])
        file = mailbox.open_message(UID(self._rows.uids[at]))
        kept_open = False
        try:
            message = OpenMessage(file, (self._owner, mailbox.id, self._rows.uids[at]))
            answer = self._from_file(file, message, at, known, incomplete=incomplete)
            kept_open = isinstance(answer, _Large)
            return answer
        finally:
            if not kept_open:
                file.close()

    def _from_file(
        self, file: MessageFile, message: OpenMessage, at: int, known: tuple[Row, Summary] | None, *, incomplete: bool
    ) -> bytes | _Large:  # fmt: skip
        texts: list[bytes | Range] = []
        for number, item in enumerate(self._plan.items):
            if number:
                texts.append(b" ")
            if item.section is None or (item.need is Need.SUMMARY and not incomplete):
                texts.append(self._simple(item, at, known))
                continue
            found = message.resolve(item.section)
            if found is None:
                texts.append(item.label + b" {0}\r\n")
            elif isinstance(found, bytes):
                texts.append(b"%b {%d}\r\n%b" % (item.label, len(found), without_nul(found)))
            else:
                texts += (b"%b {%d}\r\n" % (item.label, found[1] - found[0]), found)
        if total(texts) > CHUNK:
            return _Large(file, [b"* %d FETCH (" % self._rows.seqs[at], *texts, self._end(at)])
        return self._finish(
            at, [text if isinstance(text, bytes) else without_nul(message.read(text)) for text in texts], b""
        )  # fmt: skip

    def _finish(self, at: int, texts: Sequence[bytes], between: bytes = b" ") -> bytes:
        return b"* %d FETCH (%b%b" % (self._rows.seqs[at], between.join(texts), self._end(at))

    def _end(self, at: int) -> bytes:
        """Behind the last item: the flags too, if this FETCH changed them (RFC 3501 6.4.5)."""
        if self._rows.uids[at] in self._seen and FLAGS not in self._plan.items:
            return b" FLAGS %b)\r\n" % self._flags[at]
        return b")\r\n"

    def _simple(self, item: Item, at: int, known: tuple[Row, Summary] | None) -> bytes:
        """An item that needs no file."""
        rows = self._rows
        match item.label:
            case b"FLAGS":
                return b"FLAGS " + self._flags[at]
            case b"UID":
                return b"UID %d" % rows.uids[at]
            case b"RFC822.SIZE":
                size = rows.sizes[at]
                if size == UNKNOWN_SIZE:
                    size = _known_row(known).size
                return b"RFC822.SIZE %d" % size
            case b"INTERNALDATE":
                date = rows.dates[at]
                if date == UNKNOWN_DATE:
                    date = _known_row(known).date
                return b"INTERNALDATE " + writer.date_time(date)
        assert known is not None
        summary = known[1]
        match item.label:
            case b"ENVELOPE":
                return b"ENVELOPE " + summary.envelope
            case b"BODY":
                return b"BODY " + summary.body
            case b"BODYSTRUCTURE":
                return b"BODYSTRUCTURE " + summary.body_structure
        assert item.section is not None
        lines = select_fields(summary.fields, item.section)
        if item.section.partial is not None:
            first, count = item.section.partial
            lines = lines[first : first + count]
        return b"%b {%d}\r\n%b" % (item.label, len(lines), without_nul(lines))


def _known_row(known: tuple[Row, Summary] | None) -> Row:
    """The row that came with a summary. Raises: MessageExpunged."""
    if known is None:
        raise MessageExpunged
    return known[0]
