"""QRESYNC (RFC 7162 3.2): a client that comes back gets what changed since a modseq, expunged messages included.

The store remembers expunges back to some modseq (`Mailbox.expunged_since`). Before that, all UIDs that the client may know and
that are not in the view are reported as vanished, which 3.2.6 asks for. Messages that are in the view and were expunged since
are not: VANISHED without EARLIER reports them, in their turn, as it moves sequence numbers (3.2.10).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from attrs import frozen

from mailserver.errors import BadSyntax
from mailserver.imap import condstore
from mailserver.imap.capabilities import Capability
from mailserver.imap.fetch.plan import FetchPlan, Item, Need
from mailserver.imap.fetch.response import FetchResponse
from mailserver.imap.session import Session
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.sequence_set import STAR, SequenceSet, format_runs, runs
from mailserver.store.columns import find_all
from mailserver.store.interfaces import Mailbox
from mailserver.store.view import View
from mailserver.types import ModSeq

_PLAN: Final = FetchPlan((Item(b"UID", Need.COLUMN), Item(b"FLAGS", Need.COLUMN), Item(b"MODSEQ", Need.COLUMN)))
_UIDONLY_PLAN: Final = FetchPlan(_PLAN.items[1:])
_LINE: Final = 1000
"""Ranges in one VANISHED response: some 8 KiB or 20 KiB, which clients take."""
_TURN: Final = 10
"""VANISHED responses that are made at a time."""
_DENSE: Final = 1000
"""Messages that are tested at once for having no UID missing between them."""

Ranges = Sequence[tuple[int, int]]
"""Rising ranges that do not touch, both ends included."""


@frozen
class Resync:
    """The QRESYNC parameter of SELECT (RFC 7162 3.2.5)."""

    uid_validity: int
    modseq: ModSeq
    known: Ranges | None
    """The UIDs that the client knows; None: all that there were."""
    pairs: tuple[Ranges, Ranges]
    """Message numbers and the UIDs that they have for the client: as many numbers on both sides."""


def enable(session: Session) -> None:
    """Do what ENABLE QRESYNC does (RFC 7162 3.2.3)."""
    condstore.enable(session)


def read_parameter(reader: Reader) -> Resync:
    """SP and the value of QRESYNC. Raises: BadSyntax, LimitReached."""
    reader.read_sp()
    reader.take(b"(")
    uid_validity = reader.read_number()
    reader.read_sp()
    modseq = condstore.read_modseq(reader)
    known: Ranges | None = None
    pairs: tuple[Ranges, Ranges] = (), ()
    if reader.skip(b" "):
        if not reader.peek(b"("):
            known = _read_set(reader).ranges(0)
        if known is None or reader.skip(b" "):
            pairs = _read_pairs(reader)
    reader.take(b")")
    return Resync(uid_validity, modseq, known, pairs)


def _read_pairs(reader: Reader) -> tuple[Ranges, Ranges]:
    """`seq-match-data`."""
    reader.take(b"(")
    numbers = _rising(_read_set(reader))
    reader.read_sp()
    uids = _rising(_read_set(reader))
    reader.take(b")")
    if _count(numbers) != _count(uids):
        raise BadSyntax("there are not as many message numbers as UIDs")
    return numbers, uids


def _read_set(reader: Reader) -> SequenceSet:
    """A sequence set without `*`."""
    found = reader.read_sequence_set()
    if any(STAR in element for element in found.elements):
        raise BadSyntax("* is not allowed here")
    return found


def _rising(found: SequenceSet) -> Ranges:
    ends = [end for element in found.elements for end in element]
    if any(later <= earlier for earlier, later in zip(ends[1::2], ends[2::2], strict=False)) or any(
        low > high for low, high in found.elements
    ):
        raise BadSyntax("the numbers must be in ascending order")
    return found.elements


def _count(ranges: Ranges) -> int:
    return sum(high - low + 1 for low, high in ranges)


async def resynchronize(session: Session, resync: Resync) -> None:
    """Send what changed in the mailbox that has just been opened since the client saw it (RFC 7162 3.2.5).

    Nothing for another UIDVALIDITY. A modseq that the mailbox has not had yet is one of another history: all is sent.
    """
    selected, view = session.mailbox, session.view
    columns = view.columns
    if resync.uid_validity != columns.uid_validity or resync.modseq == columns.modseq:
        return
    known = _clip(((1, columns.uid_next - 1),) if resync.known is None else resync.known, columns.uid_next - 1)
    since = resync.modseq if resync.modseq < columns.modseq else ModSeq(0)
    await write_vanished(session, resync.modseq, known, above=highest_match(view, *resync.pairs))
    plan = _UIDONLY_PLAN if "UIDONLY" in session.enabled else _PLAN
    await FetchResponse(session, selected, plan, frozenset()).write(
        await condstore.changed(session, _positions(view, known), since)
    )


async def fetch_vanished(session: Session, modseq: ModSeq, uids: SequenceSet) -> ModSeq:
    """Send the expunges of UID FETCH (CHANGEDSINCE VANISHED) (RFC 7162 3.2.6).

    Returns the modseq for the changed messages: 0 for one that the mailbox has not had yet. Raises: MailError.
    """
    live, columns = session.mailbox.live, session.view.columns
    if modseq > columns.modseq:
        live.poked()
        await live.catch_up()
    last = columns.uid_next - 1
    await write_vanished(session, modseq, _clip(uids.ranges(last), last))
    return modseq if modseq <= columns.modseq else ModSeq(0)


async def write_vanished(session: Session, modseq: ModSeq, known: Ranges, *, above: int = 0) -> None:
    """Send VANISHED (EARLIER) for those of the known UIDs beyond `above` that were expunged after that modseq.

    What is not in memory is read and compared in the account's thread, some responses at a time.
    """
    view, live = session.view, session.mailbox.live
    known = [(max(low, above + 1), high) for low, high in known if high > above]
    if not known:
        return
    recent = view.columns.recent_expunges.after(modseq) if modseq <= view.columns.modseq else None
    ranges = runs(_gone(view, known, recent)) if recent is not None else _vanished(live.mailbox, view, known, modseq)
    while True:
        lines = _next_lines(ranges) if recent is not None else await live.run(lambda _mailbox: _next_lines(ranges))
        session.write(b"".join(lines))
        if len(lines) < _TURN:
            return
        await session.channel.drain()


def _vanished(mailbox: Mailbox, view: View, known: Ranges, modseq: ModSeq) -> Iterator[tuple[int, int]]:
    """Ranges of the known UIDs that were expunged, rising. It is begun in the account's thread."""
    expunged = mailbox.expunged_since(modseq)
    yield from _missing(view, known) if expunged is None else runs(_gone(view, known, array("I", expunged)))


def _next_lines(ranges: Iterator[tuple[int, int]]) -> list[bytes]:
    """The next responses: _TURN of them, or fewer at the end."""
    lines: list[bytes] = []
    while len(lines) < _TURN and (line := list(islice(ranges, _LINE))):
        lines.append(b"* VANISHED (EARLIER) %b\r\n" % format_runs(line))
    return lines


def _clip(ranges: Ranges, last: int) -> Ranges:
    return [(low, min(high, last)) for low, high in ranges if low <= last]


def _positions(view: View, ranges: Ranges) -> list[tuple[int, int]]:
    """Half-open ranges of positions for ranges of UIDs."""
    uids, count = view.uids, view.count
    found = [(bisect_left(uids, low, 0, count), bisect_right(uids, high, 0, count)) for low, high in ranges]
    return [(low, high) for low, high in found if low < high]


def _gone(view: View, known: Ranges, expunged: array[int]) -> Iterator[int]:
    """The known UIDs among the expunged ones (rising) that are not in the view, rising."""
    for low, high in known:
        part = expunged[bisect_left(expunged, low) : bisect_right(expunged, high)]
        places = find_all(view.uids, part, view.count)
        if not isinstance(places, range):
            yield from (uid for uid, at in zip(part, places, strict=True) if at < 0)


def _missing(view: View, known: Ranges) -> Iterator[tuple[int, int]]:
    """Ranges of the known UIDs that are not in the view, rising."""
    uids, count = view.uids, view.count
    for low, high in known:
        expected = low
        at, end = bisect_left(uids, low, 0, count), bisect_right(uids, high, 0, count)
        for start in range(at, end, _DENSE):
            part = uids[start : min(start + _DENSE, end)]
            if part[0] != expected or part[-1] - part[0] != len(part) - 1:
                for uid in part:
                    if uid != expected:
                        yield expected, uid - 1
                    expected = uid + 1
            expected = part[-1] + 1
        if expected <= high:
            yield expected, high


def highest_match(view: View, numbers: Ranges, uids: Ranges) -> int:
    """The highest UID that has the message number in the view that the client says (RFC 7162 3.2.5.2); 0 if none has."""
    best = 0
    for seq, uid, count in _stretches(numbers, uids):
        count = min(count, view.count - seq + 1)  # noqa: PLW2901
        if count <= 0:
            break
        # UIDs rise at least as fast as numbers, so the messages that match are neighbours.
        offsets = range(seq - 1, seq - 1 + count)
        at = bisect_right(offsets, uid - seq, key=lambda position: view.uids[position] - position - 1) - 1
        if at >= 0 and view.uids[seq - 1 + at] == uid + at:
            best = uid + at
    return best


def _stretches(numbers: Ranges, uids: Ranges) -> Iterator[tuple[int, int, int]]:
    """First number, first UID and length of each stretch in which both rise by one."""
    rest_numbers, rest_uids = iter(numbers), iter(uids)
    seq, seq_end = next(rest_numbers, (1, 0))
    uid, uid_end = next(rest_uids, (1, 0))
    while seq <= seq_end and uid <= uid_end:
        count = min(seq_end - seq, uid_end - uid) + 1
        yield seq, uid, count
        seq, uid = seq + count, uid + count
        if seq > seq_end:
            seq, seq_end = next(rest_numbers, (1, 0))
        if uid > uid_end:
            uid, uid_end = next(rest_uids, (1, 0))


QRESYNC = Capability("QRESYNC", "RFC 7162", __name__, "qresync", enable=enable)
