"""All accounts that are open in this worker, and the bounds of accounts and mailboxes kept without a session."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

from attrs import frozen

from mailserver.store.interfaces import Store, StoreRunner
from mailserver.store.live.account import LiveAccount
from mailserver.store.live.account_changes import AccountChanges
from mailserver.store.live.mailbox import LiveMailbox
from mailserver.store.live.message_cache import MessageCache
from mailserver.store.live.open_indexes import OpenIndexes
from mailserver.store.live.order_cache import OrderCache
from mailserver.store.quota import QuotaWarning
from mailserver.store.scan_pool import ScanPool
from mailserver.types import MailboxId, Quota

LEAST_MESSAGES = 1000
"""Least size that counts for a mailbox kept without a session: an empty one costs memory, too."""


def notify_nobody(_user: str, _mailbox: MailboxId) -> None:
    """`notify_others` if there are no other workers."""


def warn_nobody(_user: str, _home: str | None, _warning: QuotaWarning) -> None:
    """`warn` where users are not warned."""


def keep_private(_mailbox: MailboxId) -> bool:
    """`opening`, `opened` and `closed` if there are no other workers."""
    return True


def never_changed(_mailbox: MailboxId) -> Callable[[], int]:
    """`change_flag` if there are no other workers."""
    return int


def take_nothing(_mailbox: MailboxId) -> Sequence[MailboxId]:
    """`take_changed` if there are no other workers."""
    return ()


@frozen
class Usage:
    """The resources that a worker has open and keeps."""

    accounts_in_use: int
    accounts_kept: int
    """Open accounts without a session."""
    indexes: int
    """Accounts whose index may be open."""
    mailboxes_in_use: int
    messages_in_use: int
    """In the columns of mailboxes that a session has open."""
    mailboxes_kept: int
    messages_kept: int
    """In mailboxes without a session; each counts at least LEAST_MESSAGES."""
    octets_kept: int
    """Octets of cached messages and summaries."""
    files_kept: int
    """Message files that are kept open."""


class LiveAccounts:
    """All open accounts of a worker. Accounts without a session stay open while there is room."""

    def __init__(
        self,
        store: Store,
        make_runner: Callable[[], StoreRunner],
        *,
        notify_others: Callable[[str, MailboxId], None] = notify_nobody,
        opening: Callable[[MailboxId], object] = keep_private,
        opened: Callable[[MailboxId], bool] = keep_private,
        closed: Callable[[MailboxId], object] = keep_private,
        change_flag: Callable[[MailboxId], Callable[[], int]] = never_changed,
        take_changed: Callable[[MailboxId], Sequence[MailboxId]] = take_nothing,
        watch: Callable[[LiveMailbox], None] = lambda _live: None,
        leave: Callable[[LiveMailbox], None] = lambda _live: None,
        unwatch: Callable[[LiveMailbox], None] = lambda _live: None,
        pause: Callable[[LiveMailbox], None] = lambda _live: None,
        resume: Callable[[LiveMailbox], None] = lambda _live: None,
        watch_names: Callable[[AccountChanges], None] = lambda _changes: None,
        unwatch_names: Callable[[AccountChanges], None] = lambda _changes: None,
        wake: Callable[[LiveAccount], None] = lambda _account: None,
        warn: Callable[[str, str | None, QuotaWarning], None] = warn_nobody,
        scans: ScanPool | None = None,
        max_unused_accounts: int = 64,
        max_unused_messages: int = 2_000_000,
        message_cache: MessageCache | None = None,
        open_indexes: OpenIndexes | None = None,
    ) -> None:
        """Callbacks, and bounds that may change at any time.

        `opening`: a mailbox is about to be read, on any thread; `opened`: its first session is there, and other workers' pokes
        are wanted; it returns False if one may have been missed since `opening`. `closed`: its last session has left.
        `change_flag`: returns a function that is true once another worker may have changed the mailbox; `take_changed` clears
        that, and returns the mailboxes that may have changed. `watch`: a session has opened the mailbox; `leave`: the last session has left it; `unwatch`: it is not kept
        either. `pause`: a change of many messages begins in it; `resume`: it is over. `watch_names`: a
        session follows the account, or the mailboxes that are followed have changed; `unwatch_names`: none does any more. `warn`: a user is to be warned of a quota. `scans` reads mailboxes with very
        many new files; without it they are read in the account's thread. `open_indexes` has the bound of accounts with and
        without a session whose index is open.
        """
        self.notify_others = notify_others
        self.opening = opening
        self._opened = opened
        self._closed = closed
        self.change_flag = change_flag
        self._take_changed = take_changed
        self.message_cache = message_cache if message_cache is not None else MessageCache()
        self.orders = OrderCache()
        self.wake = wake
        self.warn = warn
        self.scans = scans
        self._watch = watch
        self._leave = leave
        self.unwatch = unwatch
        self.pause = pause
        self.resume = resume
        self.watch_names = watch_names
        self._unwatch_names = unwatch_names
        self._followed: dict[MailboxId, AccountChanges] = {}
        self._open: dict[MailboxId, list[LiveMailbox]] = {}
        self._store = store
        self._make_runner = make_runner
        self.max_unused_accounts = max_unused_accounts
        self.max_unused_messages = max_unused_messages
        self._accounts: OrderedDict[str, LiveAccount] = OrderedDict()
        self.open_indexes = open_indexes if open_indexes is not None else OpenIndexes()
        self._unused: OrderedDict[LiveMailbox, int] = OrderedDict()
        self._unused_messages = 0

    async def open(self, user: str, home: str | None = None, quota: Quota | None = None) -> LiveAccount:
        """Open the account, with its present limits if they are given. Release it with `release`.

        Raises: NoSpace, StoreUnavailable.
        """
        live = self._accounts.get(user)
        if live is not None and live.users == 0 and (live.home != home or live.is_gone):
            self._close(live)
            live = None
        if live is None:
            # Registered before it is open: other sessions wait in the same queue.
            live = self._accounts[user] = LiveAccount(self, user, home, self._make_runner())
        if quota is not None:
            live.quota = quota
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
        """Note that a session has left the account."""
        live.users -= 1
        self.trim()

    def usage(self) -> Usage:
        """Return what is open and kept now."""
        in_use = [live for live in self._accounts.values() if live.users]
        open_now = self.all_open()
        return Usage(
            accounts_in_use=len(in_use),
            accounts_kept=len(self._accounts) - len(in_use),
            indexes=len(self.open_indexes),
            mailboxes_in_use=len(open_now),
            messages_in_use=sum(len(live.columns) for live in open_now),
            mailboxes_kept=len(self._unused),
            messages_kept=self._unused_messages,
            octets_kept=self.message_cache.octets_kept,
            files_kept=self.message_cache.files_kept,
        )

    def get(self, user: str) -> LiveAccount | None:
        """Return the account if it is open here, for pokes."""
        return self._accounts.get(user)

    def watch(self, live: LiveMailbox) -> None:
        """Watch a mailbox that has its first session now."""
        self._open.setdefault(live.id, []).append(live)
        missed = not self._opened(live.id)
        self._watch(live)
        if missed:
            live.poked()

    def leave(self, live: LiveMailbox) -> None:
        """Stop watching a mailbox whose last session has left. The next session reads from disk what changed."""
        same_id = self._open[live.id]
        same_id.remove(live)
        self._closed(live.id)
        if not same_id:
            del self._open[live.id]
        self._leave(live)

    def having_any(self, mailboxes: Iterable[MailboxId]) -> list[LiveMailbox]:
        """Return the open mailboxes with one of these ids: a copied Maildir has the same id in two accounts."""
        return [live for mailbox in mailboxes for live in self._open.get(mailbox, ())]

    def follow(self, changes: AccountChanges) -> None:
        """Take pokes of other workers for the whole account."""
        self.opening(changes.id)
        self._followed[changes.id] = changes
        # What was missed shows in the first reading, which is yet to come.
        self._opened(changes.id)

    def unfollow(self, changes: AccountChanges) -> None:
        """Take them no more."""
        del self._followed[changes.id]
        self._closed(changes.id)
        self._unwatch_names(changes)

    def poke_followed(self, ids: Collection[MailboxId]) -> None:
        """Poke the followed accounts that are named by their own id, with the other ids of the same datagrams."""
        if self._followed:
            for changes in [self._followed[each] for each in ids if each in self._followed]:
                changes.poked(ids)

    def check_followed(self) -> None:
        """Have all mailboxes of followed accounts compared."""
        for changes in tuple(self._followed.values()):
            changes.poked(whole=True)

    def take_changed(self, mailbox: MailboxId) -> None:
        """Poke the open mailboxes that may have changed, as the change flag of this one is set."""
        for live in self.having_any(self._take_changed(mailbox)):
            live.poked(())

    def all_open(self) -> list[LiveMailbox]:
        """Return every mailbox that a session has open."""
        return [live for same_id in self._open.values() for live in same_id]

    def keep(self, live: LiveMailbox) -> None:
        """Keep the columns of a mailbox without a session while there is room, the most recently used longest."""
        self.take(live)
        size = self._unused[live] = max(len(live.columns), LEAST_MESSAGES)
        self._unused_messages += size
        while self._unused_messages > self.max_unused_messages:
            oldest = next(iter(self._unused))
            oldest.account.forget(oldest.id)

    def take(self, live: LiveMailbox) -> None:
        """Stop counting it as kept: it has a session again, or is dropped."""
        self._unused_messages -= self._unused.pop(live, 0)

    def trim(self) -> None:
        """Close accounts without a session above the bound, least recently used first."""
        idle = [live for live in self._accounts.values() if live.users == 0]
        for live in idle[: max(0, len(idle) - self.max_unused_accounts)]:
            self._close(live)

    def close(self) -> list[Awaitable[None]]:
        """Close every account at the end of the service, after its last operation. Return what to wait for."""
        self.open_indexes.stop()
        self.message_cache.stop()
        return [waiting for live in tuple(self._accounts.values()) if (waiting := self._close(live)) is not None]

    def _close(self, live: LiveAccount) -> Awaitable[None] | None:
        del self._accounts[live.user]
        live.forget_all()
        self.open_indexes.forget(live)
        return live.release_resources() if live.opened else None
