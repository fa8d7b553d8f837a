"""The part of a FETCH that may wait: answers made from the index and from files, in the account's thread.

It touches nothing that the reactor's thread changes. What was read a moment ago is given to it (`Known`); where that is all
that is needed, it runs on the reactor's thread (`run_now`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Final

from attrs import Factory, frozen

from mailserver.errors import MailError, MessageExpunged, StoreUnavailable
from mailserver.imap.fetch_plan import CHUNK, FORMATS, Item, Need, Plan, Rows, unmeasured
from mailserver.imap.section import AtOnce, NotKnown, OpenMessage, Range, ReadMessage, kept_lines, total, without_nul
from mailserver.imap.wire import writer
from mailserver.message.summary import INCOMPLETE, Summary
from mailserver.store.interfaces import Mailbox, MessageFile
from mailserver.store.rows import Row
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE

SMALL: Final = 64 * 1024
"""Octets of a message that is read whole, with others, whatever is asked of it."""
_OPEN: Final = 64
"""Files of one group of messages that stay open."""
_TYPICAL: Final = 4096
"""Octets of a message whose size is not known."""
_KEPT_LINES_UNKNOWN: Final = INCOMPLETE.encode("ascii")


@frozen
class Known:
    """What was read of those messages before, by UID; the files are this FETCH's alone until it gives them back."""

    texts: dict[int, bytes] = Factory(dict)
    summaries: dict[int, Summary] = Factory(dict)
    files: dict[int, MessageFile] = Factory(dict)


@frozen
class Ready:
    """What one hop made."""

    data: bytes
    done: int
    """How many of the messages are in it."""
    learned: Sequence[Row]
    error: MailError | None
    large: Large | None


@frozen
class Large:
    """The answer for one message that is sent in pieces."""

    uid: UID
    file: MessageFile
    pieces: Sequence[bytes | Range]


class Work:
    """One group of messages being answered."""

    def __init__(
        self,
        message_key: tuple[Hashable, ...],
        plan: Plan,
        rows: Rows,
        *,
        flags: Sequence[bytes],
        seen: frozenset[int],
    ) -> None:
        """`message_key` with a UID stands for one message."""
        self.known: Known | None = None
        """To be set before each `run`, which adds what it reads."""
        self._message_key = message_key
        self._plan = plan
        self._rows = rows
        self._flags = flags
        self._seen = seen
        self._summaries: dict[int, Summary] | None = None
        self._measured: dict[int, Row] = {}
        """Rows that were read where the columns do not know all sizes and dates."""
        self._ahead: deque[tuple[UID, bytes]] = deque()
        """Small messages that have been read, in their order."""
        self.weight = 0
        """Octets of the summaries that were read."""

    def run_now(self, start: int) -> Ready | None:
        """As `run`, from what is known alone and without waiting; None if that is not enough."""
        if self.known is None:
            return None
        try:
            return self.run(start, None)
        except NotKnown:
            return None

    def run(self, start: int, mailbox: Mailbox | None) -> Ready:
        """Answers from the message at `start` on, until there are enough.

        Without a mailbox as far as they are known. Raises: NotKnown where not even the first is.
        """
        learned: list[Row] = []
        if self._summaries is None:
            if self._plan.only_envelopes and (block := self._envelopes(mailbox)) is not None:
                return Ready(block, len(self._rows.uids), learned, None, None)
            self._summaries = self._read_summaries(mailbox)
            lacking = unmeasured(self._rows)
            learned = [row for row in self._measured.values() if row.size != UNKNOWN_SIZE and row.date != UNKNOWN_DATE]
            if not (lacking and self._plan.measured) and (block := self._block()) is not None:
                return Ready(block, len(self._rows.uids), learned, None, None)
        out: list[bytes] = []
        error: MailError | None = None
        size = 0
        at = start
        while at < len(self._rows.uids) and size < CHUNK:
            if self._plan.needs_file and not self._ahead and mailbox is not None and not self._has(self._rows.uids[at]):
                self._read_ahead(mailbox, at)
            try:
                found = self._message(mailbox, at)
            except (MessageExpunged, StoreUnavailable) as problem:
                if error is None or isinstance(error, MessageExpunged):
                    # UID FETCH reports what cannot be read, and ignores what is expunged (RFC 3501 6.4.8).
                    error = problem
                at += 1
                continue
            except NotKnown:
                if at == start:
                    raise
                break
            at += 1
            if isinstance(found, Large):
                return Ready(b"".join(out), at - start, learned, error, found)
            out.append(found)
            size += len(found)
        return Ready(b"".join(out), at - start, learned, error, None)

    def _read_ahead(self, mailbox: Mailbox, at: int) -> None:
        """Read the small messages from there on, about CHUNK octets."""
        uids, sizes = self._rows.uids, self._rows.sizes
        wanted: list[UID] = []
        left = CHUNK
        while (
            at < len(uids)
            and left > 0
            and (sizes[at] <= SMALL or sizes[at] == UNKNOWN_SIZE)
            and not self._has(uids[at])
        ):
            wanted.append(UID(uids[at]))
            left -= sizes[at] if sizes[at] != UNKNOWN_SIZE else _TYPICAL
            at += 1
        if wanted:
            self._ahead.extend(mailbox.read_whole(wanted, CHUNK))
            if self.known is not None:
                self.known.texts.update((uid, data) for uid, data in self._ahead if len(data) <= SMALL)

    def _has(self, uid: int) -> bool:
        return self.known is not None and (uid in self.known.texts or uid in self.known.files)

    def _read_summaries(self, mailbox: Mailbox | None) -> dict[int, Summary]:
        """What is known, and the others from the mailbox: all of them where sizes or dates are not known either."""
        rows = self._rows
        lacking = unmeasured(rows)
        if not self._plan.needs_summary:
            if self._plan.measured and lacking:
                self._measure(mailbox)
            return {}
        known = self.known.summaries if self.known is not None else {}
        found = {} if lacking else dict(known)
        wanted = [UID(uid) for uid in rows.uids if uid not in found]
        if not wanted:
            return found
        if mailbox is None:
            raise NotKnown
        read = mailbox.summaries(wanted, only_head=self._plan.only_head)
        found.update((uid, summary) for uid, _row, summary in read)
        if lacking:
            self._measured = {uid: row for uid, row, _summary in read}
        known.update(found)
        self.weight = sum([len(summary.body_structure) + len(summary.envelope) for summary in found.values()])
        return found

    def _measure(self, mailbox: Mailbox | None) -> None:
        """Raises: NotKnown where there is no mailbox."""
        rows = self._rows
        unknown = [
            UID(uid)
            for uid, size, date in zip(rows.uids, rows.sizes, rows.dates, strict=True)
            if size == UNKNOWN_SIZE or date == UNKNOWN_DATE
        ]
        if mailbox is None:
            raise NotKnown
        self._measured = {row.uid: row for row in mailbox.measure(unknown)}

    def _envelopes(self, mailbox: Mailbox | None) -> bytes | None:
        """All messages at once, from the index; None if one of them is not there, or small answers are remembered."""
        plan, rows = self._plan, self._rows
        if mailbox is None or self.known is not None or (plan.measured and unmeasured(rows)):
            return None
        uids = [UID(uid) for uid in rows.uids]
        kept = mailbox.envelopes(uids)
        if len(kept) != len(rows.uids):
            return None
        self.weight = sum(map(len, kept.values()))
        envelopes = [kept[uid] for uid in uids]
        columns: list[Sequence[object]] = [rows.seqs]
        columns += [self._column(item) if item.need is Need.COLUMN else envelopes for item in plan.items]
        return plan.line * len(rows.uids) % tuple(chain.from_iterable(zip(*columns, strict=True)))

    def _column(self, item: Item) -> Sequence[object]:
        """What `Plan.line` takes for an item from columns, of all messages."""
        match item.label:
            case b"FLAGS":
                return self._flags
            case b"UID":
                return self._rows.uids
            case b"RFC822.SIZE":
                return self._rows.sizes
        return [writer.date_time(date) for date in self._rows.dates]

    def _block(self) -> bytes | None:
        """All messages at once; None if one of them needs more than columns and its summary."""
        plan, rows, found = self._plan, self._rows, self._summaries
        assert found is not None
        if plan.needs_file or len(found) != len(rows.uids) or (self._seen and not plan.tells_flags):
            return None
        summaries = [found[uid] for uid in rows.uids]
        columns: list[Sequence[object]] = [rows.seqs]
        for item in plan.items:
            match item.label:
                case _ if item.need is Need.COLUMN:
                    columns.append(self._column(item))
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

    def _message(self, mailbox: Mailbox | None, at: int) -> bytes | Large:
        """One message's answer. Raises: MessageExpunged, StoreUnavailable."""
        assert self._summaries is not None
        uid = self._rows.uids[at]
        data = self._ahead.popleft()[1] if self._ahead and self._ahead[0][0] == uid else None
        if data is None and self.known is not None:
            data = self.known.texts.get(uid)
        known = self._summaries.get(uid)
        if data is not None and self._plan.only_whole and not (self._seen and not self._plan.tells_flags):
            return self._whole(at, data)
        if known is None and self._plan.needs_summary:
            raise MessageExpunged
        incomplete = known is not None and known.fields == _KEPT_LINES_UNKNOWN
        if not self._plan.needs_file and not (incomplete and any(item.section for item in self._plan.items)):
            return self._finish(at, [self._simple(item, at, known) for item in self._plan.items])
        file: MessageFile = self._open(mailbox, UID(uid)) if data is None else ReadMessage(data)
        try:
            message = OpenMessage(AtOnce(file, CHUNK) if mailbox is None else file, (*self._message_key, uid))
            answer = self._from_file(file, message, at, known, incomplete=incomplete)
        except NotKnown:
            self._put_back(uid, file)
            raise
        except BaseException:
            file.close()
            raise
        if data is None and not isinstance(answer, Large):
            self._put_back(uid, file)
        return answer

    def _put_back(self, uid: int, file: MessageFile) -> None:
        """It may be kept open; not more than a few."""
        if self.known is None or len(self.known.files) >= _OPEN:
            file.close()
        else:
            self.known.files[uid] = file

    def _open(self, mailbox: Mailbox | None, uid: UID) -> MessageFile:
        """Raises: MessageExpunged, StoreUnavailable, NotKnown."""
        if self.known is not None and (file := self.known.files.pop(uid, None)) is not None:
            return file
        if mailbox is None:
            raise NotKnown
        return mailbox.open_message(uid)

    def _whole(self, at: int, data: bytes) -> bytes:
        """A small message that has been read, and items from columns."""
        cells: list[object] = [self._rows.seqs[at]]
        for item in self._plan.items:
            if item.need is Need.FILE:
                cells += (len(data), without_nul(data))
            else:
                cells.append(self._cell(item, at))
        return self._plan.whole_line % tuple(cells)

    def _cell(self, item: Item, at: int) -> object:
        """What `Plan.line` takes for an item from columns."""
        rows = self._rows
        match item.label:
            case b"FLAGS":
                return self._flags[at]
            case b"UID":
                return rows.uids[at]
            case b"RFC822.SIZE":
                size = rows.sizes[at]
                return self._measured_row(rows.uids[at]).size if size == UNKNOWN_SIZE else size
        date = rows.dates[at]
        return writer.date_time(self._measured_row(rows.uids[at]).date if date == UNKNOWN_DATE else date)

    def _measured_row(self, uid: int) -> Row:
        """Raises: MessageExpunged."""
        row = self._measured.get(uid)
        if row is None:
            raise MessageExpunged
        return row

    def _from_file(
        self, file: MessageFile, message: OpenMessage, at: int, known: Summary | None, *, incomplete: bool
    ) -> bytes | Large:  # fmt: skip
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
            return Large(UID(self._rows.uids[at]), file, [b"* %d FETCH (" % self._rows.seqs[at], *texts, self._end(at)])
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

    def _simple(self, item: Item, at: int, known: Summary | None) -> bytes:
        """An item that needs no file."""
        if item.need is Need.COLUMN:
            return FORMATS[item.label] % self._cell(item, at)
        assert known is not None
        match item.label:
            case b"ENVELOPE":
                return b"ENVELOPE " + known.envelope
            case b"BODY":
                return b"BODY " + known.body
            case b"BODYSTRUCTURE":
                return b"BODYSTRUCTURE " + known.body_structure
        return b"%b %b" % (item.label, _kept(item, known))


def _kept(item: Item, summary: Summary) -> bytes:
    """Header fields from kept lines, as a literal."""
    assert item.section is not None
    lines = kept_lines(summary.fields, item.section.fields)
    if item.section.partial is not None:
        first, count = item.section.partial
        lines = lines[first : first + count]
    return b"{%d}\r\n%b" % (len(lines), without_nul(lines))
