"""Where the blocking store and the reactor's thread meet: the shared, live picture of the open accounts.

A session asks a `LiveMailbox` to change or refresh; the operation and the reading of what it changed make one hop to
the account's thread, and only the reactor's thread applies the answer to the columns. A poke is a mailbox id: whoever
hears it reads what changed since its own modseq, so a lost or repeated poke does no harm.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import TypeVar

from attrs import frozen

from mailserver.errors import InUse, MailboxChanged, MailError, NoSpace, ReadOnly, StoreUnavailable
from mailserver.store.columns import Columns
from mailserver.store.interfaces import (
    Account,
    Appended,
    Changes,
    Copied,
    Mailbox,
    Mark,
    NewMessage,
    Status,
    Store,
    Stored,
    StoreRunner,
)
from mailserver.store.view import View
from mailserver.types import UID, MailboxId, ModSeq

T = TypeVar("T")

LEAST_MESSAGES = 1000
"""What a mailbox that is kept without a session counts at least: an empty one has its price too."""

MOST_STATUSES = 256
"""Of one account that are kept; clients ask for all their mailboxes in turn."""


class LiveMailbox:
    """One mailbox that sessions of this worker have open: shared columns, and who wants to hear of changes."""

    def __init__(self, account: LiveAccount, mailbox: Mailbox, columns: Columns, mark: Mark | None) -> None:
        """`mark`: what the mailbox looked like when the columns were read."""
        self.account = account
        self.mailbox = mailbox
        self.columns = columns
        self.users = 0
        self._mark = mark
        self._stale = False
        self._refreshing = 0
        self._names: set[str] | None = set()
        self._views: set[View] = set()
        self._claiming: set[View] = set()
        self._pokes: dict[object, Callable[[], None]] = {}

    @property
    def id(self) -> MailboxId:
        """The mailbox's GUID."""
        return self.mailbox.id

    @property
    def stale(self) -> bool:
        """Has somebody poked since the last refresh?"""
        return self._stale

    @property
    def unsettled(self) -> bool:
        """Is something known to have changed that the columns do not hold yet?"""
        return self._stale or self._refreshing > 0

    @property
    def settled(self) -> bool:
        """Were the columns read when nothing had changed for long enough, and nothing in them is \\Recent?"""
        return self._mark is not None and self._mark.settled

    def looks_unchanged(self) -> bool:
        """Does the mailbox look as it did when the columns were read? A few stats; fresh changes may not show yet."""
        return not self.unsettled and self._mark is not None and self._mark.unchanged(self.mailbox.name)

    def is_level(self, name: str) -> bool:
        """Is the mailbox of that name this one, and is all of it in the columns for certain? A few stats."""
        mark = self._mark
        return mark is not None and mark.settled and not self.unsettled and mark.unchanged(name)

    def open_view(self, recent_from: UID, poke: Callable[[], None], *, read_only: bool = False) -> View:
        """A session's view; `poke` is called on the reactor's thread when something may have changed.

        It must not raise. `read_only` is for EXAMINE: new mail told to such sessions alone stays \\Recent for the next
        one (RFC 3501 6.3.2). Give the view back with `close_view`.
        """
        view = View(self.columns, recent_from)
        self._views.add(view)
        if not read_only:
            self._claiming.add(view)
        self._pokes[view] = poke
        return view

    def close_view(self, view: View) -> None:
        """The session has left the mailbox."""
        self._views.discard(view)
        self._claiming.discard(view)
        self._pokes.pop(view, None)
        self._forget_told()

    async def run(self, operation: Callable[[Mailbox], T]) -> T:
        """A reading operation, in the account's thread."""
        return await self._turn(lambda: operation(self.mailbox))

    async def change(self, operation: Callable[[Mailbox], T]) -> T:
        """A changing operation; what it changed is in the columns when this returns.

        What others did before it is applied apart, so that `View.silence` can tell the two.
        """
        since, uid_next, claim = self.columns.modseq, self.columns.uid_next, bool(self._claiming)

        def change_and_read() -> tuple[Changes, T, Changes | None]:
            with self.mailbox.exclusive():
                others = self._read(since, uid_next, claim=claim)
                result = operation(self.mailbox)
                try:
                    return others, result, self._read(others.upto, others.uid_next, claim=claim)
                except MailError:
                    # The command is done, and its answer says so; what it changed is read later.
                    return others, result, None

        try:
            others, result, own = await self._turn(change_and_read)
        except MailError:
            # Part of it may have been done.
            self.poked()
            self.account.tell_others(self.id)
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
            # Another process came between the two: what is whose is not known, and told twice rather than not at all.
            self.columns.begin_own()
        self.account.tell_others(self.id)
        return result

    async def catch_up(self) -> None:
        """Return once what was known to have changed when this was called is in the columns. Raises as `refresh`."""
        for _ in range(2):
            if not self._refreshing:
                break
            # Turns are first in, first out: the refreshes before this have ended then. One that failed leaves its
            # news to the next, which may have begun by now: hence twice.
            await self.account.run(lambda: None)
        if self._stale:
            await self.refresh()

    async def refresh(self) -> None:
        """Take up what others did: this process, other workers, foreign programs.

        After a poke that names files only those are looked at; one without names, or none at all, means everything.
        """
        since, uid_next, claim = self.columns.modseq, self.columns.uid_next, bool(self._claiming)
        names = self._names if self._stale else None
        self._names = set()
        self._stale = False

        def refresh_and_read() -> Changes:
            if names is None or names:
                self.mailbox.refresh(names)
            return self._read(since, uid_next, claim=claim)

        self._refreshing += 1
        try:
            changes = await self._turn(refresh_and_read)
        except BaseException:
            self._stale = True
            self._names = None
            raise
        finally:
            self._refreshing -= 1
        self._apply(changes)

    def begin_look(self) -> None:
        """The mailbox is about to be looked at whole: what is known to have changed until now needs no other look."""
        self._names = set()
        self._stale = False
        self._refreshing += 1

    def end_look(self, *, seen: bool) -> None:
        """That look is over; was it this mailbox, and is what it saw in the columns?"""
        self._refreshing -= 1
        if not seen:
            self._stale = True
            self._names = None

    def poked(self, names: Collection[str] | None = None) -> None:
        """Something may have changed; `names` are file names a watcher saw, None means look at everything.

        No names at all (an empty collection) says that the store itself did it: the files need no look.
        """
        if names:
            names = self.mailbox.foreign_names(names)
            if not names:
                # Whoever did it here applies or pokes it.
                return
        if names is None or self._names is None:
            self._names = None
        else:
            self._names.update(names)
        self._stale = True
        for poke in tuple(self._pokes.values()):
            poke()

    async def _turn(self, operation: Callable[[], T]) -> T:
        """In the account's thread. A mailbox that is gone is kept for nobody but the sessions that have it open."""
        try:
            return await self.account.run(operation)
        except MailboxChanged:
            self.account.drop(self)
            raise

    def _read(self, since: ModSeq, uid_next: UID, *, claim: bool) -> Changes:
        """In the account's thread: what happened. New mail that will be told is \\Recent for no later session."""
        changes = self.mailbox.changes_since(since).packed()
        if claim and changes.rows and changes.rows[-1].uid >= uid_next:
            # Where that cannot be written, the next session may see it as recent again.
            with suppress(NoSpace, ReadOnly, StoreUnavailable, InUse):
                self.mailbox.claim_recent()
        return changes

    @property
    def is_claiming(self) -> bool:
        """Has a session it open that takes \\Recent messages?"""
        return bool(self._claiming)

    def read_appended(self, appended: Appended) -> Changes:
        """In the account's thread: what is new, after messages were appended. Raises: MailError."""
        columns = self.columns
        return self._read(columns.modseq, columns.uid_next, claim=self.is_claiming and not appended.claimed)

    def take_up(self, changes: Changes) -> None:
        """Changes that were read for it."""
        self._apply(changes)

    def _apply(self, changes: Changes) -> None:
        if changes.upto >= self.columns.modseq:
            self._mark = changes.mark
        if self.columns.apply(changes):
            self._forget_told()
            for poke in tuple(self._pokes.values()):
                poke()

    def _forget_told(self) -> None:
        columns = self.columns
        end = columns.expunged_start + len(columns.expunged)
        columns.forget_expunged(min((view.expunged_position for view in self._views), default=end))


class LiveAccount:
    """One account open in this worker, shared by its sessions."""

    def __init__(self, accounts: LiveAccounts, user: str, home: str | None, runner: StoreRunner) -> None:
        self.user = user
        self.home = home
        self.users = 0
        self.operations = 0
        """How many there have been."""
        self._accounts = accounts
        self._runner = runner
        self._account: Account | None = None
        self._mailboxes: dict[MailboxId, LiveMailbox] = {}
        self._names: dict[str, LiveMailbox] = {}
        """Under which names they were last selected; who asks makes sure that it is still so."""
        self._statuses: OrderedDict[str, tuple[Status, Mark]] = OrderedDict()

    @property
    def account(self) -> Account:
        """The blocking side; called only inside `run`."""
        if self._account is None:
            raise RuntimeError("the account is not open yet")
        return self._account

    @property
    def opened(self) -> bool:
        """Is the blocking side there?"""
        return self._account is not None

    def open(self, store: Store) -> None:
        """In the account's turn: open the blocking side, once. Raises: NoSpace, StoreUnavailable."""
        if self._account is None:
            self._account = store.account(self.user, self.home)

    def run(self, operation: Callable[[], T]) -> Awaitable[T]:
        """A blocking operation, in this account's turn."""
        self.operations += 1
        self._accounts.used(self)
        if self._account is not None and self._account.has_upkeep:
            self._accounts.wake(self)
        return self._runner.run(operation)

    def give_up(self) -> Awaitable[None]:
        """Give back its index and descriptors, after what was asked for before; the next use opens them again."""
        return self._runner.run(self.account.close)

    def keep_up(self, stop: Callable[[], bool]) -> Awaitable[tuple[float | None, float]]:
        """`Account.keep_up` in this account's turn, and the processor seconds that it took."""

        def work() -> tuple[float | None, float]:
            started = time.thread_time()
            return self.account.keep_up(stop), time.thread_time() - started

        return self._runner.run(work)

    async def select(self, name: str) -> LiveMailbox:
        """Open a mailbox, up to date. Give it back with `release`. Raises: NoSuchMailbox."""
        live = self.select_at_once(name)
        if live is None:
            live, _ = await self.select_and(name, lambda _mailbox: None)
        return live

    def select_at_once(self, name: str) -> LiveMailbox | None:
        """As `select`, without a hop: if this worker has the mailbox, and a look at the disk proves that nobody changed it.

        Nothing in it is \\Recent then.
        """
        live = self._names.get(name)
        if live is None or not live.is_level(name):
            return None
        self._enter(live)
        return live

    async def select_and(self, name: str, operation: Callable[[Mailbox], T]) -> tuple[LiveMailbox, T]:
        """As `select`; `operation` is done with it once, before it is read, in the same turn of the account's thread."""
        done: list[T] = []

        def open_and_read() -> tuple[Mailbox, LiveMailbox | None, Columns | Changes, Mark | None]:
            mailbox = self.account.mailbox(name)
            mailbox.refresh()
            if not done:
                done.append(operation(mailbox))
            known = self._mailboxes.get(mailbox.id)
            if known is not None:
                with suppress(MailboxChanged):
                    changes = known.mailbox.changes_since(known.columns.modseq).packed()
                    return mailbox, known, changes, changes.mark
            # Columns are made here: on the reactor's thread a large mailbox would hold up everybody.
            snapshot = mailbox.load()
            return mailbox, known, Columns(snapshot), snapshot.mark

        while True:
            expected = self._names.get(name)
            if expected is not None:
                expected.begin_look()
            try:
                mailbox, known, news, mark = await self.run(open_and_read)
            except BaseException:
                if expected is not None:
                    expected.end_look(seen=False)
                raise
            if expected is not None:
                expected.end_look(seen=expected is known and isinstance(news, Changes))
            live = self._mailboxes.get(mailbox.id)
            if isinstance(news, Changes):
                if live is None or live is not known:
                    continue  # its columns were dropped meanwhile
                live._apply(news)  # noqa: SLF001 - the two classes are one mechanism
            elif live is None or live is known:
                if live is not None:
                    live.poked()  # the mailbox was made anew below its sessions
                    self.forget(live.id)
                live = self._mailboxes[mailbox.id] = LiveMailbox(self, mailbox, news, mark)
            elif live.columns.modseq < news.modseq:
                continue  # another session made it meanwhile, from an older picture
            break
        self._names[live.mailbox.name] = live
        self._enter(live)
        return live, done[0]

    def _enter(self, live: LiveMailbox) -> None:
        live.users += 1
        if live.users == 1:
            self._accounts.take(live)
            self._accounts.watch(live)

    async def status(self, name: str) -> Status:
        """The facts of a mailbox, up to date; those told last if the disk proves that they hold. Raises: NoSuchMailbox."""
        known = self._statuses.get(name)
        if known is not None and known[1].unchanged(name):
            return known[0]
        status = await self.run(lambda: self.account.status(name))
        self._statuses.pop(name, None)
        if status.mark is not None and status.mark.settled:
            self._statuses[name] = status, status.mark
            if len(self._statuses) > MOST_STATUSES:
                self._statuses.popitem(last=False)
        return status

    def release(self, live: LiveMailbox) -> None:
        """A session has left the mailbox. Its columns stay while there is room."""
        live.users -= 1
        if live.users == 0:
            self._accounts.leave(live)
            if self._mailboxes.get(live.id) is live:
                self._accounts.keep(live)
            else:
                self._accounts.unwatch(live)

    async def append(self, name: str, messages: list[NewMessage]) -> Appended:
        """Append staged messages and tell whoever has the mailbox open."""
        return await self.deliver(lambda account, seen_by: account.append(name, messages, seen_by))

    async def deliver(self, operation: Callable[[Account, Callable[[MailboxId], bool]], Appended]) -> Appended:
        """An operation that appends to some mailbox (the second argument is for `Account.append`) and, in the same turn
        of the account's thread, the reading of what it changed for the sessions that have it open.
        """

        def append_and_read() -> tuple[Appended, LiveMailbox | None, Changes | None]:
            appended = operation(self.account, self._is_seen)
            live = self._mailboxes.get(appended.mailbox)
            if live is None:
                return appended, None, None
            try:
                return appended, live, live.read_appended(appended)
            except MailError:
                # The messages are there; whoever has the mailbox open reads it later.
                return appended, live, None

        appended, live, changes = await self.run(append_and_read)
        if live is None or changes is None:
            self.poked(appended.mailbox, ())
        else:
            live.take_up(changes)
        self.tell_others(appended.mailbox)
        return appended

    def _is_seen(self, mailbox: MailboxId) -> bool:
        """Has a session here that mailbox open which takes \\Recent messages?"""
        live = self._mailboxes.get(mailbox)
        return live is not None and live.is_claiming

    async def copy(self, live: LiveMailbox, uids: list[UID], target: str, *, move: bool = False) -> Copied:
        """Copy or move messages and tell whoever has the target open."""
        if move:
            copied = await live.change(lambda mailbox: mailbox.move(uids, target))
        else:
            copied = await live.run(lambda mailbox: mailbox.copy(uids, target))
        self.poke(copied.mailbox, ())
        return copied

    def poke(self, mailbox: MailboxId, names: Collection[str] | None = None) -> None:
        """That mailbox changed: tell the sessions here and the other workers."""
        self.poked(mailbox, names)
        self.tell_others(mailbox)

    def poked(self, mailbox: MailboxId, names: Collection[str] | None = None) -> None:
        """Somebody says that it changed: tell the sessions here."""
        live = self._mailboxes.get(mailbox)
        if live is not None:
            live.poked(names)

    def tell_others(self, mailbox: MailboxId) -> None:
        """Tell the other workers."""
        self._accounts.tell_others(self.user, mailbox)

    def forget(self, mailbox: MailboxId) -> None:
        """Keep that mailbox no longer: it is deleted, or there is no room. Sessions that have it open go on."""
        live = self._mailboxes.pop(mailbox, None)
        if live is not None:
            self._names = {name: other for name, other in self._names.items() if other is not live}
            self._accounts.take(live)
            if live.users == 0:
                self._accounts.unwatch(live)

    def drop(self, live: LiveMailbox) -> None:
        """As `forget`, unless another one has its place by now."""
        if self._mailboxes.get(live.id) is live:
            self.forget(live.id)

    def forget_all(self) -> None:
        """The account is being closed."""
        for mailbox in tuple(self._mailboxes):
            self.forget(mailbox)


def tell_nobody(_user: str, _mailbox: MailboxId) -> None:
    """`tell_others` where there is no other worker."""


@frozen
class Usage:
    """What a worker holds open and keeps."""

    accounts_in_use: int
    accounts_kept: int
    """Open without a session."""
    indexes: int
    """Accounts whose index may be open."""
    mailboxes_in_use: int
    messages_in_use: int
    """In the columns of mailboxes that a session has open."""
    mailboxes_kept: int
    messages_kept: int
    """In those that none has; a mailbox counts at least LEAST_MESSAGES."""


class LiveAccounts:
    """All accounts open in this worker. Accounts without a session stay open while there is room."""

    def __init__(
        self,
        store: Store,
        make_runner: Callable[[], StoreRunner],
        *,
        tell_others: Callable[[str, MailboxId], None] = tell_nobody,
        watch: Callable[[LiveMailbox], None] = lambda _live: None,
        leave: Callable[[LiveMailbox], None] = lambda _live: None,
        unwatch: Callable[[LiveMailbox], None] = lambda _live: None,
        wake: Callable[[LiveAccount], None] = lambda _account: None,
        max_unused_accounts: int = 64,
        max_unused_messages: int = 2_000_000,
        max_indexes: int = 256,
    ) -> None:
        """`watch`: a session has opened the mailbox; `leave`: none has it any more; `unwatch`: nor is it kept.

        The bounds may be changed at any time; `max_indexes` is for accounts with and without a session.
        """
        self.tell_others = tell_others
        self.wake = wake
        self._watch = watch
        self._leave = leave
        self.unwatch = unwatch
        self._open: dict[MailboxId, list[LiveMailbox]] = {}
        self._store = store
        self._make_runner = make_runner
        self.max_unused_accounts = max_unused_accounts
        self.max_unused_messages = max_unused_messages
        self.max_indexes = max_indexes
        self._accounts: OrderedDict[str, LiveAccount] = OrderedDict()
        self._indexes: OrderedDict[LiveAccount, None] = OrderedDict()
        """Accounts that were used, the least recently used first."""
        self._unused: OrderedDict[LiveMailbox, int] = OrderedDict()
        self._unused_messages = 0

    async def open(self, user: str, home: str | None = None) -> LiveAccount:
        """The account; give it back with `release`. Raises: NoSpace, StoreUnavailable."""
        live = self._accounts.get(user)
        if live is not None and live.home != home and live.users == 0:
            self._close(live)
            live = None
        if live is None:
            # Registered before it is open: whoever comes meanwhile waits in the same queue.
            live = self._accounts[user] = LiveAccount(self, user, home, self._make_runner())
        live.users += 1
        try:
            if not live.opened:
                opening = live
                await live.run(lambda: opening.open(self._store))
        except BaseException:
            live.users -= 1
            if live.users == 0 and not live.opened and self._accounts.get(user) is live:
                del self._accounts[user]
            raise
        self._accounts.move_to_end(user)
        return live

    def release(self, live: LiveAccount) -> None:
        """A session is done with the account."""
        live.users -= 1
        self.trim()

    def used(self, live: LiveAccount) -> None:
        """Something is asked of the account: where too many have an index open, the one not used for longest closes it."""
        self._indexes[live] = None
        self._indexes.move_to_end(live)
        while len(self._indexes) > max(1, self.max_indexes):
            longest, _ = self._indexes.popitem(last=False)
            if longest.opened:
                longest.give_up()

    def usage(self) -> Usage:
        """What is open and kept now."""
        in_use = [live for live in self._accounts.values() if live.users]
        open_now = self.all_open()
        return Usage(
            accounts_in_use=len(in_use),
            accounts_kept=len(self._accounts) - len(in_use),
            indexes=len(self._indexes),
            mailboxes_in_use=len(open_now),
            messages_in_use=sum(len(live.columns) for live in open_now),
            mailboxes_kept=len(self._unused),
            messages_kept=self._unused_messages,
        )

    def get(self, user: str) -> LiveAccount | None:
        """The account if it is open here, for pokes."""
        return self._accounts.get(user)

    def watch(self, live: LiveMailbox) -> None:
        """A mailbox has its first session: from now on it hears of what others change."""
        self._open.setdefault(live.id, []).append(live)
        self._watch(live)

    def leave(self, live: LiveMailbox) -> None:
        """Its last session has left: what others change is asked of the disk when somebody comes back."""
        same_id = self._open[live.id]
        same_id.remove(live)
        if not same_id:
            del self._open[live.id]
        self._leave(live)

    def having(self, mailbox: MailboxId) -> Sequence[LiveMailbox]:
        """The mailboxes of that id that sessions have open: two accounts have one each where a Maildir was copied."""
        return tuple(self._open.get(mailbox, ()))

    def all_open(self) -> list[LiveMailbox]:
        """Every mailbox that a session has open."""
        return [live for same_id in self._open.values() for live in same_id]

    def keep(self, live: LiveMailbox) -> None:
        """A mailbox has no session any more: its columns stay while there is room, the last used longest."""
        self.take(live)
        size = self._unused[live] = max(len(live.columns), LEAST_MESSAGES)
        self._unused_messages += size
        while self._unused_messages > self.max_unused_messages:
            oldest = next(iter(self._unused))
            oldest.account.forget(oldest.id)

    def take(self, live: LiveMailbox) -> None:
        """It has a session again, or is not to be kept."""
        self._unused_messages -= self._unused.pop(live, 0)

    def trim(self) -> None:
        """Close accounts without a session that are over the bound, least recently used first."""
        idle = [live for live in self._accounts.values() if live.users == 0]
        for live in idle[: max(0, len(idle) - self.max_unused_accounts)]:
            self._close(live)

    def close(self) -> list[Awaitable[None]]:
        """Close every account at the end of the service, after its last operation; what to wait for."""
        return [waiting for live in tuple(self._accounts.values()) if (waiting := self._close(live)) is not None]

    def _close(self, live: LiveAccount) -> Awaitable[None] | None:
        del self._accounts[live.user]
        live.forget_all()
        self._indexes.pop(live, None)
        return live.give_up() if live.opened else None
