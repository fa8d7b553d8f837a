"""One account that is open in this worker: its mailboxes by id and by name, and operations on the account itself."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
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
from mailserver.store.live.deliveries import Deliveries, Stage
from mailserver.store.live.mailbox import LiveMailbox
from mailserver.store.live.message_cache import MessageCache
from mailserver.store.receiving import Appended, Delivery, NewMessage
from mailserver.store.rows import Changes, MailboxStamp
from mailserver.types import UID, MailboxId

if TYPE_CHECKING:
    from mailserver.store.live.accounts import LiveAccounts

T = TypeVar("T")

_READINGS = 2
"""Tries to have another process read a mailbox that gets very many new files again and again."""
MOST_STATUSES = 1024
"""Statuses of one account that are kept, some 500 octets each. Clients ask for all their mailboxes in turn: with more, none is found."""


class LiveAccount:
    """One account open in this worker, shared by its sessions."""

    def __init__(self, accounts: LiveAccounts, user: str, home: str | None, runner: StoreRunner) -> None:
        self.user = user
        self.home = home
        self.users = 0
        self.operations = 0
        """The number of operations so far."""
        self._accounts = accounts
        self._runner = runner
        self._account: Account | None = None
        self._mailboxes: dict[MailboxId, LiveMailbox] = {}
        self._names: dict[str, LiveMailbox] = {}
        """By the name under which they were last selected. A user of this checks that the name still holds."""
        self._deliveries = Deliveries()
        self._list: MailboxList | None = None
        self._statuses: OrderedDict[str, tuple[Status, MailboxStamp]] = OrderedDict()

    @property
    def account(self) -> Account:
        """The blocking side of an open account; use it only inside `run`."""
        if self._account is None:
            raise RuntimeError("the account is not open yet")
        return self._account

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
            self._account = store.account(self.user, self.home)

    @property
    def message_cache(self) -> MessageCache:
        """The worker's cache of messages that were just read."""
        return self._accounts.message_cache

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

    def select_at_once(self, name: str) -> LiveMailbox | None:
        """Do `select` without a hop, if this worker has the mailbox and the disk proves that it has not changed.

        Nothing in it is \\Recent then.
        """
        live = self._names.get(name)
        if live is None:
            return None
        if live.users == 0:
            self._accounts.opening(live.id)
        if not live.is_current(name):
            return None
        live.claims.add(range(0), live.columns.uid_next)
        self._enter(live)
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

    def _enter(self, live: LiveMailbox) -> None:
        live.users += 1
        if live.users == 1:
            self._accounts.take(live)
            self._accounts.watch(live)

    async def status(self, name: str, progress: Progress | None = None) -> Status:
        """Return the mailbox's status, up to date: the last one if the disk proves that it holds. Raises:
        NoSuchMailbox.
        """
        known = self._statuses.get(name)
        if known is not None and known[1].unchanged(name):
            return known[0]

        def open_and_count(has_read: bool) -> Status:
            mailbox = self.account.mailbox(name)
            if not has_read:
                mailbox.refresh()
            return mailbox.status()

        status = await self.reading(open_and_count, progress)
        self._statuses.pop(name, None)
        if status.stamp is not None and status.stamp.settled:
            self._statuses[name] = status, status.stamp
            if len(self._statuses) > MOST_STATUSES:
                self._statuses.popitem(last=False)
        return status

    def release(self, live: LiveMailbox) -> None:
        """Note that a session has left the mailbox. Its columns stay while there is room."""
        live.users -= 1
        if live.users == 0:
            self._accounts.leave(live)
            if not live.columns.whole and self.keeps(live):
                self.forget(live.id)
            elif self.keeps(live):
                self._accounts.keep(live)
            else:
                self._accounts.unwatch(live)

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

        appended, live, changes = await self.run(deliver_and_read)
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

    async def copy(
        self, live: LiveMailbox, uids: list[UID], target: str, *, move: bool = False, skip_expunged: bool = False
    ) -> Copied:
        """Copy or move messages and notify the sessions that have the target open. A move always skips expunged
        messages.
        """
        if move:
            copied = await live.change(lambda mailbox: mailbox.move(uids, target), len(uids))
        else:
            copied = await live.run(lambda mailbox: mailbox.copy(uids, target, skip_expunged=skip_expunged))
        self.poke(copied.mailbox, ())
        return copied

    def poke(self, mailbox: MailboxId, names: Collection[str] | None = None) -> None:
        """Notify the sessions here and the other workers that this mailbox changed."""
        self.poked(mailbox, names)
        self.notify_others(mailbox)

    def poked(self, mailbox: MailboxId, names: Collection[str] | None = None) -> None:
        """Notify the sessions here that this mailbox changed."""
        live = self._mailboxes.get(mailbox)
        if live is not None:
            live.poked(names)

    def pause(self, live: LiveMailbox) -> None:
        """Pause the watcher: many changes follow."""
        self._accounts.pause(live)

    def resume(self, live: LiveMailbox) -> None:
        """Let the watcher continue."""
        self._accounts.resume(live)

    def notify_others(self, mailbox: MailboxId) -> None:
        """Notify the other workers."""
        self._accounts.notify_others(self.user, mailbox)

    def forget(self, mailbox: MailboxId) -> None:
        """Drop the mailbox: it is deleted, or there is no room. Sessions that have it open continue."""
        live = self._mailboxes.pop(mailbox, None)
        if live is not None:
            self._names = {name: other for name, other in self._names.items() if other is not live}
            self.message_cache.forget_mailbox(live)
            self._accounts.take(live)
            if live.users == 0:
                self._accounts.unwatch(live)

    def keeps(self, live: LiveMailbox) -> bool:
        """Tell whether it is the current one with its id. Sessions may continue in one that was dropped."""
        return self._mailboxes.get(live.id) is live

    def drop(self, live: LiveMailbox) -> None:
        """Do `forget`, unless another one has taken its place."""
        if self.keeps(live):
            self.forget(live.id)

    def distrust(self, live: LiveMailbox) -> None:
        """Reread a mailbox whose session ended in the middle of its work. If other sessions have it open, compare it
        whole.

        These continue in it, so it must stay the one that gets notified.
        """
        if live.users > 1:
            live.poked()
        else:
            self.drop(live)

    def forget_all(self) -> None:
        """Drop all mailboxes, as the account is being closed."""
        for mailbox in tuple(self._mailboxes):
            self.forget(mailbox)
