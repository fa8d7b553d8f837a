"""Renaming a mailbox with its children: several directories, all or none."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from mailserver.errors import BadMailboxName, MailboxExists, MailError
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format.uid_validity import next_uid_validity
from mailserver.store.maildir.home import folders, intent, recovery
from mailserver.store.maildir.home.home import Home


def rename_tree(home: Home, moving: Sequence[str], old: str, new: str) -> None:
    """Rename these names, `old` or below it, and make missing parents of `new`. Under the account's lock.

    Raises: MailboxExists, BadMailboxName, LimitReached, NoSpace, StoreUnavailable.
    """
    pairs = {name: new + name[len(old) :] for name in moving}
    for target in pairs.values():
        if home.layout.exists(target):
            raise MailboxExists
    parents = [parent for parent in folders.parents(new) if parent not in pairs and not home.layout.exists(parent)]
    home.check_mailboxes(len(parents))
    payload = {"parents": parents, "pairs": list(pairs.items())}
    pending = intent.write(home.root, intent.Intent(recovery.RENAME, payload))
    done: list[tuple[str, str]] = []
    made: list[str] = []
    try:
        for parent in parents:
            home.layout.create(parent, next_uid_validity(home.root))
            made.append(parent)
        for source, target in pairs.items():
            at, to = home.layout.path(source), home.layout.path(target)
            safeio.rename(at, to)
            done.append((at, to))
            safeio.point("rename.after-rename")
        safeio.sync_directory(home.root)
    except (OSError, MailError) as error:
        if _take_back(home, done, made):
            intent.forget(home.root, pending)
        if isinstance(error, MailError):
            raise
        raise BadMailboxName("something else has that name on disk") from error
    safeio.point("rename.after-directory-sync")
    home.update(lambda index: index.mailboxes.rename(pairs))
    home.names.update({guid: pairs[name] for guid, name in home.names.items() if name in pairs})
    safeio.point("rename.after-index")
    # One that stays is finished once more, which does no harm.
    intent.forget(home.root, pending)


def _take_back(home: Home, done: Sequence[tuple[str, str]], made: Sequence[str]) -> bool:
    """Undo the renames: nothing has been acknowledged. If that fails, the intent stays, and the renames are finished."""
    try:
        for at, to in reversed(done):
            safeio.rename(to, at)
    except (OSError, MailError):
        return False
    with contextlib.suppress(OSError, MailError):
        safeio.sync_directory(home.root)
    for name in reversed(made):
        home.layout.undo_create(name)
    return True
