"""Updates of search results: RETURN (UPDATE), with ADDTO and REMOVEFROM responses (RFC 5267 4.3).

A context has the UIDs of its result, and its place in the mailbox's logs of changes: after a change only the messages
that it concerns are searched again, and only new ones where no key is about flags. Expunged messages leave a result
before their EXPUNGE is sent, all other changes come after their EXISTS and FETCH, so that sequence numbers are valid.

Updates that would cost too much are refused with NOUPDATE: beyond MAX_CONTEXTS and MAX_RESULTS, for sorted results
beyond MAX_SORTED, whose places are counted, and for keys that concern more than new messages and flags.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

from attrs import define, evolve, frozen

from mailserver.errors import BadSyntax, Cancelled, Cannot, LimitReached, MailboxChanged, MailError
from mailserver.imap.command import Command
from mailserver.imap.progress import SilentReporter
from mailserver.imap.search.columns import SLICE
from mailserver.imap.search.evaluation import find
from mailserver.imap.search.ordering import sort_positions
from mailserver.imap.search.parser import SearchParser
from mailserver.imap.search.results import Options
from mailserver.imap.selected_mailbox import SelectedMailbox, WantedItems
from mailserver.imap.session import Session
from mailserver.imap.uidonly import UIDONLY
from mailserver.imap.wire.sequence_set import format_set, runs
from mailserver.imap.wire.writer import quoted
from mailserver.store.order.sorting import RELEVANCY, Program, needs
from mailserver.store.query import And, ChangedSince, HasFlag, InUIDs, Query, Saved, WithEmailId, leaves
from mailserver.store.view import View

MAX_CONTEXTS: Final = 16
"""Of a session."""
MAX_RESULTS: Final = 1_000_000
"""Messages in all results of a session, four octets each."""
MAX_SORTED: Final = 20_000
"""Messages in all sorted results of a session: each addition sorts its result again."""


FetchNew = Callable[[Session, SelectedMailbox, Sequence[WantedItems], Container[int]], Awaitable[None]]
"""Sends FETCH responses for new messages, but for those that the client has put there: `imap.new_messages`."""


@frozen
class Mark:
    """A place in the logs of a mailbox: what has happened up to it is in a result."""

    changed: int
    expunged: int
    last_uid: int

    @classmethod
    def of(cls, view: View) -> Mark:
        """The present place: that up to which the view has reported expunges and new messages."""
        return cls(view.columns.changed_end, view.expunged_position, view.last_uid)


@define(eq=False)
class Context:
    """One result that is kept up to date."""

    tag: str
    uid: bool
    """The updates have UIDs."""
    query: Query
    program: Program | None
    """None: the result is in the mailbox's order."""
    uids: array[int]
    """The result, in its order."""
    mark: Mark
    has_flags: bool
    """A key is about flags."""
    items: tuple[Any, ...] = ()
    """To be fetched of each new message of the result (RFC 5465 7)."""
    of_several: bool = False
    """The responses name the mailbox."""


def check_update(session: Session, command: Command, options: Options | None) -> Mark:
    """Refuse UPDATE with a tag that has a context, and return the place where updates begin. Raises: BadSyntax."""
    contexts = session.mailbox.result_updates
    if options is not None and "UPDATE" in options and isinstance(contexts, Contexts) and contexts.has(command.tag):
        raise BadSyntax("the tag is that of a search with UPDATE")
    return Mark.of(session.view)


def open_context(
    command: Command,
    parser: SearchParser,
    query: Query,
    program: Program | None,
    found: tuple[Mark, Sequence[int]],
    *,
    items: tuple[Any, ...],
    fetch: FetchNew,
    of_several: bool = False,
) -> None:
    """Keep a result up to date, or refuse it; `found` has the place that `check_update` gave, and the positions in order.

    `of_several`: the responses name the mailbox (RFC 7377 2.1).
    """
    session = parser.session
    selected = session.mailbox
    if not isinstance(selected.result_updates, Contexts):
        selected.result_updates = Contexts(session, fetch)
    mark, positions = found
    uids = selected.view.uids
    kinds = {type(key) for key in leaves(query)}
    reason = parser.not_followed or selected.result_updates.refusal(len(positions), is_sorted=program is not None)
    if not kinds.isdisjoint(_NOT_FOLLOWED):
        reason = "modseqs, save dates and identifiers cannot be followed"
    if program is not None and needs(program, RELEVANCY):
        reason = "an order by relevancy cannot be followed"
    if reason:
        refuse_update(session, command.tag, reason)
        return
    result = (
        uids[positions.start : positions.stop]
        if isinstance(positions, range)
        else array("I", [uids[at] for at in positions])
    )
    context = Context(
        command.tag,
        command.uid,
        query,
        program,
        result,
        mark,
        has_flags=HasFlag in kinds,
        items=items,
        of_several=of_several,
    )
    selected.result_updates.add(context)


_NOT_FOLLOWED: Final = (ChangedSince, Saved, WithEmailId)
"""Keys whose evaluation reads all messages, or whose facts change without a change of flags."""


def refuse_update(session: Session, tag: str, reason: str) -> None:
    """Send that a result is not kept up to date (RFC 5267 4.3.3)."""
    session.untagged(b"NO [NOUPDATE %b] %b" % (quoted(tag.encode("ascii")), reason.encode("ascii", "replace")))


class Contexts:
    """The contexts of a session in the selected mailbox (`selected_mailbox.ResultUpdates`)."""

    def __init__(self, session: Session, fetch: FetchNew) -> None:
        self._session = session
        self._fetch = fetch
        self._contexts: dict[str, Context] = {}
        self._wanted: list[WantedItems] = []
        """To be fetched of new messages."""
        self._kept: list[bytes] | None = None
        """Responses that follow FETCH responses; None: they are sent at once."""

    def has(self, tag: str) -> bool:
        """Is there a context of that tag?"""
        return tag in self._contexts

    def refusal(self, messages: int, *, is_sorted: bool) -> str:
        """Return why a result of so many messages is not kept up to date, or nothing."""
        if len(self._contexts) >= MAX_CONTEXTS:
            return "too many contexts"
        return self._excess(messages, is_sorted=is_sorted)

    def _excess(self, more: int, *, is_sorted: bool) -> str:
        """The bound that so many more messages exceed, or nothing."""
        contexts = self._contexts.values()
        if is_sorted and more + sum(len(each.uids) for each in contexts if each.program is not None) > MAX_SORTED:
            return "too many sorted messages"
        return "too many messages" if more + sum(len(each.uids) for each in contexts) > MAX_RESULTS else ""

    def add(self, context: Context) -> None:
        """Report the changes of a result from now on."""
        self._contexts[context.tag] = context

    def cancel(self, tags: Collection[str]) -> None:
        """End the updates of these tags. Raises: Cannot if one has none."""
        if not self._contexts.keys() >= set(tags):
            raise Cannot("no search with UPDATE has that tag")
        for tag in tags:
            del self._contexts[tag]

    async def report_expunged(self) -> None:
        """Send REMOVEFROM for expunged messages, whose sequence numbers still hold. Raises: ConnectionLost.

        When it returns, all that are expunged at that moment have been sent.
        """
        columns = self._session.view.columns
        work = 0
        while behind := [each for each in self._contexts.values() if each.mark.expunged != columns.expunged_end]:
            for context in behind:
                first = context.mark.expunged - columns.expunged_start
                gone = columns.expunged[first : first + SLICE]
                context.mark = evolve(context.mark, expunged=context.mark.expunged + len(gone))
                self._remove(context, gone)
                work += len(gone) + (0 if context.program is None else len(context.uids))
                if work > SLICE:
                    work = 0
                    await self._session.channel.drain()

    def _remove(self, context: Context, gone: Collection[int]) -> None:
        """Take messages out of a result, if they are in it, and send that."""
        if context.program is None:
            leaving = _among(context.uids, gone)
            if leaving:
                context.uids = _without(context.uids, leaving)
                self._write(context, b"REMOVEFROM", [(0, leaving)])
            return
        out = set(gone)
        # From the last one on, so that the places before it stay.
        pairs = _runs_of(context.uids, out)[::-1]
        if pairs:
            context.uids = array("I", [uid for uid in context.uids if uid not in out])
            self._write(context, b"REMOVEFROM", pairs)

    def _write(self, context: Context, name: bytes, pairs: Sequence[tuple[int, list[int]]]) -> None:
        # UIDONLY may have been enabled since the search (RFC 9586 3).
        by_uid = context.uid or UIDONLY.token in self._session.enabled
        parts = [b"%d %b" % (place, format_set(uids if by_uid else self._numbers(uids))) for place, uids in pairs]
        line = b"%b%b %b (%b)\r\n" % (self._head(context), b" UID" if by_uid else b"", name, b" ".join(parts))
        if self._kept is None:
            self._session.write(line)
        else:
            self._kept.append(line)

    def _head(self, context: Context) -> bytes:
        session, correlators = self._session, b""
        if context.of_several:
            name = session.mailbox_octets(session.mailbox.live.mailbox.name)
            correlators = b" MAILBOX %b UIDVALIDITY %d" % (name, session.view.columns.uid_validity)
        return b"* ESEARCH (TAG %b%b)" % (quoted(context.tag.encode("ascii")), correlators)

    def _numbers(self, uids: Sequence[int]) -> Sequence[int]:
        view = self._session.view
        return [number for uid in uids if (number := view.seq(uid)) is not None]

    async def report_changed(self) -> None:
        """Send ADDTO and REMOVEFROM for new messages, and for changed flags. Raises: MailboxChanged, ConnectionLost.

        FETCH responses come before them (RFC 5465 7). A client that has asked for some by NOTIFY, too, gets one for a message,
        and after ADDTO (5.2): they are left to `take_wanted`.
        """
        events = self._session.selected_events
        if events.fetch_new is not None or not any(context.items for context in self._contexts.values()):
            await self._update_all()
            return
        kept = self._kept = []
        try:
            await self._update_all()
        finally:
            self._kept = None
        await self._fetch(self._session, self._session.mailbox, self.take_wanted(), events.own)
        self._session.write(b"".join(kept))

    def take_wanted(self) -> Sequence[WantedItems]:
        """Return the items of new messages that have been added to results, once."""
        wanted, self._wanted = self._wanted, []
        return wanted

    async def _update_all(self) -> None:
        for context in tuple(self._contexts.values()):
            try:
                await self._update(context)
            except (MailboxChanged, Cancelled):
                raise
            except MailError as error:
                # What it has missed now, it would never learn.
                self._contexts.pop(context.tag, None)
                refuse_update(self._session, context.tag, error.sentence)

    async def _update(self, context: Context) -> None:
        view = self._session.view
        changed, last_uid = _changed(context, view), context.mark.last_uid
        context.mark = Mark(view.columns.changed_end, context.mark.expunged, view.last_uid)
        for start in range(0, len(changed), SLICE):
            if start:
                await self._session.channel.drain()
            await self._search_again(context, changed[start : start + SLICE], last_uid)

    async def _search_again(self, context: Context, changed: Sequence[int], last_uid: int) -> None:
        """`last_uid`: messages beyond are new."""
        view = self._session.view
        query = And((InUIDs(tuple(runs(changed))), context.query))
        positions, _expunged = await find(self._session, query, SilentReporter())
        # The client has been sent REMOVEFROM for those that are gone, with or without their EXPUNGE.
        matching = {uid for at in positions if view.columns.position(uid := view.uids[at]) >= 0}
        known = set(
            _among(context.uids, changed) if context.program is None else set(context.uids).intersection(changed)
        )
        if leaving := known - matching:
            self._remove(context, leaving)
        added = sorted(matching - known)
        if not added:
            return
        if reason := self._excess(len(added), is_sorted=context.program is not None):
            raise LimitReached(reason)
        if context.items:
            self._wanted.append(WantedItems([uid for uid in added if uid > last_uid], context.items))
        if context.program is None:
            context.uids = _merged(context.uids, added)
            self._write(context, b"ADDTO", [(0, added)])
        else:
            await self._insert(context, context.program, added)

    async def _insert(self, context: Context, program: Program, added: list[int]) -> None:
        view = self._session.view
        members = sorted([*context.uids, *added])
        positions = [bisect_left(view.uids, uid, 0, view.count) for uid in members]
        order = await sort_positions(self._session, positions, program, SilentReporter())
        # What is expunged meanwhile may have lost its place.
        await self.report_expunged()
        new = {uid for uid in added if view.columns.position(uid) >= 0}
        members_now = new.union(context.uids)
        ordered = array("I", [uid for at in order if (uid := view.uids[at]) in members_now])
        if array("I", [uid for uid in ordered if uid not in new]) != context.uids:
            raise LimitReached("the order of the messages has changed")
        if new:
            context.uids = ordered
            self._write(context, b"ADDTO", _runs_of(ordered, new))


def _among(uids: array[int], wanted: Iterable[int]) -> list[int]:
    """The wanted messages that are among these, which rise; rising."""
    return [uid for uid in sorted(wanted) if (at := bisect_left(uids, uid)) < len(uids) and uids[at] == uid]


def _without(uids: array[int], leaving: Sequence[int]) -> array[int]:
    """These without some of them; all rise. Whole stretches are copied at once."""
    places = [bisect_left(uids, uid) for uid in leaving]
    kept = uids[: places[0]]
    for this, following in pairwise([*places, len(uids)]):
        kept.extend(uids[this + 1 : following])
    return kept


def _merged(uids: array[int], added: Sequence[int]) -> array[int]:
    """These and others; all rise. Whole stretches are copied at once."""
    merged = array("I")
    start = 0
    for uid in added:
        at = bisect_left(uids, uid, start)
        merged.extend(uids[start:at])
        merged.append(uid)
        start = at
    merged.extend(uids[start:])
    return merged


def _runs_of(uids: array[int], wanted: Collection[int]) -> list[tuple[int, list[int]]]:
    """The wanted messages that follow each other among these: the place of the first, from 1 on, and the messages."""
    found: list[tuple[int, list[int]]] = []
    for place, uid in enumerate(uids, 1):
        if uid in wanted:
            if found and found[-1][0] + len(found[-1][1]) == place:
                found[-1][1].append(uid)
            else:
                found.append((place, [uid]))
    return found


def _changed(context: Context, view: View) -> Sequence[int]:
    """The messages of the view that have to be searched: new ones, and those whose flags have changed; rising."""
    mark, columns = context.mark, view.columns
    first_new = bisect_left(view.uids, mark.last_uid + 1, 0, view.count)
    new = view.uids[first_new : view.count]
    if not context.has_flags or mark.changed == columns.changed_end:
        return new
    if mark.changed < columns.changed_start:
        # The log does not go back as far.
        return view.uids[: view.count]
    return sorted({*columns.changed[mark.changed - columns.changed_start :], *new})
