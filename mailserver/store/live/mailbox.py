"""One mailbox that sessions of this worker have open: their shared columns, and how these are kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from mailserver.errors import InUse, MailboxChanged, MailError, NoSpace, ReadOnly, StoreUnavailable
from mailserver.store.columns import Columns
from mailserver.store.interfaces import Mailbox, Stored
from mailserver.store.live.save_dates import SaveDates
from mailserver.store.receiving import Appended
from mailserver.store.recent_uids import RecentClaims
from mailserver.store.rows import MANY_CHANGES, Changes, MailboxStamp
from mailserver.store.view import View
from mailserver.types import UID, MailboxId, ModSeq

if TYPE_CHECKING:
    from mailserver.store.live.account import LiveAccount

T = TypeVar("T")

_serial = count(1)


class LiveMailbox:
    """An open mailbox: the columns that its sessions share, and the sessions to notify of changes."""

    def __init__(self, account: LiveAccount, mailbox: Mailbox, columns: Columns, stamp: MailboxStamp | None) -> None:
        """`stamp`: the state of the directories when the columns were read."""
        self.account = account
        self.serial = next(_serial)
        """Unique among this worker's mailboxes."""
        self.mailbox = mailbox
        self.columns = columns
        self.save_dates = SaveDates()
        self.users = 0
        self._stamp = stamp
        self._changed_elsewhere = account.change_flag(mailbox.id)
        self._stale = False
        self._refreshing = 0
        self._names: set[str] | None = set()
        self._views: set[View] = set()
        self._claiming: set[View] = set()
        self._pokes: dict[object, Callable[[], None]] = {}
        self._listeners = 0
        self.claims = RecentClaims()

    @property
    def id(self) -> MailboxId:
        """The mailbox's GUID."""
        return self.mailbox.id

    @property
    def stale(self) -> bool:
        """True if it was poked since the last refresh."""
        return self._stale

    @property
    def unsettled(self) -> bool:
        """True if there is a known change that the columns lack: also one that another worker has just answered."""
        if self._changed_elsewhere():
            self.account.take_changed(self.id)
        return self._stale or self._refreshing > 0

    @property
    def settled(self) -> bool:
        """True if the columns were read when nothing had changed for long enough, and nothing in them is \\Recent."""
        return self._stamp is not None and self._stamp.settled

    def is_unchanged(self) -> bool:
        """Tell whether the directories are as they were when the columns were read. A few stats; fresh changes may not
        show yet.
        """
        return not self.unsettled and self._stamp is not None and self._stamp.unchanged(self.mailbox.name)

    def is_current(self, name: str) -> bool:
        """Tell whether the name still means this mailbox and the columns are certainly complete. A few stats."""
        stamp = self._stamp
        return stamp is not None and stamp.settled and not self.unsettled and stamp.unchanged(name)

    def open_view(self, poke: Callable[[], None], *, read_only: bool = False) -> View:
        """Open a session's view; `poke` is called on the reactor's thread when something may have changed.

        It must not raise. `read_only` is for EXAMINE: new mail that such sessions report stays \\Recent for the next
        session (RFC 3501 6.3.2). Close the view with `close_view`.
        """
        view = View(self.columns)
        self._views.add(view)
        if not read_only:
            self._claiming.add(view)
        self._pokes[view] = poke
        return view

    def close_view(self, view: View) -> None:
        """Note that the session has left the mailbox."""
        self._views.discard(view)
        self._claiming.discard(view)
        self._pokes.pop(view, None)
        self._forget_reported()

    @contextmanager
    def listening(self, view: View) -> Iterator[None]:
        """Let new messages be claimed as they come, as the view's session reports them at once meanwhile."""
        claims = view in self._claiming
        self._listeners += claims
        try:
            yield
        finally:
            self._listeners -= claims

    @property
    def has_listener(self) -> bool:
        """True if a session that claims \\Recent messages reports new ones at once."""
        return self._listeners > 0

    async def claim_recent(self, view: View, new: range) -> None:
        """Make those of these UIDs \\Recent in this session that no session has reported. Call it before they are
        reported.
        """
        if view not in self._claiming:
            first = max(new.start, self.claims.end)
            if first < new.stop:
                with suppress(MailError):
                    first = max(first, await self.run(lambda mailbox: mailbox.first_recent()))
            self.show_recent(view, range(min(first, new.stop), new.stop))
            return
        below = UID(new.stop)
        if self.claims.end < below:
            try:
                claimed = await self.run(lambda mailbox: mailbox.claim_recent(below))
            except MailError:
                # It cannot be determined now. Then they "SHOULD be considered recent" (RFC 3501 2.3.2).
                claimed = range(max(new.start, self.claims.end), below)
            self.claims.add(claimed, below)
        for uids in self.claims.take(below):
            view.recent_uids.add(uids)

    def show_recent(self, view: View, unclaimed: range) -> None:
        """Show \\Recent messages in a read-only session, and leave them to the next session that reports them (RFC 3501
        6.3.2).
        """
        view.recent_uids.add(unclaimed)
        for uids in self.claims.peek(UID(unclaimed.stop)):
            view.recent_uids.add(uids)

    async def run(self, operation: Callable[[Mailbox], T]) -> T:
        """Run a reading operation in the account's thread."""
        return await self._turn(lambda: operation(self.mailbox))

    async def change(self, operation: Callable[[Mailbox], T], messages: int = 1) -> T:
        """Run an operation that changes about that many messages. Its changes are in the columns when this returns.

        Earlier changes by others are applied apart, so that `View.silence` can tell the two.
        """
        if messages < MANY_CHANGES:
            return await self._change(operation)
        self.account.pause(self)
        try:
            return await self._change(operation)
        finally:
            self.account.resume(self)

    async def _change(self, operation: Callable[[Mailbox], T]) -> T:
        since, uid_next, claim = self.columns.modseq, self.columns.uid_next, self.has_listener

        def change_and_read() -> tuple[Changes, T, Changes | None]:
            with self.mailbox.exclusive():
                others = self._read(since, uid_next, claim=claim)
                result = operation(self.mailbox)
                try:
                    return others, result, self._read(others.upto, others.uid_next, claim=claim)
                except MailError:
                    # The command is done, and its answer says so. Its changes are read later.
                    return others, result, None

        try:
            others, result, own = await self._turn(change_and_read)
        except MailError:
            # Part of it may have been done.
            self.poked()
            self.account.notify_others(self.id)
            raise
        self._apply(others)
        alone = not isinstance(result, Stored) or result.before is None or result.before <= others.upto
        if alone:
            self.columns.begin_own()
        if own is None:
            self.poked()
        else:
            self._apply(own)
        if not alone:
            # Another process came between the two. It is unknown who changed what, so changes are reported twice rather
            # than never.
            self.columns.begin_own()
        self.account.notify_others(self.id)
        self.account.schedule_maintenance()
        return result

    async def catch_up(self) -> None:
        """Return once all changes known at the call are in the columns. Raises as `refresh`."""
        if not self.unsettled:
            return
        for _ in range(2):
            if not self._refreshing:
                break
            # Turns are first in, first out: the refreshes before this have ended then. One that failed leaves its
            # changes to the next, which may have begun by now: hence twice.
            await self.account.run(lambda: None)
        if self._stale:
            await self.refresh()

    async def refresh(self) -> None:
        """Take up changes by others: this process, other workers, other programs.

        After a poke with file names only these are examined. A poke without names, or no poke, means everything.
        """
        since, uid_next, claim = self.columns.modseq, self.columns.uid_next, self.has_listener
        names = self._names if self._stale else None
        self._names = set()
        self._stale = False

        def refresh_and_read(has_read: bool) -> Changes:
            if not has_read and (names is None or names):
                claimed = self.mailbox.refresh(names, claims=claim)
                if claimed:
                    self.claims.add(claimed, UID(claimed.stop))
            return self._read(since, uid_next, claim=claim)

        self._refreshing += 1
        try:
            changes = await self.account.reading(refresh_and_read)
        except BaseException as error:
            self._stale = True
            self._names = None
            if isinstance(error, MailboxChanged):
                self.account.drop(self)
            raise
        finally:
            self._refreshing -= 1
        self._apply(changes)

    def begin_refresh(self) -> None:
        """Note that a whole refresh starts: all changes known until now need no other one."""
        self._names = set()
        self._stale = False
        self._refreshing += 1

    def end_refresh(self, *, seen: bool) -> None:
        """Note that it has ended. `seen`: it read this mailbox, and its result is in the columns."""
        self._refreshing -= 1
        if not seen:
            self._stale = True
            self._names = None

    def poked(self, names: Collection[str] | None = None) -> bool:
        """Note that something may have changed. `names` are file names from a watcher; None means everything.

        An empty collection means a change by the store itself: no file needs to be examined. Return False if all names
        are this account object's own changes.
        """
        if names:
            names = self.mailbox.foreign_names(names)
            if not names:
                # The code that made the change applies or pokes it.
                return False
        if names is None or self._names is None:
            self._names = None
        else:
            self._names.update(names)
        self._stale = True
        for poke in tuple(self._pokes.values()):
            poke()
        return True

    async def _turn(self, operation: Callable[[], T]) -> T:
        """Run in the account's thread. A mailbox that is gone is kept only for the sessions that have it open."""
        try:
            return await self.account.run(operation)
        except MailboxChanged:
            self.account.drop(self)
            raise

    def _read(self, since: ModSeq, uid_next: UID, *, claim: bool) -> Changes:
        """Read the changes, in the account's thread. `claim` new messages for the first session that reports them."""
        changes = self.mailbox.changes_since(since).packed()
        if claim and changes.rows and changes.rows[-1].uid >= uid_next:
            below = UID(changes.rows[-1].uid + 1)
            if self.claims.end < below:
                # If that cannot be written, it is tried again when a session reports them.
                with suppress(NoSpace, ReadOnly, StoreUnavailable, InUse):
                    self.claims.add(self.mailbox.claim_recent(below), below)
        return changes

    def record_claimed(self, appended: Appended) -> None:
        """Record messages that were claimed as they were appended, in the account's thread."""
        if appended.claimed and appended.uids:
            end = UID(appended.uids[-1] + 1)
            self.claims.add(range(appended.uids[0], end), end)

    def read_appended(self, appended: Appended) -> Changes:
        """Read what is new after an append, in the account's thread. Raises: MailError."""
        columns = self.columns
        return self._read(columns.modseq, columns.uid_next, claim=self.has_listener and not appended.claimed)

    def take_up(self, changes: Changes) -> None:
        """Apply changes that were read for this mailbox."""
        self._apply(changes)

    def _apply(self, changes: Changes) -> None:
        if changes.upto >= self.columns.modseq:
            self._stamp = changes.stamp
        columns = self.columns
        reported = columns.expunged_start + len(columns.expunged)
        if columns.apply(changes):
            if gone := columns.expunged[reported - columns.expunged_start :]:
                self.account.message_cache.forget(self, gone)
            self._forget_reported()
            for poke in tuple(self._pokes.values()):
                poke()
        if not columns.whole and not self.users:
            self.account.drop(self)

    def _forget_reported(self) -> None:
        columns = self.columns
        end = columns.expunged_start + len(columns.expunged)
        columns.forget_expunged(min((view.expunged_position for view in self._views), default=end))
