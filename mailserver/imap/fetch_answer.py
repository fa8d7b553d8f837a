"""Answering FETCH: from memory, from the index, from files (RFC 3501 7.4.2).

An item costs nothing but memory (FLAGS, UID, INTERNALDATE, RFC822.SIZE), or a row of the index (ENVELOPE, BODY,
BODYSTRUCTURE, the usual header fields), or a file. The three are answered in three ways:

*   From columns, on the reactor's thread: one format string for hundreds of messages.
*   From the index and from files in the account's thread, until about CHUNK octets are ready; the client takes them
    before the next hop. So a session holds one chunk, however much is asked for.
*   A message with more than that to send is sent in pieces of PIECE octets, each read when the last one has gone.

A message that is gone is left out, and the others are told.
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from mailserver.errors import ConnectionLost, MailError, MessageExpunged, StoreUnavailable
from mailserver.imap.section import PIECE, OpenMessage, Range, ReadMessage, Section, kept_lines, total, without_nul
from mailserver.imap.wire import writer
from mailserver.message.summary import INCOMPLETE, Summary
from mailserver.store.interfaces import Mailbox, MessageFile, Row
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE

if TYPE_CHECKING:
    from mailserver.imap.session import Selected, Session

CHUNK: Final = 256 * 1024
"""Octets that are made ready before the client must take them."""
SMALL: Final = 64 * 1024
"""Octets of a message that is read whole, with others, whatever is asked of it."""
_ROWS: Final = 500
_FEW: Final = 64
_TYPICAL: Final = 4096
"""Octets of a message whose size is not known."""
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


_FORMATS: Final = {
    b"FLAGS": b"FLAGS %b",
    b"UID": b"UID %d",
    b"INTERNALDATE": b"INTERNALDATE %b",
    b"RFC822.SIZE": b"RFC822.SIZE %d",
}
"""Of items from columns; all others are their label and octets."""


_WHOLE: Final = Section()


@frozen
class Plan:
    """The items of one FETCH, and what they need together."""

    items: tuple[Item, ...]
    line: bytes = field(init=False)
    """The format of one message of a plan that needs no file."""
    whole_line: bytes = field(init=False)
    """The same, whole messages included: their length and octets."""
    only_whole: bool = field(init=False)
    """The only things that need a file are whole messages, and nothing needs a summary."""
    needs_summary: bool = field(init=False)
    only_head: bool = field(init=False)
    """Of the summaries, only what headers tell is needed, and neither sizes nor dates."""
    needs_file: bool = field(init=False)
    sets_seen: bool = field(init=False)
    measured: bool = field(init=False)
    """Sizes or dates are asked for."""
    tells_flags: bool = field(init=False)

    @line.default
    def _line(self) -> bytes:
        formats = [_FORMATS.get(item.label) or item.label.replace(b"%", b"%%") + b" %b" for item in self.items]
        return b"* %%d FETCH (%b)\r\n" % b" ".join(formats)

    @whole_line.default
    def _whole_line(self) -> bytes:
        formats = [
            _FORMATS.get(item.label) or item.label + (b" {%d}\r\n%b" if item.need is Need.FILE else b" %b")
            for item in self.items
        ]
        return b"* %%d FETCH (%b)\r\n" % b" ".join(formats)

    @only_whole.default
    def _only_whole(self) -> bool:
        return all(
            item.need is Need.COLUMN or (item.need is Need.FILE and item.section == _WHOLE) for item in self.items
        )

    @needs_summary.default
    def _needs_summary(self) -> bool:
        return any(item.need is Need.SUMMARY for item in self.items)

    @only_head.default
    def _only_head(self) -> bool:
        return all(item.label in (b"FLAGS", b"UID", b"ENVELOPE") or item.section is not None for item in self.items)

    @needs_file.default
    def _needs_file(self) -> bool:
        return any(item.need is Need.FILE for item in self.items)

    @sets_seen.default
    def _sets_seen(self) -> bool:
        return any(item.sets_seen for item in self.items)

    @tells_flags.default
    def _tells_flags(self) -> bool:
        return any(item.label == b"FLAGS" for item in self.items)

    @measured.default
    def _measured(self) -> bool:
        return any(item.label in (b"INTERNALDATE", b"RFC822.SIZE") for item in self.items)


def _unmeasured(rows: Rows) -> bool:
    """Is a size or date among these not known yet? Octets are compared: that is 50 times as fast as numbers."""
    if isinstance(rows.sizes, array) and isinstance(rows.dates, array):
        sizes, dates = rows.sizes.tobytes(), rows.dates.tobytes()
        if _UNKNOWN_SIZE not in sizes and _UNKNOWN_DATE not in dates:
            return False
    return UNKNOWN_SIZE in rows.sizes or UNKNOWN_DATE in rows.dates


@frozen
class Rows:
    """What columns say of some messages; parallel."""

    seqs: Sequence[int]
    uids: Sequence[int]
    masks: Sequence[int]
    sizes: Sequence[int]
    dates: Sequence[int]
    gone: bool
    """Some are left out: they have been expunged, and the client has not been told yet."""


@define
class Pace:
    """How many messages are taken at a time."""

    count: int = _ROWS

    def weigh(self, octets: int) -> None:
        """Those of the last time took so much memory: take more, or fewer, the next time."""
        if octets < CHUNK:
            self.count = min(self.count * 2, _ROWS)
        elif octets > 4 * CHUNK:
            self.count = max(self.count // 4, 1)


def gather(selected: Selected, ranges: Iterable[Range], pace: Pace) -> Iterator[Rows]:
    """The messages at those positions of the view, as many at a time as the pace says."""
    view = selected.view
    for group in _groups(ranges, pace):
        columns = view.columns
        seqs: list[int] = []
        places: list[int] = []
        gone = False
        if view.level:
            if len(group) == 1:
                low, high = group[0]
                yield Rows(
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
        yield Rows(seqs, uids, flags, sizes, dates, gone)


def _groups(ranges: Iterable[Range], pace: Pace) -> Iterator[list[Range]]:
    """The same positions in groups."""
    group: list[Range] = []
    room = pace.count
    for first, high in ranges:
        low = first
        while low < high:
            end = min(high, low + room)
            group.append((low, end))
            room -= end - low
            low = end
            if room == 0:
                yield group
                group, room = [], pace.count
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


class Answer:
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
            pace = Pace(_FEW)
            for rows in gather(self._selected, ranges, pace):
                weight = await self._from_store(rows)
                if not plan.needs_file:
                    pace.weigh(weight)
            return
        size = 0
        for rows in gather(self._selected, ranges, Pace()):
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

    def _note(self, rows: Rows) -> None:
        if rows.gone and self.error is None:
            self.error = MessageExpunged()

    def _cells(self, rows: Rows) -> Iterable[object]:
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

    def _flags(self, rows: Rows) -> list[bytes]:
        """Flag lists. \\Recent messages are the last ones of a view."""
        view = self._selected.view
        keywords = view.columns.keywords
        border = bisect_left(rows.uids, view.recent_from)
        plain, recent = _FlagTexts(keywords, recent=False), _FlagTexts(keywords, recent=True)
        return [plain[mask] for mask in rows.masks[:border]] + [recent[mask] for mask in rows.masks[border:]]

    async def _from_store(self, rows: Rows) -> int:
        """From the index or from files, about CHUNK octets a hop; how heavy the summaries were."""
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
        return work.weight

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
                        channel.log("message-truncated", user=self._session.user)
                        channel.close()
                        raise ConnectionLost
                    channel.write(without_nul(data))
                    at += len(data)
                    await channel.drain()
        finally:
            await account.run(large.file.close)


class _Work:
    """The part that runs in the account's thread. It touches nothing that the reactor's thread changes."""

    def __init__(self, owner: str, plan: Plan, rows: Rows, flags: Sequence[bytes], seen: frozenset[int]) -> None:
        self._owner = owner
        self._plan = plan
        self._rows = rows
        self._flags = flags
        self._seen = seen
        self._summaries: dict[int, tuple[Row, Summary]] | None = None
        self._ahead: deque[tuple[UID, bytes]] = deque()
        """Small messages that have been read, in their order."""
        self.weight = 0
        """Octets of the summaries that were read."""

    def run(self, start: int, mailbox: Mailbox) -> _Ready:
        """Answers from the message at `start` on, until there are enough."""
        learned: list[Row] = []
        if self._summaries is None:
            self._summaries = self._read_summaries(mailbox)
            unmeasured = _unmeasured(self._rows)
            if unmeasured:
                learned = [
                    row for row, _ in self._summaries.values() if row.size != UNKNOWN_SIZE and row.date != UNKNOWN_DATE
                ]
            if not (unmeasured and self._plan.measured) and (block := self._block()) is not None:
                return _Ready(block, len(self._rows.uids), learned, None, None)
        out: list[bytes] = []
        error: MailError | None = None
        size = 0
        at = start
        while at < len(self._rows.uids) and size < CHUNK:
            if self._plan.needs_file and not self._ahead:
                self._read_ahead(mailbox, at)
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

    def _read_ahead(self, mailbox: Mailbox, at: int) -> None:
        """Read the small messages from there on, about CHUNK octets."""
        uids, sizes = self._rows.uids, self._rows.sizes
        wanted: list[UID] = []
        left = CHUNK
        while at < len(uids) and left > 0 and (sizes[at] <= SMALL or sizes[at] == UNKNOWN_SIZE):
            wanted.append(UID(uids[at]))
            left -= sizes[at] if sizes[at] != UNKNOWN_SIZE else _TYPICAL
            at += 1
        if wanted:
            self._ahead.extend(mailbox.read_whole(wanted, CHUNK))

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
        if not wanted:
            return {}
        found: dict[int, tuple[Row, Summary]] = {
            uid: (row, summary) for uid, row, summary in mailbox.summaries(wanted, only_head=self._plan.only_head)
        }
        self.weight = sum([len(summary.body_structure) + len(summary.envelope) for _, summary in found.values()])
        return found

    def _block(self) -> bytes | None:
        """All messages at once; None if one of them needs more than columns and its summary."""
        plan, rows, found = self._plan, self._rows, self._summaries
        assert found is not None
        if plan.needs_file or len(found) != len(rows.uids) or (self._seen and not plan.tells_flags):
            return None
        summaries = [found[uid][1] for uid in rows.uids]
        columns: list[Sequence[object]] = [rows.seqs]
        for item in plan.items:
            match item.label:
                case b"FLAGS":
                    columns.append(self._flags)
                case b"UID":
                    columns.append(rows.uids)
                case b"RFC822.SIZE":
                    columns.append(rows.sizes)
                case b"INTERNALDATE":
                    columns.append([writer.date_time(date) for date in rows.dates])
                case b"ENVELOPE":
                    columns.append([summary.envelope for summary in summaries])
                case b"BODY":
                    columns.append([summary.body for summary in summaries])
                case b"BODYSTRUCTURE":
                    columns.append([summary.body_structure for summary in summaries])
                case _:
                    if any(summary.fields == _KEPT_LINES_UNKNOWN for summary in summaries):
                        return None
                    columns.append([_kept(item, summary) for summary in summaries])
        return plan.line * len(rows.uids) % tuple(chain.from_iterable(zip(*columns, strict=True)))

    def _message(self, mailbox: Mailbox, at: int) -> bytes | _Large:
        """One message's answer. Raises: MessageExpunged, StoreUnavailable."""
        assert self._summaries is not None
        uid = self._rows.uids[at]
        data = self._ahead.popleft()[1] if self._ahead and self._ahead[0][0] == uid else None
        known = self._summaries.get(uid)
        if data is not None and self._plan.only_whole and not (self._seen and not self._plan.tells_flags):
            return self._whole(at, data, known)
        if known is None and self._plan.needs_summary:
            raise MessageExpunged
        incomplete = known is not None and known[1].fields == _KEPT_LINES_UNKNOWN
        if not self._plan.needs_file and not (incomplete and any(item.section for item in self._plan.items)):
            return self._finish(at, [self._simple(item, at, known) for item in self._plan.items])
        file = mailbox.open_message(UID(uid)) if data is None else ReadMessage(data)
        kept_open = False
        try:
            message = OpenMessage(file, (self._owner, mailbox.id, uid))
            answer = self._from_file(file, message, at, known, incomplete=incomplete)
            kept_open = isinstance(answer, _Large)
            return answer
        finally:
            if not kept_open:
                file.close()

    def _whole(self, at: int, data: bytes, known: tuple[Row, Summary] | None) -> bytes:
        """A small message that has been read, and items from columns."""
        cells: list[object] = [self._rows.seqs[at]]
        for item in self._plan.items:
            if item.need is Need.FILE:
                cells += (len(data), without_nul(data))
            else:
                cells.append(self._cell(item, at, known))
        return self._plan.whole_line % tuple(cells)

    def _cell(self, item: Item, at: int, known: tuple[Row, Summary] | None) -> object:
        """What `Plan.line` takes for an item from columns."""
        rows = self._rows
        match item.label:
            case b"FLAGS":
                return self._flags[at]
            case b"UID":
                return rows.uids[at]
            case b"RFC822.SIZE":
                size = rows.sizes[at]
                return _known_row(known).size if size == UNKNOWN_SIZE else size
        date = rows.dates[at]
        return writer.date_time(_known_row(known).date if date == UNKNOWN_DATE else date)

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
        if self._rows.uids[at] in self._seen and not self._plan.tells_flags:
            return b" FLAGS %b)\r\n" % self._flags[at]
        return b")\r\n"

    def _simple(self, item: Item, at: int, known: tuple[Row, Summary] | None) -> bytes:
        """An item that needs no file."""
        if item.need is Need.COLUMN:
            return _FORMATS[item.label] % self._cell(item, at, known)
        assert known is not None
        summary = known[1]
        match item.label:
            case b"ENVELOPE":
                return b"ENVELOPE " + summary.envelope
            case b"BODY":
                return b"BODY " + summary.body
            case b"BODYSTRUCTURE":
                return b"BODYSTRUCTURE " + summary.body_structure
        return b"%b %b" % (item.label, _kept(item, summary))


def _kept(item: Item, summary: Summary) -> bytes:
    """Header fields from kept lines, as a literal."""
    assert item.section is not None
    lines = kept_lines(summary.fields, item.section.fields)
    if item.section.partial is not None:
        first, count = item.section.partial
        lines = lines[first : first + count]
    return b"{%d}\r\n%b" % (len(lines), without_nul(lines))


def _known_row(known: tuple[Row, Summary] | None) -> Row:
    """The row that came with a summary. Raises: MessageExpunged."""
    if known is None:
        raise MessageExpunged
    return known[0]
