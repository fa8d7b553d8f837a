"""Watch the mailboxes of accounts that sessions follow as a whole (RFC 5465), for changes by other programs.

The watches are one inotify instance's of its own: the kernel has one number for a directory, which `watcher` may have, too. All
sessions of an account share them. They are set a few a turn of the reactor, up to MOST_MAILBOXES in the worker; further
mailboxes, and those that the system refuses to watch, are compared with the disk every COMPARE_TIME, as all others are: three
stats for one that has not changed. Own changes are events, too: they cost another comparison.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mailserver.errors import MailError
from mailserver.notify.inotify import Inotify
from mailserver.store.live import AccountChanges

MOST_MAILBOXES: Final = 4096
"""Mailboxes that are watched in a worker, each by two watches."""
AT_ONCE: Final = 32
"""Mailboxes whose watches are set in one turn of the reactor."""
SETTLE_TIME: Final = 1.0
"""Seconds after a change of names until they are read once more."""
COMPARE_TIME: Final = 30.0
"""Seconds between two comparisons of all mailboxes with the disk."""
_LIST_FILES: Final = frozenset({"subscriptions", "mailserver-special-use"})
"""Files of the root that the list of mailboxes is made of."""

log = Logger(namespace="mailserver")


class AccountWatcher:
    """All followed accounts of a worker."""

    def __init__(self, reactor: IReactorFDSet, clock: IReactorTime) -> None:
        self._reactor = reactor
        self._clock = clock
        self._inotify: Inotify | None = None
        self._accounts: dict[AccountChanges, dict[str, list[int]]] = {}
        """The watches of each mailbox by its name; the account's own list is ""."""
        self._watches: dict[int, tuple[AccountChanges, str]] = {}
        self._wanted: deque[tuple[AccountChanges, str]] = deque()
        self._setting: IDelayedCall | None = None
        self._settling: dict[AccountChanges, IDelayedCall] = {}
        self._comparisons = LoopingCall(self._compare)
        self._comparisons.clock = clock
        self._is_available = True

    def stop(self) -> None:
        """Stop watching everything."""
        for changes in tuple(self._accounts):
            self.unwatch(changes)

    def watch(self, changes: AccountChanges) -> None:
        """Watch the mailboxes that are followed now, and no others."""
        if not self._comparisons.running:
            self._comparisons.start(COMPARE_TIME, now=False)
        watched = self._accounts.get(changes)
        if watched is None:
            watched = self._accounts[changes] = {}
        for name in [name for name in watched if name and name not in changes.counts]:
            self._remove(watched.pop(name))
        new = [name for name in ("", *changes.counts) if name not in watched]
        watched.update((name, []) for name in new)
        self._wanted.extend((changes, name) for name in new)
        if self._setting is None and self._wanted:
            self._setting = self._clock.callLater(0, self._set_some)

    def unwatch(self, changes: AccountChanges) -> None:
        """Stop watching the account."""
        for numbers in self._accounts.pop(changes, {}).values():
            self._remove(numbers)
        settling = self._settling.pop(changes, None)
        if settling is not None:
            settling.cancel()
        if not self._accounts:
            self._wanted.clear()
            if self._setting is not None:
                self._setting.cancel()
                self._setting = None
            if self._comparisons.running:
                self._comparisons.stop()
            if self._inotify is not None:
                self._inotify.close()
                self._inotify = None
                self._watches.clear()

    def _set_some(self) -> None:
        self._setting = None
        inotify = self._started()
        for _ in range(min(AT_ONCE, len(self._wanted))):
            changes, name = self._wanted.popleft()
            numbers = self._accounts.get(changes, {}).get(name)
            if inotify is None or numbers is None or numbers or len(self._watches) >= 2 * MOST_MAILBOXES:
                continue
            numbers += self._add(inotify, changes, name)
            if numbers:
                # What changed before the watch was set is compared now.
                changes.poked(names=[name] if name else ())
        if self._wanted:
            self._setting = self._clock.callLater(0, self._set_some)

    def _add(self, inotify: Inotify, changes: AccountChanges, name: str) -> list[int]:
        numbers: list[int] = []
        try:
            for path in changes.watched_paths(name):
                number = inotify.add(path)
                numbers.append(number)
                self._watches[number] = changes, name
        except (OSError, MailError) as error:
            # It is gone, or the system allows no more watches.
            log.debug("cannot watch {name}: {reason}", name=name, reason=str(error))
        return numbers

    def _started(self) -> Inotify | None:
        if self._inotify is None and self._is_available:
            try:
                self._inotify = Inotify(self._reactor, self._clock, self._changed, self._compare)
            except OSError as error:
                self._is_available = False
                log.warn(
                    "no inotify ({reason}): changes by other programs are seen within {seconds} s",
                    event="mailboxes-polled",
                    reason=str(error),
                    seconds=round(COMPARE_TIME),
                )
        return self._inotify

    def _remove(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if self._watches.pop(number, None) is not None and self._inotify is not None:
                self._inotify.remove(number)

    def _changed(self, watch: int, names: Sequence[str] | None, _arrived: Collection[str]) -> None:
        found = self._watches.get(watch)
        if found is None:
            return
        changes, mailbox = found
        if names is None:
            # The directory is gone; the number may come again for another one.
            self._watches.pop(watch)
            self._accounts[changes][mailbox].remove(watch)
        if mailbox:
            changes.poked(names=[mailbox])
        elif names is None or any(name.startswith(".") or name in _LIST_FILES for name in names):
            changes.poked()
            if changes not in self._settling:
                # Another program makes the directory of a mailbox first, and what is in it afterwards.
                self._settling[changes] = self._clock.callLater(SETTLE_TIME, self._settle, changes)

    def _settle(self, changes: AccountChanges) -> None:
        del self._settling[changes]
        changes.poked()

    def _compare(self) -> None:
        for changes in tuple(self._accounts):
            changes.poked(whole=True)
