"""Recovery from dead processes: the next holder of the account's lock finishes or undoes their changes.

| kind    | change                                 | recovery                                                        |
|---------|----------------------------------------|-----------------------------------------------------------------|
| publish | several messages, or prepared ones     | finished: each file still in tmp/ gets its name                 |
|         | the same with a token nobody decided   | undone: the files in tmp/ are removed                           |
| copy    | links into another mailbox             | undone: the new names are removed                               |
| move    | renames into another mailbox           | finished: each file still at its old place is renamed           |
| replace | a message in the place of another      | finished: as "publish"; then the old file is removed            |
| rename  | directories of a mailbox and children  | finished: parents made, each directory at its old place renamed |
| create  | mailboxes made to move INBOX's mail to | undone unless messages are there already                        |

A copied message has not been acknowledged while its intent exists: the intent is removed, durably, before the answer. A
finished change may have been acknowledged, if the removal of its intent failed. Each step may have been done already. The
mailboxes concerned are read from disk anew.

An intent whose process is alive is left alone, as prepared messages wait for the answer of another server, outside the
lock. The exception is one that is due: its process has tried to publish the messages, and failed.

Messages with a token wait for a decision that other accounts wait for, too: `Settings.decided` knows it. An intent of
which it cannot be learned now is left for later, and the account is served meanwhile. One that is due has been decided.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mailserver.errors import BadMailboxName, MailError, NoSpace, StoreUnavailable
from mailserver.store.maildir.disk import directories, safeio
from mailserver.store.maildir.disk.process_start import is_alive
from mailserver.store.maildir.format.uid_validity import next_uid_validity
from mailserver.store.maildir.home import folders, intent

if TYPE_CHECKING:
    from mailserver.store.maildir.home.home import Home

_log = logging.getLogger(__name__)

PUBLISH: Final = "publish"
COPY: Final = "copy"
MOVE: Final = "move"
REPLACE: Final = "replace"
RENAME: Final = "rename"
CREATE: Final = "create"

ASK_AGAIN: float = 2.0
"""Seconds until a decision is asked for once more: until then a table that is locked or damaged delays nobody."""


def recover(home: Home) -> bool:
    """Finish or undo all intents, on a full or failing disk as many as possible. Return True if some are left.

    The caller holds the lock. Raises: StoreUnavailable when the intents cannot be read.
    """
    waiting = more = False
    for left in intent.read_all(home.root):
        due = left.is_due or left.id in home.due
        if not due and is_alive(left.payload.get("owner")):
            more = True
            continue
        settle = SETTLERS.get(left.kind)
        if not due and left.kind == PUBLISH and (token := left.payload.get("token")):
            decided = _is_decided(home, left, str(token))
            if decided is None:
                more = True
                continue
            if not decided:
                settle = _drop
        if settle is not None:
            safeio.point("recovery.before-settle")
            try:
                touched = settle(home, left.payload)
            except NoSpace:
                # Mail is served meanwhile, and the next holder of the lock tries again.
                waiting = more = True
                continue
            except (OSError, StoreUnavailable) as error:
                more = True
                # A change that cannot be finished on this disk must not close the whole account.
                _warn_once(home, left, error)
                continue
            except (ValueError, TypeError, KeyError, AttributeError, BadMailboxName):
                _log.warning("intent %s of %s is invalid", left.id, home.root, exc_info=True)
                intent.put_aside(home.root, left)
                continue
            safeio.point("recovery.after-settle")
            home.update(lambda index, touched=touched: index.mailboxes.distrust(touched))  # type: ignore[misc]
        # Settling it once more would do no harm.
        intent.forget(home.root, left)
        home.due.discard(left.id)
    home.something_due = waiting
    return more


def _is_decided(home: Home, left: intent.Intent, token: str) -> bool | None:
    """Tell whether the messages of an intent are to be published; None if that cannot be learned now."""
    decided = home.settings.decided
    if decided is None or time.monotonic() < home.ask_again:
        return None
    try:
        return decided(token)
    except (OSError, MailError) as error:
        _warn_once(home, left, error)
    except Exception:
        # A bug there must not close the account.
        _log.exception("intent %s of %s: its decision could not be asked for", left.id, home.root)
    home.ask_again = time.monotonic() + ASK_AGAIN
    return None


def _warn_once(home: Home, left: intent.Intent, error: Exception) -> None:
    if left.id not in home.unsettled:
        home.unsettled.add(left.id)
        _log.warning(
            "intent %s of %s could not be settled; the next operation tries again: %r", left.id, home.root, error
        )


def find_mailbox(home: Home, payload: dict[str, Any]) -> str:
    """Return the current name of a "publish" intent's mailbox: by its GUID, then its name, then INBOX."""
    guid = bytes.fromhex(payload["guid"])
    state = home.read(lambda index: index.mailboxes.by_guid(guid))  # type: ignore[arg-type]
    for name in (state.name if state is not None else payload["mailbox"], payload["mailbox"]):
        if home.layout.exists(name):
            return str(name)
    return folders.INBOX


def _publish(home: Home, payload: dict[str, Any]) -> list[str]:
    name = find_mailbox(home, payload)
    paths = home.paths(name)
    # A missing directory does not mean that the file has been moved already.
    folders.complete(paths.directory)
    places = set()
    for temporary, place, file_name in payload["files"]:
        directory = paths.place(place)
        source = os.path.join(home.temporary, temporary)
        target = os.path.join(directory, file_name)
        with contextlib.suppress(FileNotFoundError):
            if os.path.lexists(target):
                safeio.unlink(source)
            else:
                safeio.rename(source, target)
        places.add(directory)
    for directory in places:
        safeio.sync_directory(directory)
    return [name]


def _drop(home: Home, payload: dict[str, Any]) -> list[str]:
    for temporary, _place, _name in payload["files"]:
        with contextlib.suppress(FileNotFoundError):
            safeio.unlink(os.path.join(home.temporary, temporary))
    return []


def _undo_copy(home: Home, payload: dict[str, Any]) -> list[str]:
    name = payload["target"]
    directory = home.paths(name).cur
    with contextlib.suppress(FileNotFoundError):
        for file_name in payload["names"]:
            with contextlib.suppress(FileNotFoundError):
                safeio.unlink(os.path.join(directory, file_name))
        safeio.sync_directory(directory)
    return [name]


def _finish_move(home: Home, payload: dict[str, Any]) -> list[str]:
    source, target = home.paths(payload["source"]), home.paths(payload["target"])
    sources = set()
    if folders.is_mailbox(target.directory):
        for place, old, new in payload["pairs"]:
            at, to = os.path.join(source.place(place), old), os.path.join(target.cur, new)
            with contextlib.suppress(FileNotFoundError):
                if os.path.lexists(to):
                    safeio.unlink(at)
                else:
                    safeio.rename(at, to)
            sources.add(source.place(place))
        safeio.sync_directory(target.cur)
        for directory in sources:
            with contextlib.suppress(FileNotFoundError):
                safeio.sync_directory(directory)
    return [payload["source"], payload["target"]]


def _finish_replace(home: Home, payload: dict[str, Any]) -> list[str]:
    [name] = _publish(home, payload)
    target, source = home.paths(name), home.paths(payload["source"])
    place, old = payload["removed"]
    directory = source.place(place)
    # Where another program has renamed the new message, or removed it, the old one stays: both are better than none.
    if all(os.path.lexists(os.path.join(target.place(at), file)) for _temporary, at, file in payload["files"]):
        with contextlib.suppress(FileNotFoundError):
            safeio.unlink(os.path.join(directory, old))
        with contextlib.suppress(FileNotFoundError):
            safeio.sync_directory(directory)
    return [name, payload["source"]]


def _finish_rename(home: Home, payload: dict[str, Any]) -> list[str]:
    touched = []
    for parent in payload["parents"]:
        if not home.layout.exists(parent):
            home.layout.create(parent, next_uid_validity(home.root))
    for old, new in payload["pairs"]:
        source, target = home.layout.path(old), home.layout.path(new)
        if os.path.lexists(source) and not os.path.lexists(target):
            safeio.rename(source, target)
        touched += [old, new]
    safeio.sync_directory(home.root)
    return touched


def undo_create(home: Home, payload: dict[str, Any]) -> list[str]:
    """Remove the mailboxes, children first, unless they have messages already."""
    for name in reversed(payload["created"]):
        paths = home.paths(name)
        if not folders.is_mailbox(paths.directory):
            continue
        folders.complete(paths.directory)
        if os.listdir(paths.new) or os.listdir(paths.cur):
            break
        directories.remove_tree(home.layout.retire(name))
    return list(payload["created"])


SETTLERS: Final[dict[str, Callable[[Home, dict[str, Any]], list[str]]]] = {
    PUBLISH: _publish,
    COPY: _undo_copy,
    MOVE: _finish_move,
    REPLACE: _finish_replace,
    RENAME: _finish_rename,
    CREATE: undo_create,
}
