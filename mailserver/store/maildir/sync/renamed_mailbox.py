"""Finding a mailbox that another program may have renamed, by the identity in its uidlist."""

from __future__ import annotations

import contextlib

from mailserver.errors import NoSuchMailbox
from mailserver.store.index.records import MailboxState
from mailserver.store.maildir.home.folders import identity
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.sync.reconcile import sync_uidlist
from mailserver.types import MailboxId, UIDValidity


def find_renamed(home: Home, guid: MailboxId, uid_validity: UIDValidity) -> MailboxState | None:
    """Return the mailbox under its current name; None when it is gone.

    Under the account's lock. Raises: InUse, NoSpace, StoreUnavailable.
    """
    known = home.read(lambda index: index.mailboxes.by_guid(guid))
    there = home.layout.mailboxes()
    if known is not None and known.name in there:
        # Its old place is the likeliest one.
        there.insert(0, known.name)
    for name in there:
        if identity(home.paths(name).directory) == (guid, uid_validity):
            with contextlib.suppress(NoSuchMailbox):
                return sync_uidlist(home, name)
    if known is not None:
        key = known.key
        home.update(lambda index: index.mailboxes.remove(key))
    return None
