"""One account that is open in this worker: operations on it, and the opening of its mailboxes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from mailserver.errors import MailboxChanged, MailError
from mailserver.store.columns import Columns
from mailserver.store.interfaces import (
    Account,
    Copied,
    Mailbox,
    MailboxList,
    Progress,
    ScanTooLarge,
    Status,
    Store,
    StoreRunner,
)
from mailserver.store.live.account_changes import AccountChanges
from mailserver.store.live.deliveries import Deliveries, Stage
from mailserver.store.live.mailbox import LiveMailbox
from mailserver.store.live.open_mailboxes import OpenMailboxes
from mailserver.store.live.statuses import StatusCache, read_statuses
from mailserver.store.receiving import Appended, Delivery, NewMessage
from mailserver.store.rows import Changes, MailboxStamp
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID, MailboxId, Quota, account_id

if TYPE_CHECKING:
    from mailserver.store.live.accounts import LiveAccounts

T = TypeVar("T")

_READINGS = 2
"""Tries to have another process read a mailbox that gets very many new files again and again."""
_SLICE_OCTETS = 1 << 20


class LiveAccount(OpenMailboxes):
    """One account open in this worker, shared by its sessions."""

    def __init__(self, accounts: LiveAccounts, user: str, home: str | None, runner: StoreRunner) -> None:
        super().__init__(accounts)
        self.user = user
        self.home = home
        self.users = 0
        self.operations = 0
        """The number of operations so far."""
        self._runner = runner
        self._account: Account | None = None
        self._deliveries = Deliveries()
        self._list: MailboxList | None = None
        self._statuses = StatusCache()
        self._changes: AccountChanges | None = None
        self._quota = Quota()
        self.quota_as_of: float | None = None
        """When a session last looked up the limits, on its clock."""
        self.orders_running: set[str] = set()
        """Kinds of work of SORT and THREAD that a session has begun and not ended."""

    @property
    def account(self) -> Account:
        """The blocking side of an open account; use it only inside `run`."""
        if self._account is None:
            raise RuntimeError("the account is not open yet")
        return self._account

    @property
    def quota(self) -> Quota:
        """Limits that additions keep to."""
        return self._quota

    @quota.setter
    def quota(self, limits: Quota) -> None:
        self._quota = limits
        if self._account is not None:
            self._account.quota = limits

    @property
    def opened(self) -> bool:
        """True once the blocking side is open."""
        return self._account is not None

    @property
    def is_gone(self) -> bool:
        """Tell whether the Maildir has been moved away since it was opened. One stat."""
        return self._account is not None and not self._account.is_there

    def open(self, store: Store) -> None:
        """Open the blocking side, once, in the account's turn. Raises: NoSpace, StoreUnavailable."""
        if self._account is None:
            account = store.account(self.user, self.home)
            account.quota = self._quota
            self._account = account

    def run(self, operation: Callable[[], T]) -> Awaitable[T]:
        """Run a blocking operation in this account's turn."""
        self.operations += 1
        self._accounts.open_indexes.used(self)
        self.schedule_maintenance()
        return self._runner.run(operation)

    def schedule_maintenance(self) -> None:
        """Schedule maintenance if there may be any: called before an operation, and after one that changes much."""
        if self._account is not None and self._account.has_maintenance:
            self._accounts.wake(self)

    def report_quota(self) -> None:
        """Have the user warned of a quota, if that is due: called after an operation that adds messages."""
        warning = None if self._account is None else self._account.take_quota_warning()
        if warning is not None:
            self._accounts.warn(self.user, self.home, warning)

    def release_resources(self) -> Awaitable[None]:
        """Close its index and files after the operations that are queued. The next use opens them again."""
        self._list = None
        return self._runner.run(self.account.close)

    def maintain(self, stop: Callable[[], bool]) -> Awaitable[tuple[float | None, float]]:
        """Run `Account.maintain` in this account's turn; its result, and the processor seconds that it took."""

        def work() -> tuple[float | None, float]:
            started = time.thread_time()
            return self.account.maintain(stop), time.thread_time() - started

        self._accounts.open_indexes.used(self)
        return self._runner.run(work)

    async def mailbox_list(self) -> MailboxList:
        """Return the account's mailboxes: the last list, without a hop, if the disk proves that it holds."""
        known = self._list
        if known is None or not known.is_current():
            known = self._list = await self.run(self.account.mailbox_list)
        return known

    async def select(self, name: str) -> LiveMailbox:
        """Open a mailbox, up to date. Release it with `release`. Raises: NoSuchMailbox."""
        live = self.select_at_once(name)
        if live is None:
            live, _ = await self.select_and(name, lambda _mailbox: None)
        return live

    async def reading(self, operation: Callable[[bool], T], progress: Progress | None = None) -> T:
        """Run a blocking operation that reads a mailbox from disk, in this account's turn; it may be called several
        times.

        If there are very many new files, a process of its own reads them first (`scan_pool`), between two turns of this
        account. The operation's argument is True right after that, so that it need not read the mailbox again.
        """
        has_read = False
        scans = self._accounts.scans
        for _ in range(_READINGS if scans is not None else 0):
            try:
                return await self.run(partial(self._bounded, operation, has_read))
            except ScanTooLarge as much:
                assert scans is not None
                has_read = await scans.read(much.order, progress)
                if not has_read:
                    break
        return await self.run(lambda: operation(has_read))

    def _bounded(self, operation: Callable[[bool], T], has_read: bool) -> T:
        with self.account.bounded():
            return operation(has_read)

    async def select_and(
        self, name: str, operation: Callable[[Mailbox], T], progress: Progress | None = None
    ) -> tuple[LiveMailbox, T]:
        """Do `select`, and `operation` once on the mailbox before it is read, in the same turn of the account's thread."""
        done: list[T] = []

        def open_and_read(has_read: bool) -> tuple[Mailbox, LiveMailbox | None, Columns | Changes, MailboxStamp | None]:
            mailbox = self.account.mailbox(name)
            self._accounts.opening(mailbox.id)
            if not has_read:
                mailbox.refresh()
            if not done:
                done.append(operation(mailbox))
            known = self._mailboxes.get(mailbox.id)
            if known is not None:
                with suppress(MailboxChanged):
                    changes = known.mailbox.changes_since(known.columns.modseq).packed()
                    return mailbox, known, changes, changes.stamp
            # Columns are made here: on the reactor's thread a large mailbox would hold up all sessions.
            snapshot = mailbox.load()
            return mailbox, known, Columns(snapshot), snapshot.stamp

        while True:
            expected = self._names.get(name)
            if expected is not None:
                expected.begin_refresh()
            try:
                mailbox, known, news, stamp = await self.reading(open_and_read, progress)
            except BaseException:
                if expected is not None:
                    expected.end_refresh(seen=False)
                raise
            if expected is not None:
                expected.end_refresh(seen=expected is known and isinstance(news, Changes))
            live = self._mailboxes.get(mailbox.id)
            if isinstance(news, Changes):
                if live is None or live is not known:
                    continue  # its columns were dropped meanwhile
                live.take_up(news)
                if not self.keeps(live):
                    continue  # its columns lacked a message
            elif live is None or live is known:
                if live is not None:
                    live.poked()  # the mailbox was made anew below its sessions
                    self.forget(live.id)
                live = self._mailboxes[mailbox.id] = LiveMailbox(self, mailbox, news, stamp)
            elif live.columns.modseq < news.modseq:
                continue  # another session made it meanwhile, from an older picture
            break
        self._names[live.mailbox.name] = live
        self._enter(live)
        return live, done[0]

    async def status(self, name: str, progress: Progress | None = None, *, measured: bool = False) -> Status:
        """Return the mailbox's status, up to date: the last one if the disk proves that it holds.

        With `measured`, messages of unknown size are read, in many turns of the account's thread. Raises: NoSuchMailbox.
        """
        status = await self._status(name, progress)
        if measured and status.unmeasured:
            first: UID | None = UID(1)
            while first is not None:
                first = await self.run(partial(self._measure_rest, name, first))
            self._statuses.forget(name)
            status = await self._status(name, progress)
        return status

    def _measure_rest(self, name: str, first: UID) -> UID | None:
        return self.account.mailbox(name).measure_rest(first, TimeSlice(_SLICE_OCTETS))

    async def _status(self, name: str, progress: Progress | None) -> Status:
        known = self._statuses.current(name)
        if known is not None:
            return known

        def open_and_count(has_read: bool) -> Status:
            mailbox = self.account.mailbox(name)
            if not has_read:
                mailbox.refresh()
            return mailbox.status()

        status = await self.reading(open_and_count, progress)
        self._statuses.keep(name, status)
        return status

    def statuses(
        self, names: Sequence[str], progress: Progress | None = None, *, measured: bool = False
    ) -> Awaitable[Mapping[str, Status | MailError]]:
        """Return `status` of each of these mailboxes, or the MailError that it raises. One hop for hundreds of mailboxes.

        A mailbox that another process must read first, or with messages to be measured, is read last, by itself.
        Raises: StoreUnavailable.
        """
        return read_statuses(self, self._statuses, names, progress, measured=measured)

    async def append(self, name: str, messages: list[NewMessage]) -> Appended:
        """Append staged messages and notify the sessions that have the mailbox open."""
        return await self.deliver(lambda _account: Delivery(name, messages))

    async def deliver(self, stage: Stage) -> Appended:
        """Append the messages of `stage`. In the same turn of the account's thread, read what is new for open sessions.

        Deliveries that wait for their turn at the same time are done together. Raises: as `Account.append`, and what
        `stage` raises.
        """
        waiting = self._deliveries.add(stage)

        def deliver_and_read() -> tuple[Appended, LiveMailbox | None, Changes | None]:
            appended = self._deliveries.finish(waiting, self.account, self._has_listener, self._note_claimed)
            live = self._mailboxes.get(appended.mailbox)
            if live is None:
                return appended, None, None
            try:
                return appended, live, live.read_appended(appended)
            except MailError:
                # The messages are stored; open sessions read them later.
                return appended, live, None

        try:
            appended, live, changes = await self.run(deliver_and_read)
        finally:
            self.report_quota()
        if live is None or changes is None:
            self.poked(appended.mailbox, ())
        else:
            live.take_up(changes)
        self.notify_others(appended.mailbox)
        self.schedule_maintenance()
        return appended

    def _has_listener(self, mailbox: MailboxId) -> bool:
        """Tell whether a session here that claims \\Recent messages reports new ones at once."""
        live = self._mailboxes.get(mailbox)
        return live is not None and live.has_listener

    def _note_claimed(self, appended: Appended) -> None:
        live = self._mailboxes.get(appended.mailbox)
        if live is not None:
            live.record_claimed(appended)

    async def annotate(self, name: str | None, changes: Mapping[str, bytes | None], most: int) -> None:
        """Do `Account.annotate`, and notify the sessions that have the mailbox open: its modseq is another one."""
        change = await self.reading(lambda _has_read: self.account.annotate(name, changes, most))
        if change is None:
            return
        if name is None or change.mailbox is None:
            self.poke_names()
            return
        self._statuses.forget(name)
        self.poke(change.mailbox, ())

    async def copy(
        self, live: LiveMailbox, uids: list[UID], target: str, *, move: bool = False, skip_expunged: bool = False
    ) -> Copied:
        """Copy or move messages and notify the sessions that have the target open. A move always skips expunged
        messages.
        """
        try:
            if move:
                copied = await live.change(lambda mailbox: mailbox.move(uids, target), len(uids))
            else:
                copied = await live.run(lambda mailbox: mailbox.copy(uids, target, skip_expunged=skip_expunged))
        finally:
            self.report_quota()
        self.poke(copied.mailbox, ())
        return copied

    async def replace(self, live: LiveMailbox, uid: UID, target: str, message: NewMessage) -> Appended:
        """Publish a staged message in the place of one of an open mailbox, and notify the sessions that have the target open.

        Nothing stays staged. Raises: as `Mailbox.replace`.
        """

        def replace(mailbox: Mailbox) -> Appended:
            try:
                return mailbox.replace(uid, target, message)
            finally:
                message.staged.abort()

        try:
            appended = await live.change(replace)
        finally:
            self.report_quota()
        if appended.mailbox != live.id:
            self.poke(appended.mailbox, ())
        return appended

    def poke(self, mailbox: MailboxId, names: Collection[str] | None = None) -> None:
        """Notify the sessions here and the other workers that this mailbox changed."""
        self.poked(mailbox, names)
        self.notify_others(mailbox)

    def poke_names(self) -> None:
        """Notify the sessions that follow the account, here and in other workers, that its names or annotations changed."""
        self.notify_others(account_id(self.user))

    def changes(self) -> AccountChanges:
        """Return the changes of the account, for a session that joins them."""
        if self._changes is None:
            self._changes = AccountChanges(self)
            self._accounts.follow(self._changes)
        return self._changes

    def end_changes(self, changes: AccountChanges) -> None:
        """Note that no session follows the account any more."""
        if self._changes is changes:
            self._changes = None
            self._accounts.unfollow(changes)

    def refollow(self, changes: AccountChanges) -> None:
        """Note that the names that are followed have changed."""
        if self._changes is changes:
            self._accounts.watch_names(changes)

    def notify_others(self, mailbox: MailboxId) -> None:
        """Notify the other workers, and the sessions here that follow the whole account."""
        self._accounts.notify_others(self.user, mailbox)
        if self._changes is not None:
            self._changes.poked((mailbox,))
