"""FETCH responses: from memory, from the index, from files (RFC 3501 7.4.2).

An item needs memory only (FLAGS, UID, INTERNALDATE, RFC822.SIZE), a row of the index (ENVELOPE, BODY, BODYSTRUCTURE, the
usual header fields), or a file. `cached.single_response` answers one message whose data is in memory; for all else there are
four ways:

*   Columns are formatted on the reactor's thread: one format string for hundreds of messages.
*   The index and files are read in the account's thread, until about CHUNK octets are ready or a few hundredths of a
    second have passed; the client takes them before the next operation. So a session holds one chunk, however much is asked
    for, other sessions of the account get their turn, and a client that is gone is noticed.
*   Cached messages (`store.live.MessageCache`) are answered on the reactor's thread, where few are asked for and little is to
    be examined (`budget`).
*   A message with more than CHUNK octets to send is sent in pieces of PIECE octets, each read when the last one has gone.

A message that is gone is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Final, NoReturn

from mailserver.errors import ConnectionLost, MailError, MessageExpunged
from mailserver.imap.fetch.cached import cached_responses
from mailserver.imap.fetch.message import LargeResponse
from mailserver.imap.fetch.open_message import LoadedMessage
from mailserver.imap.fetch.plan import CHUNK, FetchBatchSize, FetchPlan, Rows, gather, unmeasured, with_uids_only
from mailserver.imap.fetch.result import CachedData, FetchResult
from mailserver.imap.fetch.section import PIECE, Range, without_nul
from mailserver.imap.fetch.surrogate import original_of
from mailserver.imap.fetch.work import Work
from mailserver.imap.selected_mailbox import SelectedMailbox
from mailserver.imap.session import Session
from mailserver.imap.updates import keyword_lines
from mailserver.imap.wire import writer
from mailserver.store.flags import LETTERS

_FEW: Final = 64
_FLAG_OCTETS: Final = 512 * 1024
_REMEMBERED: Final = 256
"""Messages of one FETCH that are cached. A client that fetches a whole mailbox keeps it by itself."""


class _FlagTexts(dict[int, bytes]):
    """Flag lists by mask, made when first needed. It holds some hundred KiB, as a list with all keywords has 16."""

    def __init__(self, keywords: tuple[str, ...], *, recent: bool) -> None:
        super().__init__()
        self._keywords = keywords
        self._recent = recent
        self._octets = 0

    def __missing__(self, mask: int) -> bytes:
        text = writer.flags(mask, self._keywords, self._recent)
        self._octets += len(text)
        if self._octets > _FLAG_OCTETS:
            self.clear()
            self._octets = len(text)
        self[mask] = text
        return text


class FetchResponse:
    """The responses to one FETCH."""

    def __init__(self, session: Session, selected: SelectedMailbox, plan: FetchPlan, seen: frozenset[int]) -> None:
        self._session = session
        self._selected = selected
        self._plan = with_uids_only(plan) if "UIDONLY" in session.enabled else plan
        self._seen = seen
        self._remembers = False
        self.expunged = False
        """Has a message been left out because it no longer exists?"""
        self._is_heavy = False
        """Has it exceeded the budget of the reactor's thread before?"""
        self.error: MailError | None = None
        """The failure of another message."""

    async def write(self, ranges: Sequence[Range]) -> None:
        """Write all responses, as much at a time as the client takes."""
        plan, channel = self._plan, self._session.channel
        if plan.needs_summary or plan.needs_file or plan.lookups:
            batch_size = FetchBatchSize(_FEW)
            self._remembers = sum(high - low for low, high in ranges) <= _REMEMBERED
            for gathered in gather(self._selected, ranges, batch_size):
                rows = gathered
                if plan.common_section is not None and (done := await self._write_cached(rows)):
                    if done == len(rows.uids):
                        continue
                    rows = rows.part(done, len(rows.uids))
                weight = await self._from_store(rows)
                if not plan.needs_file:
                    batch_size.weigh(weight)
            return
        size = 0
        # The flag list of one message may have 16 KiB.
        is_wide = len(self._selected.view.columns.keywords) > LETTERS
        for rows in gather(self._selected, ranges, FetchBatchSize(_FEW) if is_wide else FetchBatchSize()):
            if plan.measured and unmeasured(rows):
                await self._from_store(rows)
                continue
            self._note(rows)
            text = plan.line * len(rows.uids) % tuple(chain.from_iterable(zip(*self.columns(rows), strict=True)))
            channel.write(text)
            size += len(text)
            if size >= CHUNK:
                size = 0
                await channel.drain()

    async def _write_cached(self, rows: Rows) -> int:
        """Write the responses of the first of these messages, as long as they are in memory; return their number."""
        if (self._seen and not self._plan.has_flags) or (self._plan.measured and unmeasured(rows)):
            return 0
        self._note(rows)
        channel = self._session.channel
        done = size = 0
        for response in cached_responses(self._selected, self._plan, rows, self.columns(rows), utf8=self._session.utf8):
            channel.write(response)
            done += 1
            size += len(response)
            if size >= PIECE:
                size = 0
                await channel.drain()
        return done

    def _note(self, rows: Rows) -> None:
        if rows.gone:
            self.expunged = True

    def columns(self, rows: Rows) -> list[Sequence[object]]:
        """The values for the plan's line of those messages, where it needs nothing but columns."""
        plan = self._plan
        flags = self._flags(rows) if plan.has_flags else ()
        dates = list(map(writer.date_time, rows.dates)) if plan.has_dates else ()
        columns: tuple[Sequence[object], ...] = (rows.seqs, flags, rows.uids, rows.sizes, dates, rows.modseqs)
        return list(map(columns.__getitem__, plan.column_places))

    def _flags(self, rows: Rows) -> list[bytes]:
        """The flag lists. A new keyword is announced first."""
        if lines := keyword_lines(self._selected):
            self._session.channel.write(lines)
        view = self._selected.view
        keywords = view.columns.keywords
        plain, recent = _FlagTexts(keywords, recent=False), _FlagTexts(keywords, recent=True)
        lists: list[bytes] = []
        for low, high, is_recent in view.recent_uids.parts(rows.uids):
            texts = recent if is_recent else plain
            lists += [texts[mask] for mask in rows.masks[low:high]]
        return lists

    async def _from_store(self, rows: Rows) -> int:
        """Answer from the index or from files, about CHUNK octets an operation; return the octets of the summaries."""
        live, channel = self._selected.live, self._session.channel
        self._note(rows)
        flags = self._flags(rows) if self._plan.has_flags or self._seen else ()
        work = Work(
            (self._session.user, live.id), self._plan, rows, flags=flags, seen=self._seen, utf8=self._session.utf8
        )
        work.is_heavy = self._is_heavy
        start = 0
        while start < len(rows.uids):
            ready = await self._ask(work, rows, start)
            start += ready.done
            for row in ready.learned:
                live.columns.learn(row.uid, row.size, row.date)
            if isinstance(ready.error, MessageExpunged):
                self.expunged = True
            else:
                self.error = self.error or ready.error
            channel.write(ready.data)
            if ready.large is not None:
                await self._send_large(ready.large)
            await channel.drain()
        self._is_heavy = work.is_heavy
        return work.weight

    async def _ask(self, work: Work, rows: Rows, start: int) -> FetchResult:
        """Run one operation, or none. Cached files are given back before the wait for the client."""
        known = None
        if self._remembers:
            known = work.known = self._take_known(work, rows, start)
        elif self._plan.needs_file:
            work.known = CachedData(read=self._selected.live.mailbox.read_cached)
        try:
            ready = work.run_now(start)
            if ready is None:
                work.known = known
                ready = await self._selected.live.run(partial(work.run, start))
        finally:
            work.known = None
            if known is not None:
                self._keep(known)
        return ready

    def _take_known(self, work: Work, rows: Rows, start: int) -> CachedData:
        """Take the messages from `start` on out of the worker's cache, with about CHUNK octets of texts."""
        plan, live = self._plan, self._selected.live
        cache, known = live.account.message_cache, CachedData(read=live.mailbox.read_cached)
        if plan.needs_summary and not work.has_decided(start):
            known.summaries.update(cache.summaries(live, rows.uids[start:]))
        if not plan.needs_file and not any(item.section for item in plan.items):
            return known
        left = CHUNK
        for uid in rows.uids[start:]:
            if left <= 0:
                break
            if (text := cache.text(live, uid)) is not None:
                known.texts[uid] = text
                left -= len(text)
            elif (file := cache.take_file(live, uid)) is not None:
                known.files[uid] = file
        return known

    def _keep(self, known: CachedData) -> None:
        live = self._selected.live
        cache = live.account.message_cache
        cache.keep_summaries(live, known.summaries)
        for uid, text in known.texts.items():
            cache.keep_text(live, uid, text)
        for uid, file in known.files.items():
            cache.give_file(live, uid, file)

    async def _read(self, large: LargeResponse, at: int, count: int) -> bytes:
        """Octets of a large message; none where they can no longer be read."""
        data = large.file.read_now(at, count)
        if data is not None:
            return data
        try:
            return await self._selected.live.account.run(partial(large.file.read, at, count))
        except MailError:
            return b""

    async def _send_large(self, large: LargeResponse) -> None:
        """Send all of it; what is not made yet is made in further turns of the account's thread."""
        live = self._selected.live
        try:
            await self._send_pieces(large)
            while large.rest is not None:
                try:
                    await live.account.run(large.go_on)
                except MailError:
                    self._break_off()
                await self._send_pieces(large)
        finally:
            file = original_of(large.file)
            if isinstance(file, LoadedMessage):
                file.close()
            elif self._remembers:
                live.account.message_cache.give_file(live, large.uid, file)
            else:
                await live.account.run(file.close)

    async def _send_pieces(self, large: LargeResponse) -> None:
        channel = self._session.channel
        for piece in large.pieces:
            if isinstance(piece, bytes):
                channel.write(piece)
                await channel.drain()
                continue
            at, end = piece
            while at < end:
                count = min(PIECE, end - at)
                data = await self._read(large, at, count)
                if not data:
                    self._break_off()
                channel.write(without_nul(data))
                at += len(data)
                await channel.drain()

    def _break_off(self) -> NoReturn:
        """End the connection: the client has the literal's size, and would wait for the rest. Raises: ConnectionLost."""
        channel = self._session.channel
        channel.log("message-truncated", user=self._session.user)
        channel.close()
        raise ConnectionLost
