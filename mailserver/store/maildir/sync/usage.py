"""The usage of an account by the kept sums, and the check of its quota. Under the account's lock.

The first check of an account counts it: mailboxes that the index lacks are read, and sums that are missing are made. From
then on a check reads one row. Mail that another program adds counts from when the mailbox is read, and is never refused.
Mail that it removes must not cause a refusal: before one, all mailboxes are read, at most once a second.
Prepared messages count before they are published, as their publication cannot be refused.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from mailserver.errors import MailError, OverQuota
from mailserver.store import quota
from mailserver.store.index.database import Index
from mailserver.store.index.sums import ACCOUNT, Sum
from mailserver.store.maildir.home import intent, recovery
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.sync.reconcile import reconcile, sync_uidlist
from mailserver.types import UID, Usage

_NAMED: Final = re.compile(r",[SW]=([0-9]{1,18})")
"""Sizes in the name of a message file: S= on disk, W= as sent."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


def usage(home: Home) -> Usage:
    """Return the messages of the account and their octets. The number of mailboxes is 0. Raises: StoreUnavailable."""
    total = home.read(lambda index: index.sums.of(ACCOUNT)) or count(home)
    if total.unmeasured:
        total = _estimate(home, total)
    messages, octets = total.messages, total.octets + total.estimated
    if home.intents_left:
        for size in _prepared_sizes(home):
            messages += 1
            octets += size
    return Usage(octets, messages, 0)


class Addition:
    """Messages that are about to be added: checked before, and followed by a warning of the user if one is due."""

    def __init__(self, home: Home) -> None:
        """Under the account's lock, before anything is added. Raises: StoreUnavailable."""
        self._home = home
        self._limits = home.quota.limits
        self._before = usage(home) if self._limits.limits_messages else None
        self._checked = Usage(0, 0, 0)

    def check(self, octets: int, messages: int = 1) -> None:
        """Check further messages, after those that were checked before. Raises: OverQuota."""
        before = self._before
        if before is None:
            return
        checked = self._checked
        more = Usage(checked.storage + octets, checked.messages + messages, 0)
        try:
            quota.check(self._limits, before, more.messages, more.storage)
        except OverQuota:
            if not self._home.quota.look_is_due:
                self._warn(before, before, refused=True)
            raise
        self._checked = more

    def done(self) -> None:
        """Note that the checked messages were added."""
        before, more = self._before, self._checked
        if before is not None and (more.messages or more.storage):
            after = Usage(before.storage + more.storage, before.messages + more.messages, 0)
            self._warn(before, after, refused=False)

    def _warn(self, before: Usage, after: Usage, *, refused: bool) -> None:
        home = self._home
        home.quota.warn(self._limits, home.settings.quota_warnings, before, after, refused=refused)


def keep_to_quota(home: Home, operation: Callable[[], T]) -> T:
    """Do an operation that checks an `Addition`; once more after a look at all mailboxes, if it raised OverQuota.

    Without any lock but the account's. Raises: OverQuota, StoreUnavailable, and as the operation.
    """
    try:
        return operation()
    except OverQuota:
        if not read_before_refusal(home):
            raise
    return operation()


def read_before_refusal(home: Home) -> bool:
    """Read all mailboxes from the disk, unless that was done a moment ago. Raises: StoreUnavailable."""
    if not home.quota.look_is_due:
        return False
    home.quota.note_look()
    with home.locked():
        for name in home.layout.mailboxes():
            try:
                reconcile(home, name)
            except MailError as error:
                _log.warning("the mailbox %s of %s cannot be counted: %s", name, home.root, error.reason)
        count(home)
    return True


def count(home: Home) -> Sum:
    """Count the account: read mailboxes that the index lacks, and make missing sums. Linear."""
    names = home.layout.mailboxes()
    for name in names:
        try:
            sync_uidlist(home, name)
        except MailError as error:
            # The others count. This one counts once it can be read.
            _log.warning("the mailbox %s of %s cannot be counted: %s", name, home.root, error.reason)
    gone = {state.name: state.key for state in home.read(lambda index: index.mailboxes.all())}
    for name in names:
        gone.pop(name, None)

    def save(index: Index) -> None:
        for key in gone.values():
            index.mailboxes.remove(key)
        index.count_account()

    home.update(save)
    return home.read(lambda index: index.sums.of(ACCOUNT)) or Sum(0, 0, 0)


def _prepared_sizes(home: Home) -> Iterator[int]:
    """Yield the sizes of messages that are prepared and not published yet."""
    for waiting in intent.read_all(home.root):
        if waiting.kind == recovery.PUBLISH:
            for temporary, _place, name in waiting.payload["files"]:
                if os.path.lexists(os.path.join(home.temporary, temporary)):
                    yield _size_in(name) or 0


def _estimate(home: Home, total: Sum) -> Sum:
    """Estimate sizes that are unknown and have no estimate yet: by the name of the file, else by its octets."""
    if total.listed < total.unmeasured:
        home.update(_list_all)
    waiting: dict[int, list[UID]] = {}
    for key, uid in home.read(lambda index: index.sums.unsized_without_estimate()):
        waiting.setdefault(key, []).append(uid)
    if not waiting and total.listed == total.unmeasured:
        return total
    names = {state.key: state.name for state in home.read(lambda index: index.mailboxes.all())} if waiting else {}
    estimates: dict[int, list[tuple[int, int]]] = {}
    for key, uids in waiting.items():
        paths = home.paths(names[key])
        for uid, place, name, _size in home.read(lambda index, key=key, uids=uids: index.messages.files_of(key, uids)):  # type: ignore[misc]
            path = os.path.join(paths.place(place), os.fsdecode(name))
            estimates.setdefault(key, []).append((uid, _size_on_disk(path)))

    def save(index: Index) -> None:
        for key, found in estimates.items():
            index.sums.estimate(key, found)

    home.update(save, sum(map(len, estimates.values())))
    return home.read(lambda index: index.sums.of(ACCOUNT)) or total


def _list_all(index: Index) -> None:
    for state in index.mailboxes.all():
        known = index.sums.of(state.key)
        if known is not None and known.listed < known.unmeasured:
            index.sums.list_unsized(state.key, index.messages.unmeasured(state.key, 0, -1))


def _size_on_disk(path: str) -> int:
    named = _size_in(os.path.basename(path))
    if named is not None:
        return named
    try:
        return os.lstat(path).st_size
    except OSError:
        # It has been renamed or removed meanwhile: the mailbox is read again for that.
        return 0


def _size_in(name: str) -> int | None:
    found = _NAMED.findall(name)
    return int(found[-1]) if found else None
