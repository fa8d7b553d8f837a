"""The evaluation of a search: in memory where flags, ranges, sizes and dates decide it, else by the store.

Both go in slices, between which the reactor's thread serves other clients.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from typing import Final, cast

from mailserver.errors import LimitReached
from mailserver.imap.message_limit import newest
from mailserver.imap.progress import ProgressReporter
from mailserver.imap.search.columns import plan
from mailserver.imap.search.objects import email_ids_of, resolve_email_ids
from mailserver.imap.search.saved import asks_save_dates, resolve_save_dates
from mailserver.imap.selected_mailbox import SearchScope
from mailserver.imap.session import Session
from mailserver.store.batch_size import BatchSize
from mailserver.store.interfaces import Mailbox, SearchRun
from mailserver.store.query import And, InUIDs, Query
from mailserver.store.rows import Row
from mailserver.store.view import View
from mailserver.types import UID

_MEASURED: Final = 1000
"""Messages whose files are searched in one turn of the account's thread at most."""
_MEASURED_FIRST: Final = 64
MAX_COMPARED: Final = 8 << 30
"""Octets of text times keys, beyond `store.search.FREE_NEEDLES`, that one search may compare; see TESTED there."""


class SearchWork:
    """The cost of one search."""

    def __init__(self) -> None:
        self._compared = 0
        self.expunged = False
        """Has the store left out messages because they no longer exist?"""

    def check(self, searching: SearchRun) -> None:
        """Raises: LimitReached for one that has compared more than any client needs."""
        if self._compared + searching.work > MAX_COMPARED:
            raise LimitReached("the search compares too much text: use fewer search keys")

    def add(self, searching: SearchRun) -> None:
        """Add the cost of another part of the mailbox."""
        self._compared += searching.work
        self.expunged |= searching.expunged


async def find(
    scope: SearchScope, query: Query, reporter: ProgressReporter, work: SearchWork | None = None
) -> tuple[Sequence[int], bool]:
    """The positions that match, rising; and whether messages were left out because they have been expunged.

    All positions between two are a range. `work`: that of the command so far, if it searches several mailboxes.
    """
    if asks_save_dates(query):
        query = await resolve_save_dates(scope, query)
    if email_ids := email_ids_of(query):
        query = await resolve_email_ids(scope, query, email_ids)
    view = scope.view
    how = plan(view, query)
    found: list[Sequence[int]] = []
    work = work or SearchWork()
    if how is None:
        return range(0), False
    for number, (low, high) in enumerate(how.slices()):
        if number:
            await scope.channel.drain()
        reporter.progress.done, reporter.progress.goal = low, view.count
        positions, unknown = how.evaluate(view, how.flagged(view, low, high))
        if unknown:
            await measure(scope, unknown, reporter, only_dates=how.only_dates)
            known, unknown = how.evaluate(view, unknown)
            positions = sorted([*positions, *known])
        if how.rest and positions:
            positions = await _ask_store(scope, positions, And(tuple(how.rest)), reporter, work)
        if unknown:
            # Gone, not readable, or larger than the column can hold.
            more = await _ask_store(scope, unknown, And((*how.facts, *how.rest)), reporter, work)
            positions = sorted([*positions, *more])
        found.append(positions)
    if work.expunged:
        # The next sync finds them.
        scope.searched.poked()
    joined = _joined(found)
    return joined, work.expunged or _leaves_out(view, how.ranges, joined)


def limited(session: Session, query: Query) -> tuple[Query, UID | None]:
    """Narrow a query to the newest of the messages that it names, as many as one command may search (RFC 9738 3.1).

    With it, the lowest UID that is searched; None if all are.
    """
    if not session.services.config.message_limit or (how := plan(session.view, query)) is None:
        return query, None
    _ranges, lowest = newest(session, how.ranges)
    return (query, None) if lowest is None else (And((InUIDs(((lowest, session.view.last_uid),)), query)), lowest)


def _joined(parts: Sequence[Sequence[int]]) -> Sequence[int]:
    first = parts[0] if parts else range(0)
    if isinstance(first, range):
        end = first.start
        for part in parts:
            if not isinstance(part, range) or part.start != end:
                break
            end = part.stop
        else:
            return range(first.start, end)
    joined: list[int] = []
    for part in parts:
        joined += part
    return joined


def numbers_of(scope: SearchScope, positions: Sequence[int], *, uids: bool) -> Sequence[int]:
    """Sequence numbers or UIDs of positions of the view."""
    view = scope.view
    if isinstance(positions, range):
        low, high = positions.start, positions.stop
        return view.uids[low:high] if uids else range(low + 1, high + 1)
    return [view.uids[at] for at in positions] if uids else [at + 1 for at in positions]


def _leaves_out(view: View, ranges: Sequence[tuple[int, int]], positions: Sequence[int]) -> bool:
    """Do the positions lack a message of the ranges that has been expunged, and whose EXPUNGE has not been sent?"""
    for uid in view.columns.expunged_flags(view.expunged_position):
        seq = view.seq(uid)
        if seq is None:
            continue
        after = bisect_left(ranges, (seq, 0))
        if after and seq <= ranges[after - 1][1]:
            at = bisect_left(positions, seq - 1)
            if at == len(positions) or positions[at] != seq - 1:
                return True
    return False


async def measure(
    scope: SearchScope, positions: Sequence[int], reporter: ProgressReporter, *, only_dates: bool
) -> None:
    """Read the sizes and dates that the columns of this worker lack, for all sessions that share them."""
    uids, live = scope.view.uids, scope.searched
    batch_size = BatchSize(_MEASURED, _MEASURED_FIRST, scope.channel.now)
    for count, places in enumerate(batch_size.parts(positions)):
        if count:
            reporter.start()
            await scope.channel.drain()
        part = [UID(uids[at]) for at in places]
        with batch_size:
            rows = await live.run(partial(_read_facts, part, only_dates))
        reporter.progress.done += len(part)
        for row in rows:
            live.columns.learn(row.uid, row.size, row.date)


def _read_facts(uids: Sequence[UID], only_dates: bool, mailbox: Mailbox) -> Sequence[Row]:
    return mailbox.measure(uids, only_dates=only_dates)


async def _ask_store(
    scope: SearchScope, positions: Sequence[int], query: Query, reporter: ProgressReporter, work: SearchWork
) -> Sequence[int]:
    """The positions that match; in several operations, so that others of the account get their turn and a client that is gone is noticed."""
    uids, live = scope.view.uids, scope.searched
    if isinstance(positions, range):
        candidates = cast("list[UID]", uids[positions.start : positions.stop].tolist())
    else:
        candidates = [UID(uids[at]) for at in positions]
    searching, matching = await live.run(partial(_begin, query, candidates))
    before = reporter.progress.done
    try:
        while matching is None:
            work.check(searching)
            reporter.start()
            reporter.progress.done = before + searching.looked_at
            reporter.probe()
            await scope.channel.drain()
            if searching.pause:
                await scope.channel.sleep(searching.pause)
            matching = await live.run(lambda _mailbox: searching.step())
        work.add(searching)
    finally:
        searching.close()
    if len(matching) == len(candidates):
        return positions
    return [positions[bisect_left(candidates, uid)] for uid in matching]


def _begin(query: Query, candidates: Sequence[UID], mailbox: Mailbox) -> tuple[SearchRun, Sequence[UID] | None]:
    searching = mailbox.start_search(query, candidates)
    return searching, searching.step()
