"""The mailboxes of one account that this worker has in memory: by id and by name, open in sessions or kept for the next one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from mailserver.store.live.mailbox import LiveMailbox
from mailserver.store.live.message_cache import MessageCache
from mailserver.store.live.order_cache import OrderCache
from mailserver.types import MailboxId

if TYPE_CHECKING:
    from mailserver.store.live.accounts import LiveAccounts


class OpenMailboxes:
    """The part of an account that holds its mailboxes; `LiveAccount` is the whole."""

    def __init__(self, accounts: LiveAccounts) -> None:
        self._accounts = accounts
        self._mailboxes: dict[MailboxId, LiveMailbox] = {}
        self._names: dict[str, LiveMailbox] = {}
        """By the name under which they were last selected. A user of this checks that the name still holds."""

    @property
    def message_cache(self) -> MessageCache:
        """The worker's cache of messages that were just read."""
        return self._accounts.message_cache

    @property
    def orders(self) -> OrderCache:
        """The worker's cache of sorted and threaded mailboxes."""
        return self._accounts.orders

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

    def _enter(self, live: LiveMailbox) -> None:
        live.users += 1
        if live.users == 1:
            self._accounts.take(live)
            self._accounts.watch(live)

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

    def poked(self, mailbox: MailboxId, names: Collection[str] | None = None) -> None:
        """Notify the sessions here that this mailbox changed."""
        live = self._mailboxes.get(mailbox)
        if live is not None:
            live.poked(names)

    def change_flag(self, mailbox: MailboxId) -> Callable[[], int]:
        """Return a function that is true once another worker may have changed the mailbox."""
        return self._accounts.change_flag(mailbox)

    def take_changed(self, mailbox: MailboxId) -> None:
        """Poke the mailboxes with the change flag of this one, and clear it."""
        self._accounts.take_changed(mailbox)

    def pause(self, live: LiveMailbox) -> None:
        """Pause the watcher: many changes follow."""
        self._accounts.pause(live)

    def resume(self, live: LiveMailbox) -> None:
        """Let the watcher continue."""
        self._accounts.resume(live)

    def forget(self, mailbox: MailboxId) -> None:
        """Drop the mailbox: it is deleted, or there is no room. Sessions that have it open continue."""
        live = self._mailboxes.pop(mailbox, None)
        if live is not None:
            self._names = {name: other for name, other in self._names.items() if other is not live}
            self.message_cache.forget_mailbox(live)
            self.orders.forget_mailbox(live)
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
