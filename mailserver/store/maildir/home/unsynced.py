"""Changes that could not be synced, and files that could not be removed. The account acknowledges nothing before they
are.

Problems:

*   A change whose sync failed may stay if it could not be undone. A second request for it finds nothing to do, and
    would get OK for what a power cut loses.
*   A file whose sync failed may be dropped from memory unwritten. A later sync of it succeeds, and proves nothing.
*   The second try may reach another process.
*   A file that could not be removed (an undone intent, a lock, a temporary file) must not be taken for a valid one.

Rules:

*   `safeio` collects both for the process. When an account's lock is released, the paths below the account's root
    become notes in the lock file (see `lock`). These need neither disk space nor a sync.
*   Each next holder of the lock tries to settle them first: it removes leftovers, syncs directories, rewrites files. If
    something remains, `Home.changing` refuses, and a mailbox whose uidlist it is shows only its earlier state.
*   Notes of an earlier boot of the machine count for nothing: what is on the disk then is safe.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from mailserver.errors import MailError
from mailserver.store.maildir.disk import directories, lock, safeio
from mailserver.store.maildir.disk.process_start import boot_id
from mailserver.store.maildir.format import subscriptions, uidlist
from mailserver.store.maildir.home import folders, intent

if TYPE_CHECKING:
    from mailserver.store.maildir.format.paths import MailboxPaths
    from mailserver.store.maildir.home.home import Home

_log = logging.getLogger(__name__)

_EVERYTHING: Final = "*"
"""In place of a path: there was no room to name them all."""


@frozen
class Unsafe:
    """Absolute paths that are not safe on the disk."""

    unsynced: frozenset[str] = frozenset()
    leftovers: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.unsynced or self.leftovers)

    def names(self, root: str, paths: MailboxPaths) -> bool:
        """Tell whether that mailbox's uidlist, or its directory, is not safe."""
        everything = os.path.join(root, _EVERYTHING)
        return bool(self.unsynced) and not self.unsynced.isdisjoint(
            {everything, root, os.path.dirname(paths.directory), paths.directory, paths.uidlist}
        )


def settle(home: Home, notes: bytes) -> Unsafe:
    """Make safe what the notes and this process have. Return what is left. Under the account's lock. Never raises."""
    known = _parse(home, notes)
    left = [path for path in sorted(known.leftovers | _ours(home, safeio.leftovers)) if not _removed(path)]
    todo = known.unsynced | _ours(home, safeio.unsynced)
    unsynced = [path for path in sorted(todo) if not _made_safe(home, path)]
    if unsynced or left:
        _log.warning(
            "%s: changes that could not be synced: %s; files that could not be removed: %s", home.root, unsynced, left
        )
    return Unsafe(frozenset(unsynced), frozenset(left))


def note(home: Home, known: Unsafe, account_lock: lock.AccountLock) -> None:
    """Write what is not safe as notes for the next holder of the lock."""
    unsynced = known.unsynced | _ours(home, safeio.unsynced)
    left = known.leftovers | _ours(home, safeio.leftovers)
    if not unsynced and not left:
        if account_lock.noted:
            account_lock.leave_notes(b"")
        return
    if account_lock.leave_notes(_format(home.root, home.boot, unsynced, left)):
        safeio.unsynced.difference_update(unsynced)
        safeio.leftovers.difference_update(left)
    else:
        # This process keeps it.
        safeio.unsynced.update(unsynced)
        safeio.leftovers.update(left)


def announce(root: str, unsynced: Iterable[str]) -> None:
    """Note in the account at `root`, in place of other notes, what will be synced next. Raises: as `AccountLock`."""
    with lock.AccountLock(root) as held:
        held.leave_notes(_format(root, boot_id(), unsynced, ()) if unsynced else b"")


def _ours(home: Home, paths: Iterable[str]) -> frozenset[str]:
    """Return those below the account's root, or the root itself. Copies first: other threads add to the set."""
    roots = {home.root, home.layout.root}
    return frozenset(
        path for path in list(paths) if path in roots or any(path.startswith(root + "/") for root in roots)
    )


def _removed(path: str) -> bool:
    safeio.leftovers.discard(path)
    if os.path.isdir(path) and not folders.is_no_mailbox(path):
        # We never leave such a directory over, whatever the notes say: mail is not removed because of a file's content.
        _log.error("%s: the lock file's notes name it as a leftover, but it is a mailbox: kept", path)
        return True
    directories.discard_tree(path)
    if path in safeio.leftovers:
        return False
    if os.path.basename(os.path.dirname(path)) == intent.DIRECTORY:
        # An intent that comes back after a power cut would be settled.
        with contextlib.suppress(MailError, OSError):
            safeio.sync_directory(os.path.dirname(path))
    return True


def _made_safe(home: Home, path: str) -> bool:
    safeio.unsynced.discard(path)
    if os.path.basename(path) == _EVERYTHING:
        safe = [_made_safe(home, each) for each in _everything(home)]
        return all(safe)
    try:
        if os.path.isdir(path):
            home.with_room(lambda: safeio.sync_directory(path))
        elif os.path.basename(path) == uidlist.FILE_NAME:
            with home.dotlocked([os.path.dirname(path)], must=True):
                _write_anew(home, path)
        else:
            _write_anew(home, path)
    except FileNotFoundError:
        # Gone, or moved back to its old place: its directory shows that.
        return True
    except (MailError, OSError):
        return False
    return True


def _write_anew(home: Home, path: str) -> None:
    data = safeio.read_file(path)
    home.with_room(lambda: safeio.replace(path, data))


def _everything(home: Home) -> list[str]:
    """Return all paths an account depends on, except messages: those are synced before they have a name."""
    root = home.layout.root
    files = [os.path.join(root, subscriptions.FILE_NAME)]
    found = [os.path.dirname(root), root, os.path.join(root, intent.DIRECTORY)]
    with contextlib.suppress(MailError):
        for name in home.layout.mailboxes():
            paths = home.paths(name)
            files += [paths.uidlist, paths.keywords, paths.further_keywords]
            found += [paths.directory, paths.cur, paths.new]
    return [path for path in [*files, *found] if os.path.lexists(path)]


def _format(root: str, boot: str, unsynced: Iterable[str], left: Iterable[str]) -> bytes:
    def relative(paths: Iterable[str]) -> list[str]:
        return [os.path.relpath(path, root) for path in sorted(paths)]

    document: dict[str, Any] = {"boot": boot, "unsynced": relative(unsynced), "leftovers": relative(left)}
    data = json.dumps(document).encode("ascii")
    if len(data) > lock.NOTES_ROOM:
        document["unsynced"] = [_EVERYTHING]
        data = json.dumps(document).encode("ascii")
    while len(data) > lock.NOTES_ROOM:
        # Others are swept at the next start.
        document["leftovers"] = document["leftovers"][: len(document["leftovers"]) // 2]
        data = json.dumps(document).encode("ascii")
    return data


def _parse(home: Home, notes: bytes) -> Unsafe:
    """Parse the notes, if they are valid and of this boot of the machine."""
    try:
        document: dict[str, Any] = json.loads(notes) if notes else {}
        if document.get("boot") != home.boot:
            return Unsafe()
        return Unsafe(_absolute(home, document["unsynced"]), _absolute(home, document["leftovers"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        # There must have been something.
        return Unsafe(frozenset({os.path.join(home.root, _EVERYTHING)}))


def _absolute(home: Home, paths: Iterable[str]) -> frozenset[str]:
    """Return absolute paths for those of `_format`: below the root, or above it for the account's own directory."""
    found = set()
    for path in paths:
        absolute = os.path.normpath(os.path.join(home.root, str(path)))
        if not (absolute + "/").startswith(home.root + "/") and not home.root.startswith(absolute + "/"):
            raise ValueError(path)
        found.add(absolute)
    return frozenset(found)
