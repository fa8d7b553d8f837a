"""The statuses of an account's mailboxes, kept as long as the disk proves that they hold."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mailserver.errors import MailError
from mailserver.store.interfaces import Progress, ScanTooLarge, Status
from mailserver.store.rows import MailboxStamp
from mailserver.store.time_slice import TimeSlice

if TYPE_CHECKING:
    from mailserver.store.live.account import LiveAccount

MOST_STATUSES = 1024
"""Statuses of one account that are kept, some 500 octets each. Clients ask for all their mailboxes in turn: with more, none is found."""


class StatusCache:
    """The kept statuses of one account, by name."""

    def __init__(self) -> None:
        self._statuses: OrderedDict[str, tuple[Status, MailboxStamp]] = OrderedDict()

    def current(self, name: str) -> Status | None:
        """Return a mailbox's status if it is kept and holds. Three stats."""
        known = self._statuses.get(name)
        return known[0] if known is not None and known[1].unchanged(name) else None

    def keep(self, name: str, status: Status) -> None:
        """Keep a status if a later look at the disk can prove that it holds."""
        self._statuses.pop(name, None)
        if status.stamp is not None and status.stamp.settled:
            self._statuses[name] = status, status.stamp
            if len(self._statuses) > MOST_STATUSES:
                self._statuses.popitem(last=False)

    def forget(self, name: str) -> None:
        """Have the mailbox counted anew."""
        self._statuses.pop(name, None)


async def read_statuses(
    account: LiveAccount, cache: StatusCache, names: Sequence[str], progress: Progress | None, *, measured: bool
) -> Mapping[str, Status | MailError]:
    """Do `LiveAccount.statuses`."""
    found: dict[str, Status | MailError] = {}
    left = []
    for name in names:
        known = cache.current(name)
        if known is None:
            left.append(name)
        else:
            found[name] = known
    alone = []
    while left:
        some = await account.run(partial(_count, account, left))
        for name, status in some.items():
            if isinstance(status, ScanTooLarge):
                alone.append(name)
                continue
            found[name] = status
            if isinstance(status, Status):
                cache.keep(name, status)
        left = [name for name in left if name not in some]
    if measured:
        alone += [name for name, status in found.items() if isinstance(status, Status) and status.unmeasured]
    for name in alone:
        try:
            found[name] = await account.status(name, progress, measured=measured)
        except MailError as error:
            found[name] = error
    return found


def _count(account: LiveAccount, names: Sequence[str]) -> Mapping[str, Status | MailError | ScanTooLarge]:
    with account.account.bounded():
        return account.account.statuses(names, TimeSlice(sys.maxsize))
