"""What a session sends by itself once NOTIFY SET has asked for it (RFC 5465): between two commands, and in IDLE.

Changes of the selected mailbox come from its view, as in IDLE. Those of all other mailboxes come from `AccountChanges`, which
the sessions of an account share. Here are the names of mailboxes that have changed since the client was last sent something:
each once, however often it changes, and no more than MOST_PENDING. Beyond that, for a client that takes nothing or is in the
middle of a long command, notification ends (5.8).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from mailserver.errors import MailboxChanged, MailError
from mailserver.imap import updates
from mailserver.imap.input import TimedOut
from mailserver.imap.list_extended import ExtendedList
from mailserver.imap.list_request import SUBSCRIBED, ListRequest
from mailserver.imap.mailbox_filter import Filter, FilterTable
from mailserver.imap.metadata import changed_response
from mailserver.imap.new_messages import fetch_new_messages
from mailserver.imap.notify_request import Event, NotifyRequest
from mailserver.imap.selected_mailbox import SelectedEvents, SelectedMailbox, WantedItems
from mailserver.imap.session import Session
from mailserver.imap.wire.framer import Line, LineRefused, LiteralAnnounced
from mailserver.store.interfaces import MailboxList
from mailserver.store.live import Counts, Kind
from mailserver.store.live.followed_annotations import OF_ACCOUNT
from mailserver.store.live.name_changes import NameChange, NameEvent, affected, merge
from mailserver.store.view import View
from mailserver.types import ModSeq

MOST_PENDING: Final = 2000
"""Mailboxes and names with changes that the client has not been sent."""
RETRY: Final = 5.0
"""Seconds until the next attempt to read what is new, after one that failed."""
LARGE_PAUSE: Final = 0.1
"""Seconds between two readings of an account with so many mailboxes that one costs milliseconds."""
_AT_ONCE: Final = 64
"""Responses that are written before other clients have their turn."""
_NO_EVENTS: Final[frozenset[Event]] = frozenset()
_LISTED: Final = ListRequest((), is_extended=True, returned=((SUBSCRIBED, None),))


class Notifications:
    """Implements `session.Pushes`, and `Follower` of the store."""

    def __init__(self, session: Session, request: NotifyRequest) -> None:
        self._session = session
        groups = [group for group in request.others if group.events]
        self._events_by_name = FilterTable(((group, group.events) for group in groups), session.services.namespace)
        self._of_any_mailbox = _NO_EVENTS.union(*(group.events for group in groups))
        """The events that the client wants of some mailbox."""
        self._follows_subscriptions = any(
            group.filter is Filter.SUBSCRIBED and Event.SUBSCRIPTION_CHANGE in group.events for group in groups
        )
        """Of all names: the client follows what is subscribed."""
        self._selected = request.selected
        account = session.account
        assert account is not None
        self._changes = account.changes() if groups else None
        self._mailboxes: dict[str, Kind] = {}
        self._names: dict[tuple[str, bool], NameChange] = {}
        self._entries: dict[str, dict[str, None]] = {}
        """Changed annotations by mailbox."""
        self._own: Collection[str] = ()
        """Names that the client itself is changing."""
        self._own_annotations: str | None = None
        """The mailbox whose annotations it is changing."""
        self._seen: tuple[View, ModSeq] | None = None
        """The view up to whose modseq all but expunges has been sent."""
        self._overflown = False
        self._read_again = 0.0
        """The account is not read before."""
        self._has_more = False
        """There was a poke that has not been followed."""
        self._failed = False

    async def begin(self) -> None:
        """Follow the account. Raises: InUse, StoreUnavailable."""
        if self._changes is not None:
            await self._changes.join(self)

    def end(self) -> None:
        """Follow it no more."""
        if self._changes is not None:
            self._changes.leave(self)
        self._mailboxes.clear()
        self._names.clear()
        self._entries.clear()

    def events_of_selected(self, events: SelectedEvents) -> None:
        """Set the events that the client wants of the selected mailbox."""
        group = self._selected
        wanted = _NO_EVENTS if group is None else group.events
        events.messages = Event.MESSAGE_NEW in wanted
        events.flags = events.uids = Event.FLAG_CHANGE in wanted
        events.fetch_new = self._fetch_new if group is not None and group.items else None
        events.own.clear()

    # --- Follower

    def follows(self, name: str) -> bool:
        """Tell whether the client wants to know of messages in that mailbox, while it is not selected."""
        return Event.MESSAGE_NEW in self._of_any_mailbox and Event.MESSAGE_NEW in self._events(name)

    def needs(self, name: str) -> bool:
        """Tell whether it does now."""
        return name != self._session.mailbox_name and self.follows(name)

    def mailbox_changed(self, name: str, kinds: Kind) -> None:
        """Take up a change in a mailbox."""
        if not self.needs(name):
            return
        if not kinds & (Kind.NEW | Kind.EXPUNGE) and Event.FLAG_CHANGE not in self._events(name):
            return
        self._mailboxes[name] = self._mailboxes.get(name, Kind(0)) | kinds
        self._added()

    def name_changed(self, change: NameChange) -> None:
        """Take up a change of names."""
        if change.name in self._own or change.old_name in self._own:
            return
        is_subscription = change.event is NameEvent.SUBSCRIPTION
        event = Event.SUBSCRIPTION_CHANGE if is_subscription else Event.MAILBOX_NAME
        if (is_subscription and self._follows_subscriptions) or any(
            event in self._events(name) for name in affected((change,))
        ):
            merge(self._names, change)
            self._added()

    def mailboxes_renamed(self, renamed: Mapping[str, str]) -> None:
        """Keep what has been taken up under the new names."""
        self._mailboxes = {renamed.get(name, name): kinds for name, kinds in self._mailboxes.items()}
        self._entries = {renamed.get(name, name): entries for name, entries in self._entries.items()}

    def follows_annotations(self, name: str) -> bool:
        """Tell whether the client wants to know of annotations of that mailbox, or of the account."""
        if name == OF_ACCOUNT:
            return Event.SERVER_METADATA_CHANGE in self._of_any_mailbox
        event = Event.MAILBOX_METADATA_CHANGE
        return event in self._of_any_mailbox and event in self._events(name)

    def annotations_changed(self, name: str, entries: Sequence[str]) -> None:
        """Take up changed entries of a mailbox, or of the account."""
        if name != self._own_annotations and self.follows_annotations(name):
            self._entries.setdefault(name, {}).update(dict.fromkeys(entries))
            self._added()

    def overflow(self) -> None:
        """Follow no more, and notify the client of that."""
        if not self._overflown:
            self._overflown = True
            self.end()
        self.wake()

    def wake(self) -> None:
        """Have the session read what is new."""
        self._session.channel.poke()

    def _added(self) -> None:
        if len(self._mailboxes) + len(self._names) + sum(map(len, self._entries.values())) > MOST_PENDING:
            self.overflow()
        else:
            self.wake()

    def _events(self, name: str) -> frozenset[Event]:
        assert self._changes is not None
        return self._events_by_name.of(name, self._changes.subscribed)

    # --- Pushes

    async def next_event(self) -> Line | LiteralAnnounced | LineRefused | None:
        """Send changes as they come until the client's next command; None once the session has ended. Raises: TimedOut."""
        session, channel = self._session, self._session.channel
        end = channel.now() + session.services.config.timeout
        while not session.logged_out and session.pushes is self:
            try:
                again = await self.report()
            except MailboxChanged as error:
                session.bye(f"[{error.imap_code}] {error.sentence}")
                break
            if session.pushes is not self:
                break
            until = end if again is None else min(end, again)
            with updates.listening(session.selected if session.selected_events.messages else None):
                event = await session.input.event_or_poke(until)
            if event is not None:
                return event
            if channel.now() >= end:
                raise TimedOut
        return None

    async def report(self, *, idle: bool = False) -> float | None:
        """Send what is new; return when there may be more without a poke. Raises: MailboxChanged, ConnectionLost."""
        channel = self._session.channel
        if self._overflown:
            self._end_for_overflow()
            return None
        try:
            await self._report_selected(allow_expunge=idle or not self._is_delayed)
            await self._report_others()
        except MailboxChanged:
            raise
        except MailError as error:
            if not self._failed:
                channel.log("refresh-failed", user=self._session.user, reason=error.reason)
            self._failed = self._has_more = True
            self._read_again = channel.now() + RETRY
        else:
            self._failed = False
        return self._read_again if self._has_more else None

    async def pass_over(self, names: Collection[str]) -> None:
        """Do not report the changes of these names that the client itself has just made."""
        self._own = names
        try:
            await self._collect_own()
        finally:
            self._own = ()

    async def pass_over_annotations(self, name: str | None) -> None:
        """Do not report those of annotations of a mailbox, or with None of the account."""
        self._own_annotations = OF_ACCOUNT if name is None else name
        try:
            await self._collect_own()
        finally:
            self._own_annotations = None

    async def _collect_own(self) -> None:
        if self._changes is None or self._overflown:
            return
        try:
            await self._changes.collect(wait=True)
        except MailError as error:
            self._session.channel.log("refresh-failed", user=self._session.user, reason=error.reason)

    @property
    def _is_delayed(self) -> bool:
        return self._selected is not None and self._selected.filter is Filter.SELECTED_DELAYED

    def _end_for_overflow(self) -> None:
        session = self._session
        session.untagged(b"OK [NOTIFICATIONOVERFLOW] too many changes: notification has ended")
        end_notifications(session)
        silence_selected(session.selected_events)

    async def _report_selected(self, *, allow_expunge: bool) -> None:
        selected = self._session.selected
        if selected is None or not self._session.selected_events.messages:
            return
        seen = selected.view, selected.view.columns.modseq
        if allow_expunge or selected.live.stale or seen != self._seen:
            await updates.sync(self._session.channel, selected, allow_expunge=allow_expunge, wait=False)
            self._seen = selected.view, selected.view.columns.modseq

    async def _report_others(self) -> None:
        changes, channel = self._changes, self._session.channel
        self._has_more = changes is not None and channel.now() < self._read_again
        if changes is None or self._has_more:
            return
        await changes.collect()
        if changes.is_large:
            self._read_again = channel.now() + LARGE_PAUSE
        if self._overflown:
            self._end_for_overflow()
            return
        names, self._names = self._names, {}
        mailboxes, self._mailboxes = self._mailboxes, {}
        entries, self._entries = self._entries, {}
        if names:
            assert changes.listed is not None
            await self._write_names(list(names.values()), changes.listed)
        await self.write_statuses([name for name in mailboxes if self.needs(name)])
        for name, changed in entries.items():
            if name == OF_ACCOUNT or name in changes.selectable:
                octets = b'""' if name == OF_ACCOUNT else self._session.mailbox_octets(name)
                self._session.write(changed_response(octets, changed))
                await channel.drain()

    async def _write_names(self, names: Sequence[NameChange], listed: MailboxList) -> None:
        session, namespace = self._session, self._session.services.namespace
        every = ExtendedList(_LISTED, namespace, listed, session.utf8)
        for number, change in enumerate(names, 1):
            line = every.line(namespace.to_client(change.name), meets=True).text
            if change.old_name is not None:
                # RFC 5465 5.4.
                line = b'%b ("OLDNAME" (%b))\r\n' % (line[:-2], session.mailbox_octets(change.old_name))
            session.write(line)
            if number % _AT_ONCE == 0:
                await session.channel.drain()

    async def write_statuses(self, names: Collection[str]) -> None:
        """Send the statuses of these mailboxes as they were last read."""
        changes, session = self._changes, self._session
        for number, name in enumerate(names, 1):
            counts = None if changes is None else changes.counts.get(name)
            if counts is not None:
                has_modseq = "CONDSTORE" in session.enabled or Event.FLAG_CHANGE in self._events(name)
                session.write(_status(session.mailbox_octets(name), counts, has_modseq=has_modseq))
            if number % _AT_ONCE == 0:
                await session.channel.drain()

    async def followed(self) -> Sequence[str]:
        """Return the mailboxes whose messages are followed, but for the selected one."""
        return [] if self._changes is None else await self._changes.needed(self)

    async def _fetch_new(self, selected: SelectedMailbox, known: int) -> None:
        """Send what MessageNew asks for, for the messages beyond a UID that the client has not added itself (RFC 5465 5.2)."""
        session, view = self._session, selected.view
        group = self._selected
        assert group is not None
        first = bisect_right(view.uids, known, 0, view.count)
        wanted = [WantedItems(view.uids[first : view.count], group.items)]
        if selected.result_updates is not None:
            wanted += selected.result_updates.take_wanted()
        await fetch_new_messages(session, selected, wanted, selected.events.own)


def _status(name: bytes, counts: Counts, *, has_modseq: bool) -> bytes:
    """The STATUS response with all that any event asks for (RFC 5465 3.1, 5.1 to 5.3)."""
    modseq = b" HIGHESTMODSEQ %d" % counts.modseq if has_modseq else b""
    return b"* STATUS %b (MESSAGES %d UIDNEXT %d UIDVALIDITY %d UNSEEN %d%b)\r\n" % (
        name,
        counts.messages,
        counts.uid_next,
        counts.uid_validity,
        counts.unseen,
        modseq,
    )


def silence_selected(events: SelectedEvents) -> None:
    """Want nothing of the selected mailbox, as NOTIFY NONE does (RFC 5465 3.1)."""
    events.messages = events.flags = events.uids = False
    events.fetch_new = None
    events.own.clear()


def end_notifications(session: Session) -> None:
    """End what the last NOTIFY SET began."""
    pushes, session.pushes = session.pushes, None
    if pushes is not None:
        pushes.end()
