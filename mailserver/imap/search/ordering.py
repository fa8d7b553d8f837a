"""The order of messages that a search has found: sorted, or threaded; long work goes in steps of the account's thread."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import compress
from typing import Final, TypeVar, cast

from mailserver.imap.progress import ProgressReporter
from mailserver.imap.search.columns import SLICE
from mailserver.imap.search.evaluation import measure
from mailserver.imap.session import Session
from mailserver.store.columns import find_all
from mailserver.store.live.order_cache import KeptOrder
from mailserver.store.order import insertion
from mailserver.store.order.forest import Forest
from mailserver.store.order.references import Threaded, thread_by_references, thread_by_refs
from mailserver.store.order.sorting import ARRIVAL, RELEVANCY, SIZE, Program, needs, sort_messages, without_repeats
from mailserver.store.order.steps import Steps, Work
from mailserver.store.order.subjects import thread_by_subject
from mailserver.store.order.values import Source, read_columns, sent_dates
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE

T = TypeVar("T")

_FIELDS: Final = {
    "ORDEREDSUBJECT": ("sent", "subject"),
    "REFERENCES": ("sent", "message_id", "references", "subject", "is_reply"),
    "REFS": ("sent", "message_id", "references"),
}
"""The fields of SortKeys that each algorithm reads."""
ALGORITHMS: Final = frozenset(_FIELDS)


async def sort_positions(
    session: Session,
    positions: Sequence[int],
    program: Program,
    reporter: ProgressReporter,
    relevancies: Sequence[int] = (),
) -> Sequence[int]:
    """The positions of the view in the order of the program; `relevancies` of each, if it has that key."""
    program = without_repeats(program)
    view = session.view
    if needs(program, RELEVANCY):
        return [positions[at] for at in await _sort(session, positions, program, reporter, relevancies=relevancies)]
    if len(positions) * _PART < view.count:
        return [positions[at] for at in await _sort(session, positions, program, reporter)]
    order = await _whole_order(session, program, reporter)
    if len(positions) == view.count:
        return order
    wanted = bytearray(view.count)
    for number, at in enumerate(positions):
        wanted[at] = 1
        if number % SLICE == SLICE - 1:
            await session.channel.drain()
    found: list[int] = []
    for start in range(0, len(order), SLICE):
        part = order[start : start + SLICE]
        found += compress(part, map(wanted.__getitem__, part))
        await session.channel.drain()
    return found


_PART: Final = 4
"""Where fewer than one of so many messages are sorted, the order of all is not made."""


async def _whole_order(session: Session, program: Program, reporter: ProgressReporter) -> Sequence[int]:
    """The order of all messages of the view, which is kept, and extended by new messages."""
    view, live = session.view, session.mailbox.live
    orders = live.account.orders
    known = orders.order(live, program)
    if known is not None and known.uids is view.uids and known.count == view.count:
        return known.positions
    old: list[int] = []
    first_new = 0
    if known is not None and known.count:
        first_new = bisect_right(view.uids, known.uids[known.count - 1], 0, view.count)
        if view.count - first_new <= insertion.MOST:
            old = await _places(session, known)
    if len(old) < first_new or not first_new:
        return await _sort(session, range(view.count), program, reporter, keep=True)
    return await _sort(session, range(view.count), program, reporter, keep=True, old=old)


async def _places(session: Session, known: KeptOrder) -> list[int]:
    """The messages of a kept order that the view has, as positions of the view."""
    view = session.view
    if known.uids is view.uids and known.count <= view.count:
        return list(known.positions)
    places: list[int] = []
    for start in range(0, known.count, SLICE):
        found = find_all(view.uids, known.uids[start : min(start + SLICE, known.count)], view.count)
        places += found
        await session.channel.drain()
    old: list[int] = []
    for start in range(0, known.count, SLICE):
        old += [places[at] for at in known.positions[start : start + SLICE] if places[at] >= 0]
        await session.channel.drain()
    return old


async def _sort(
    session: Session,
    positions: Sequence[int],
    program: Program,
    reporter: ProgressReporter,
    *,
    keep: bool = False,
    old: list[int] | None = None,
    relevancies: Sequence[int] = (),
) -> list[int]:
    """Indexes into the positions in order; `old` is an order of the first of them. `keep` it for others."""
    arrivals: list[int] = []
    sizes: list[int] = []
    dated = measured = True
    if needs(program, ARRIVAL):
        arrivals, dated = await _measured(session, positions, "dates", reporter)
    if needs(program, SIZE):
        sizes, measured = await _measured(session, positions, "sizes", reporter)
    uids = _uids(session, positions)
    live, view = session.mailbox.live, session.view
    source = Source(live.mailbox)
    if old is None:
        work = sort_messages(source, uids, program, arrivals, sizes, relevancies=relevancies)
    else:
        work = insertion.insert_messages(source, uids, old, program, arrivals=arrivals, sizes=sizes)
    order = await _run(session, reporter, work, len(uids))
    if keep and dated and measured and source.is_complete:
        live.account.orders.keep_order(live, view, program, order)
    return order


async def thread_positions(
    session: Session, positions: Sequence[int], algorithm: str, reporter: ProgressReporter
) -> tuple[Forest, bool]:
    """The threads of messages at positions of the view, as indexes into `positions`; and whether all could be read."""
    arrivals: list[int] = []
    dated = True
    if algorithm == "REFS":
        arrivals, dated = await _measured(session, positions, "dates", reporter)
    source = Source(session.mailbox.live.mailbox)
    work = _thread(source, _uids(session, positions), algorithm, arrivals)
    forest = await _run(session, reporter, work, len(positions))
    return forest, dated and source.is_complete


def _thread(source: Source, uids: Sequence[UID], algorithm: str, arrivals: Sequence[int]) -> Work[Forest]:
    columns = yield from read_columns(source, uids, _FIELDS[algorithm])
    dates = yield from sent_dates(source, uids, columns[0])
    if algorithm == "ORDEREDSUBJECT":
        return (yield from thread_by_subject(columns[1], dates))
    if algorithm == "REFS":
        return (yield from thread_by_refs(Threaded(columns[1], columns[2], dates, arrivals=arrivals)))
    return (yield from thread_by_references(Threaded(columns[1], columns[2], dates, columns[3], columns[4])))


_SHORT: Final = 2000
"""Messages whose order does not wait for that of more."""
_WAIT: Final = 0.1
"""Seconds until a session looks again whether it may begin."""


async def _run(session: Session, reporter: ProgressReporter, work: Work[T], count: int) -> T:
    """Run the work, about `count` messages, when no work of that kind runs for the account.

    It may hold hundreds of megabytes, and the account's thread does one step at a time anyway: work begun at once by all
    sessions of an account would end no earlier.
    """
    live = session.mailbox.live
    running, kind = live.account.orders_running, "short" if count <= _SHORT else "long"
    while kind in running:
        reporter.start()
        reporter.probe()
        await session.channel.sleep(_WAIT)
    running.add(kind)
    try:
        steps = Steps(work)
        while not await live.run(lambda _mailbox: steps.step()):
            reporter.start()
            reporter.probe()
            await session.channel.drain()
        return steps.result
    finally:
        running.discard(kind)


def _uids(session: Session, positions: Sequence[int]) -> Sequence[UID]:
    uids = session.view.uids
    if isinstance(positions, range):
        return cast("Sequence[UID]", uids[positions.start : positions.stop])
    return [UID(uids[at]) for at in positions]


async def _measured(
    session: Session, positions: Sequence[int], name: str, reporter: ProgressReporter
) -> tuple[list[int], bool]:
    """INTERNALDATE ("dates") or size ("sizes") of each message, 0 where it is gone or unreadable; and whether none is unreadable.

    What the columns lack is read first.
    """
    unknown = UNKNOWN_DATE if name == "dates" else UNKNOWN_SIZE
    values = await _column(session, positions, name)
    is_complete = True
    lacking = [number for number, value in enumerate(values) if value == unknown]
    if lacking:
        missing = [positions[number] for number in lacking]
        await measure(session, missing, reporter, only_dates=name == "dates")
        for number, value in zip(lacking, await _column(session, missing, name), strict=True):
            values[number] = 0 if value == unknown else value
            is_complete = is_complete and value != unknown
    return values, is_complete


async def _column(session: Session, positions: Sequence[int], name: str) -> list[int]:
    values: list[int] = []
    for start in range(0, len(positions), SLICE):
        if start:
            await session.channel.drain()
        part = positions[start : start + SLICE]
        view = session.view
        column: Sequence[int] = getattr(view.columns, name)
        if not view.is_synced:
            place, uids = view.columns.position, view.uids
            values += [column[found] if (found := place(uids[at])) >= 0 else 0 for at in part]
        elif isinstance(part, range):
            values += column[part.start : part.stop]
        else:
            values += [column[at] for at in part]
    return values
