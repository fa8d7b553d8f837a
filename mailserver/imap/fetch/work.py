"""The part of a FETCH that may block: responses made from the index and from files, in the account's thread.

It touches nothing that the reactor's thread changes. It is given the cached messages (`CachedData`); where these are enough
and cost little (`Budget`), it runs on the reactor's thread (`run_now`). All else is done in turns of the
account's thread that end by time (`TimeSlice`), in the middle of a message if need be (`LargeResponse`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Hashable, Sequence
from functools import partial
from itertools import chain
from typing import Final

from mailserver.errors import MailError, MessageExpunged, StoreUnavailable, UnknownEncoding
from mailserver.imap.fetch.block import Block
from mailserver.imap.fetch.budget import COPIED, EACH, Budget, BudgetExceeded, NotCached, UnlimitedBudget
from mailserver.imap.fetch.cells import RowCells
from mailserver.imap.fetch.message import KEPT_LINES_UNKNOWN, LargeResponse, MessageFormatter, collect, total
from mailserver.imap.fetch.open_message import LoadedMessage, NonBlockingFile, OpenMessage
from mailserver.imap.fetch.plan import CHUNK, FetchPlan, Rows, unmeasured
from mailserver.imap.fetch.result import CachedData, FetchResult
from mailserver.imap.fetch.section import without_nul
from mailserver.imap.fetch.surrogate import (
    file_edits,
    is_plain_head,
    is_plain_structure,
    served_head,
    served_text,
    summary_of,
)
from mailserver.message.summary import Summary
from mailserver.message.surrogate import surrogate_lines
from mailserver.message.surrogate_file import SurrogateFile
from mailserver.store.interfaces import Mailbox, MessageFile
from mailserver.store.rows import LARGEST_SIZE, Row
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq

SMALL: Final = 64 * 1024
"""Octets of a message that is read whole, with others, whatever is asked of it."""
SUMMARIES: Final = 4 * CHUNK
"""Octets of summaries that are held at a time."""
_OPEN: Final = 64
"""Files of one group of messages that stay open."""
_TYPICAL: Final = 4096
"""Octets of a message whose size is not known."""
_UNBOUNDED: Final = UnlimitedBudget()


class Work(RowCells):
    """One group of messages being answered."""

    def __init__(
        self,
        message_key: tuple[Hashable, ...],
        plan: FetchPlan,
        rows: Rows,
        *,
        flags: Sequence[bytes],
        seen: frozenset[int],
        utf8: bool = True,
    ) -> None:
        """`message_key` with a UID stands for one message. `utf8`: the client takes UTF-8 in headers (RFC 9755)."""
        super().__init__(plan, rows, flags, seen)
        self.known: CachedData | None = None
        """To be set before each `run`, which adds what it reads."""
        self.is_heavy = False
        """Has it exceeded the budget of the reactor's thread?"""
        self._message_key = message_key
        self._utf8 = utf8
        self._tries_kept = plan.only_envelopes or plan.only_lines
        self._summaries: dict[int, Summary] = {}
        self._learned: list[Row] = []
        self._decided = 0
        """The number of messages that need no more from the index: their data is in these two."""
        self._ahead: deque[tuple[UID, bytes]] = deque()
        """Small messages that have been read, in their order."""
        self.weight = 0
        """Octets of the summaries that were read."""

    def run_now(self, start: int) -> FetchResult | None:
        """As `run`, from cached data alone, without blocking and within the budget; None if that is not enough."""
        if self.known is None or self.is_heavy:
            return None
        try:
            return self._run(start, None, Budget(), None)
        except BudgetExceeded:
            self.is_heavy = True
            return None
        except NotCached:
            return None

    def run(self, start: int, mailbox: Mailbox) -> FetchResult:
        """Answer from the message at `start` on, in the account's thread, until there are enough octets, or the time is over."""
        return self._run(start, mailbox, _UNBOUNDED, TimeSlice(CHUNK))

    def has_decided(self, start: int) -> bool:
        """Has all data of the message at `start` been taken from the index?"""
        return start < self._decided

    def _run(self, start: int, mailbox: Mailbox | None, budget: Budget, time_slice: TimeSlice | None) -> FetchResult:
        """Raises: NotCached, BudgetExceeded where not even the first message can be answered."""
        if self._tries_kept:
            if (ready := self._kept(mailbox, start)) is not None:
                return ready
            self._tries_kept = mailbox is None
        learned: list[Row] = []
        self._learned = learned
        if start >= self._decided:
            self._decide(mailbox, start, learned)
        if (ready := self._block(start, budget, learned)) is not None:
            return ready
        out: list[bytes] = []
        left = CHUNK
        error: MailError | None = None
        at = start
        while at < self._decided:
            if self._plan.needs_file and not self._ahead and mailbox is not None and not self._has(self._rows.uids[at]):
                self._read_ahead(mailbox, at)
            try:
                found = self._message(mailbox, at, budget, time_slice)
            except (MessageExpunged, StoreUnavailable, UnknownEncoding) as problem:
                if error is None or isinstance(error, MessageExpunged):
                    # UID FETCH reports messages that cannot be read, and ignores expunged ones (RFC 3501 6.4.8).
                    error = problem
                found = b""
            except NotCached as problem:
                self.is_heavy = self.is_heavy or isinstance(problem, BudgetExceeded)
                if at == start:
                    raise
                break
            if self._ahead and self._ahead[0][0] == self._rows.uids[at]:
                self._ahead.popleft()
            at += 1
            if isinstance(found, LargeResponse):
                return FetchResult(b"".join(out), at - start, learned, error, found)
            out.append(found)
            left -= len(found)
            if left <= 0 or (time_slice is not None and time_slice.take(len(found))):
                break
        return FetchResult(b"".join(out), at - start, learned, error, None)

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

    def _decide(self, mailbox: Mailbox | None, start: int, learned: list[Row]) -> None:
        """Take the cached data of the messages from there on, and the rest from the mailbox, as many as it gives at a time.

        Where sizes or dates are not known, all is read from the mailbox. Raises: NotCached.
        """
        rows, plan = self._rows, self._plan
        count = len(rows.uids)
        lacking = unmeasured(rows) and (plan.needs_summary or plan.measured)
        if plan.lookups and mailbox is None:
            raise NotCached
        if not plan.needs_summary and not lacking:
            self._decided = count
            self._look_up(mailbox, start)
            return
        known = self.known.summaries if self.known is not None else {}
        found = {} if lacking else dict(known)
        wanted = [UID(uid) for uid in rows.uids[start:] if uid not in found]
        time_slice = TimeSlice(SUMMARIES)
        last: UID | None = None
        if wanted:
            if mailbox is None:
                raise NotCached
            if plan.needs_summary:
                read = mailbox.summaries(wanted, only_head=plan.only_head, time_slice=time_slice)
                found.update((uid, summary) for uid, _row, summary in read)
                measured = [row for _uid, row, _summary in read]
            else:
                measured = list(mailbox.measure(self._unmeasured_uids(start), time_slice=time_slice))
            last = measured[-1].uid if measured else None
            if lacking:
                self._measured = {row.uid: row for row in measured}
                learned += [row for row in measured if row.size != UNKNOWN_SIZE and row.date != UNKNOWN_DATE]
        # The messages behind the last one have not been examined, if the time was over.
        self._decided = bisect_right(rows.uids, last) if time_slice.full and last is not None else count
        self._summaries = found
        known.update(found)
        self.weight += sum([len(summary.body_structure) + len(summary.envelope) for summary in found.values()])
        self._look_up(mailbox, start)

    def _look_up(self, mailbox: Mailbox | None, start: int) -> None:
        """Ask the functions of items, for as many of the decided messages as they answer in one time slice each."""
        for item in self._plan.lookups:
            assert mailbox is not None
            assert item.look_up is not None
            time_slice = TimeSlice(SUMMARIES)
            uids = [UID(uid) for uid in self._rows.uids[start : self._decided]]
            found = self._looked_up[item] = item.look_up(mailbox, uids, time_slice) if uids else {}
            if time_slice.full and found:
                self._decided = bisect_right(self._rows.uids, max(found), start, self._decided)

    def _unmeasured_uids(self, start: int) -> list[UID]:
        rows = self._rows
        return [
            UID(uid)
            for uid, size, date in zip(rows.uids[start:], rows.sizes[start:], rows.dates[start:], strict=True)
            if size == UNKNOWN_SIZE or date == UNKNOWN_DATE
        ]

    def _kept(self, mailbox: Mailbox | None, start: int) -> FetchResult | None:
        """Answer many messages at once, from one column of the index; None if one of them is not there, or responses are
        cached.
        """
        plan = self._plan
        if mailbox is None or self.known is not None or (plan.measured and unmeasured(self._rows)):
            return None
        if self._seen and not plan.has_flags:
            return None
        uids = [UID(uid) for uid in self._rows.uids[start:]]
        time_slice = TimeSlice(SUMMARIES)
        kept = (mailbox.envelopes if plan.only_envelopes else mailbox.kept_lines)(uids, time_slice=time_slice)
        count = len(kept)
        if count != len(uids) and not (time_slice.full and count and max(kept) == uids[count - 1]):
            return None
        block = self._block_of(start, start + count)
        values = list(kept.values())
        if not self._utf8 and not all(map(bytes.isascii, values)):
            if plan.only_envelopes:
                return None
            values = list(map(surrogate_lines, values))
        if plan.only_envelopes:
            self.weight += sum(map(len, values))
            return FetchResult(block.format({b"ENVELOPE": values}), count, [], None, None)
        if KEPT_LINES_UNKNOWN in values:
            return None
        return FetchResult(block.format_lines(values), count, [], None, None)

    def _block(self, start: int, budget: Budget, learned: Sequence[Row]) -> FetchResult | None:
        """Answer many messages at once; None if one of them needs more than columns and its summary. Raises: BudgetExceeded."""
        plan, found = self._plan, self._summaries
        if plan.needs_file or plan.lookups or not plan.few_kept or (self._seen and not plan.has_flags):
            return None
        if plan.measured and unmeasured(self._rows):
            return None
        block = self._block_of(start, self._decided)
        try:
            summaries = [found[uid] for uid in block.rows.uids]
        except KeyError:
            return None
        if plan.sections and any(summary.fields == KEPT_LINES_UNKNOWN for summary in summaries):
            return None
        if not self._utf8 and not all(map(self._is_plain, summaries)):
            return None
        data, count = block.format_summaries(summaries, budget)
        return FetchResult(data, count, learned, None, None)

    def _block_of(self, start: int, end: int) -> Block:
        return Block(self._plan, self._rows.part(start, end), self._flags[start:end])

    def _message(
        self, mailbox: Mailbox | None, at: int, budget: Budget, time_slice: TimeSlice | None
    ) -> bytes | LargeResponse:  # fmt: skip
        """The response of one message. Raises: MessageExpunged, StoreUnavailable, NotCached, BudgetExceeded."""
        uid, plan = self._rows.uids[at], self._plan
        data = self._ahead[0][1] if self._ahead and self._ahead[0][0] == uid else None
        if data is None and self.known is not None:
            data = self.known.texts.get(uid)
        known = self._summaries.get(uid)
        if data is None and mailbox is None and plan.only_whole:
            data = self._read_cached(at, budget)
        if data is not None and plan.only_whole and not (self._seen and not plan.has_flags):
            budget.spend(EACH * len(plan.items) + len(data) // COPIED)
            return self._whole(at, self._served(data, budget, may_edit=mailbox is not None))
        if known is None and plan.needs_summary:
            raise MessageExpunged
        budget.spend(EACH * len(plan.items))
        if known is not None:
            budget.spend(sum(map(len, known[:4])) // COPIED + (0 if plan.few_kept else len(known.fields)))
        is_final = self._utf8 or known is None
        """Is the summary the one that the client gets?"""
        if known is not None and not is_final:
            if mailbox is None and not self._is_plain(known):
                raise NotCached
            head = served_head(known)
            is_final = head is not None and (not plan.has_structure or is_plain_structure(known))
            known = head or known
        formatter = MessageFormatter(plan, partial(self._cell, at), known)
        if is_final and not plan.needs_file and not formatter.lacks_lines:
            return self._finish(at, LoadedMessage(b""), None, formatter, time_slice)
        read: bytes | None = data
        if data is None and mailbox is None:
            read = self._read_cached(at, budget)
        file: MessageFile = self._open(mailbox, UID(uid)) if read is None else LoadedMessage(read)
        if read is None and file.size != self._rows.sizes[at] < LARGEST_SIZE:
            # The file is right where its name claims another size.
            self._learned.append(Row(UID(uid), 0, ModSeq(0), file.size, UNKNOWN_DATE))
        try:
            key: Hashable = (*self._message_key, uid)
            served: MessageFile = file
            source: MessageFile = NonBlockingFile(file, CHUNK) if mailbox is None else file
            if not self._utf8:
                only_header = is_final and plan.only_headers
                edits = file_edits(source, key, budget, only_header=only_header, may_edit=mailbox is not None)
                if edits:
                    served, source = SurrogateFile(file, edits), SurrogateFile(source, edits)
                    key = "surrogate", key
                if not is_final:
                    formatter = MessageFormatter(plan, partial(self._cell, at), summary_of(source))
            message = OpenMessage(source, key, plan.sections, budget)
            if plan.has_binary:
                message.check_encodings()
            answer = self._finish(at, served, message, formatter, time_slice)
        except NotCached:
            self._put_back(uid, file)
            raise
        except BaseException:
            file.close()
            raise
        if read is None and not isinstance(answer, LargeResponse):
            self._put_back(uid, file)
        return answer

    def _is_plain(self, summary: Summary) -> bool:
        """Is it sure that a client without UTF-8 gets this summary, too?"""
        return is_plain_head(summary) and (not self._plan.has_structure or is_plain_structure(summary))

    def _served(self, data: bytes, budget: Budget, *, may_edit: bool) -> bytes:
        """A small message as the client gets it. Raises: NotCached, BudgetExceeded."""
        if self._utf8:
            return data
        return served_text(data, budget, may_edit=may_edit)

    def _finish(
        self, at: int, file: MessageFile, message: OpenMessage | None, formatter: MessageFormatter, time_slice: TimeSlice | None
    ) -> bytes | LargeResponse:  # fmt: skip
        """The whole response, or the part that is ready, and its rest."""
        items = chain(
            [b"* %d %b (" % (self._rows.seqs[at], self._plan.response)], formatter.items(message), [self._end(at)]
        )
        pieces, ended = collect(items, time_slice)
        if not ended:
            return LargeResponse(UID(self._rows.uids[at]), file, pieces, items)
        if total(pieces) > CHUNK:
            return LargeResponse(UID(self._rows.uids[at]), file, pieces, None)
        if message is None:
            return b"".join([piece for piece in pieces if isinstance(piece, bytes)])
        return b"".join([piece if isinstance(piece, bytes) else without_nul(message.read(piece)) for piece in pieces])

    def _read_cached(self, at: int, budget: Budget) -> bytes | None:
        """Read a message, or as much of it as the plan needs, from the kernel's caches."""
        known, uid, size = self.known, self._rows.uids[at], self._rows.sizes[at]
        if known is None or known.read is None or uid in known.files:
            return None
        only_header = self._plan.only_headers
        if size != UNKNOWN_SIZE and not only_header:
            if size > CHUNK:
                return None
            budget.copy(size)
        data = known.read(UID(uid), None if size == UNKNOWN_SIZE else size, only_header)
        if data is not None and not only_header and len(data) <= SMALL:
            known.texts[uid] = data
        return data

    def _put_back(self, uid: int, file: MessageFile) -> None:
        """Keep a file open; no more than a few."""
        if self.known is None or len(self.known.files) >= _OPEN:
            file.close()
        else:
            self.known.files[uid] = file

    def _open(self, mailbox: Mailbox | None, uid: UID) -> MessageFile:
        """Raises: MessageExpunged, StoreUnavailable, NotCached."""
        if self.known is not None and (file := self.known.files.pop(uid, None)) is not None:
            return file
        if mailbox is None:
            raise NotCached
        return mailbox.open_message(uid)
