"""SEARCH (RFC 3501 6.4.4, 7.2.5) and its RETURN options (RFC 4466 2.6, RFC 4731).

Flags, ranges, sizes and dates are answered from memory, anything else by the store: both in slices, between which the
reactor's thread serves other clients.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from typing import Final, cast

from mailserver.errors import BadSyntax, LimitReached
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.progress import ProgressReporter
from mailserver.imap.search.columns import SLICE, plan
from mailserver.imap.search.keys import SearchParser, at_set, read_codec, read_keys
from mailserver.imap.session import Session
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.sequence_set import format_runs, runs
from mailserver.session.cost import BOTH, Cost
from mailserver.store.batch_size import BatchSize
from mailserver.store.interfaces import Mailbox, SearchRun
from mailserver.store.query import And, Query
from mailserver.store.rows import Row
from mailserver.store.view import View
from mailserver.types import UID

_MEASURED: Final = 1000
"""Messages whose files are searched in one turn of the account's thread at most."""
_MEASURED_FIRST: Final = 64
MAX_COMPARED: Final = 8 << 30
"""Octets of text times keys, beyond `store.search.FREE_NEEDLES`, that one SEARCH may compare; see TESTED there."""
RETURN_OPTIONS: Final = ("MIN", "MAX", "ALL", "COUNT")


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


async def search(session: Session, command: Command) -> str | None:
    """SEARCH, UID SEARCH (RFC 3501 6.4.4, RFC 4731)."""
    reader = command.reader
    parser = SearchParser(reader, session)
    reader.read_sp()
    options = None
    word = None if reader.peek(b"(") or at_set(reader) else reader.read_word()
    if word == "RETURN":
        reader.read_sp()
        options = _read_return(reader)
        reader.read_sp()
        word = None if reader.peek(b"(") or at_set(reader) else reader.read_word()
    if word == "CHARSET":
        reader.read_sp()
        parser.codec = read_codec(reader)
        reader.read_sp()
        word = None
    query = read_keys(parser, word)
    reader.read_end()
    with ProgressReporter(session, command) as reporter:
        numbers, expunged = await _find(session, query, reporter, uids=command.uid)
    if options is None:
        session.write(await _numbers(session, numbers))
    else:
        session.write(await _extended(session, command, options, numbers))
    return "[EXPUNGEISSUED] some of the messages no longer exist" if expunged else None


COMMANDS = (
    CommandSpec(
        "SEARCH",
        State.SELECTED,
        search,
        uses_sequence_numbers=True,
        capabilities=("ESEARCH",),
        reference="RFC 3501, RFC 4731",
        uid_form=True,
        cost=Cost("messages times keys, octets of the messages times text keys; up to 8 GiB beyond 20 keys", BOTH),
    ),
)


class _Work:
    """The cost of one SEARCH."""

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


async def _find(session: Session, query: Query, reporter: ProgressReporter, *, uids: bool) -> tuple[list[int], bool]:
    """The numbers of the messages that match, rising; and whether messages were left out because they have been expunged."""
    view = session.view
    how = plan(view, query)
    numbers: list[int] = []
    work = _Work()
    if how is None:
        return numbers, False
    for number, (low, high) in enumerate(how.slices()):
        if number:
            await session.channel.drain()
        reporter.progress.done, reporter.progress.goal = low, view.count
        positions, unknown = how.evaluate(view, how.flagged(view, low, high))
        if unknown:
            await _measure(session, unknown, reporter, only_dates=how.only_dates)
            known, unknown = how.evaluate(view, unknown)
            positions = sorted([*positions, *known])
        if how.rest and positions:
            positions = await _ask_store(session, positions, And(tuple(how.rest)), reporter, work)
        if unknown:
            # Gone, not readable, or larger than the column can hold.
            found = await _ask_store(session, unknown, And((*how.facts, *how.rest)), reporter, work)
            positions = sorted([*positions, *found])
        if uids:
            numbers += (
                view.uids[positions.start : positions.stop]
                if isinstance(positions, range)
                else [view.uids[at] for at in positions]
            )
        else:
            numbers += [at + 1 for at in positions]
    if work.expunged:
        # The next sync finds them.
        session.mailbox.live.poked()
    return numbers, work.expunged or _leaves_out(view, how.ranges, numbers, uids=uids)


def _leaves_out(view: View, ranges: Sequence[tuple[int, int]], numbers: Sequence[int], *, uids: bool) -> bool:
    """Do the numbers lack a message of the ranges that has been expunged, and whose EXPUNGE has not been sent?"""
    for uid in view.columns.expunged_flags(view.expunged_position):
        seq = view.seq(uid)
        if seq is None:
            continue
        after = bisect_left(ranges, (seq, 0))
        if after and seq <= ranges[after - 1][1]:
            number = uid if uids else seq
            at = bisect_left(numbers, number)
            if at == len(numbers) or numbers[at] != number:
                return True
    return False


async def _measure(session: Session, positions: Sequence[int], reporter: ProgressReporter, *, only_dates: bool) -> None:
    """Read the sizes and dates that the columns of this worker lack, for all sessions that share them."""
    uids, live = session.view.uids, session.mailbox.live
    batch_size = BatchSize(_MEASURED, _MEASURED_FIRST, session.channel.now)
    for count, places in enumerate(batch_size.parts(positions)):
        if count:
            reporter.start()
            await session.channel.drain()
        part = [UID(uids[at]) for at in places]
        with batch_size:
            rows = await live.run(partial(_read_facts, part, only_dates))
        reporter.progress.done += len(part)
        for row in rows:
            live.columns.learn(row.uid, row.size, row.date)


def _read_facts(uids: Sequence[UID], only_dates: bool, mailbox: Mailbox) -> Sequence[Row]:
    return mailbox.measure(uids, only_dates=only_dates)


async def _ask_store(
    session: Session, positions: Sequence[int], query: Query, reporter: ProgressReporter, work: _Work
) -> Sequence[int]:
    """The positions that match; in several operations, so that others of the account get their turn and a client that is gone is noticed."""
    uids, live = session.view.uids, session.mailbox.live
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
            await session.channel.drain()
            if searching.pause:
                await session.channel.sleep(searching.pause)
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


async def _numbers(session: Session, numbers: Sequence[int]) -> bytes:
    """The SEARCH response (RFC 3501 7.2.5)."""
    pieces = [b"* SEARCH"]
    for start in range(0, len(numbers), SLICE):
        if start:
            await session.channel.drain()
        part = tuple(numbers[start : start + SLICE])
        pieces.append(b" %d" * len(part) % part)
    pieces.append(b"\r\n")
    return b"".join(pieces)


async def _extended(session: Session, command: Command, options: frozenset[str], numbers: Sequence[int]) -> bytes:
    """The ESEARCH response (RFC 4466 2.6.2, RFC 4731 3.1): for an empty result only COUNT."""
    pieces = [b'* ESEARCH (TAG "%b")' % command.tag.encode("ascii")]
    if command.uid:
        pieces.append(b"UID")
    if numbers:
        if "MIN" in options:
            pieces.append(b"MIN %d" % numbers[0])
        if "MAX" in options:
            pieces.append(b"MAX %d" % numbers[-1])
        if "ALL" in options:
            pieces.append(b"ALL " + await _set(session, numbers))
    if "COUNT" in options:
        pieces.append(b"COUNT %d" % len(numbers))
    return b" ".join(pieces) + b"\r\n"


async def _set(session: Session, numbers: Sequence[int]) -> bytes:
    """Rising numbers (at least one) as a set; a run goes on from one slice to the next."""
    pieces = []
    open_ = (numbers[0], numbers[0])
    for start in range(0, len(numbers), SLICE):
        if start:
            await session.channel.drain()
        found = list(runs(numbers[start : start + SLICE]))
        if found[0][0] <= open_[1] + 1:
            found[0] = (open_[0], found[0][1])
        else:
            found.insert(0, open_)
        open_ = found.pop()
        if found:
            pieces.append(format_runs(found))
    return b",".join([*pieces, format_runs([open_])])
