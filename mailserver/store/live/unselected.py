"""Mailboxes that are read for one search alone (RFC 7377): no session selects them, so they are neither watched nor kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from mailserver.errors import MailboxChanged, NoSuchMailbox
from mailserver.store.columns import Columns
from mailserver.store.interfaces import Mailbox
from mailserver.store.live.account import LiveAccount
from mailserver.store.live.mailbox import LiveMailbox
from mailserver.store.rows import MailboxStamp
from mailserver.store.time_slice import TimeSlice
from mailserver.store.view import View

LOADED: Final = 8 << 20
"""Octets of columns that are loaded in one turn of the account's thread, and kept until they have been searched."""
_MESSAGE: Final = 28
"""Octets of a message in the columns."""
_MAILBOX: Final = 2048
"""Octets of an empty one, about."""

_Loaded = tuple[Mailbox, Columns, MailboxStamp | None, range]


async def open_unselected(account: LiveAccount, names: Sequence[str]) -> Mapping[str, tuple[LiveMailbox, View] | None]:
    """Read the first of these mailboxes, as the index has them; at least one. None: it no longer exists.

    Their status must have been read before (`LiveAccount.statuses`), which brings the index up to date.
    Raises: StoreUnavailable.
    """
    loaded = await account.run(partial(_load, account, names))
    found: dict[str, tuple[LiveMailbox, View] | None] = {}
    for name, each in loaded.items():
        if each is None:
            found[name] = None
            continue
        mailbox, columns, stamp, recent = each
        found[name] = LiveMailbox(account, mailbox, columns, stamp), View(columns, recent)
    return found


def _load(account: LiveAccount, names: Sequence[str]) -> Mapping[str, _Loaded | None]:
    time_slice = TimeSlice(LOADED)
    found: dict[str, _Loaded | None] = {}
    for name in names:
        found[name] = None
        size = _MAILBOX
        with suppress(NoSuchMailbox, MailboxChanged):
            mailbox = account.account.mailbox(name)
            snapshot = mailbox.load()
            # No session claims them: a search does not read a mailbox in the sense of \Recent.
            recent = range(mailbox.first_recent(), snapshot.uid_next)
            found[name] = mailbox, Columns(snapshot), snapshot.stamp, recent
            size += _MESSAGE * len(snapshot.uids)
        if time_slice.take(size):
            break
    return found
