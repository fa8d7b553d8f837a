"""Intents: what a command over several files is about to do, written before its first step.

A process may die between the steps of RENAME, COPY, MOVE, APPEND of several messages, or between the hop's 250 and the
publishing of a local copy. (DELETE needs none: one rename takes the mailbox away, and the files are swept.) So the
steps are written down first, durably, under the account's lock; the next holder of the lock that finds an intent
finishes or undoes it (what that means belongs to whoever wrote the `kind`), and clears it. Each step must be harmless
when done twice.

One file for each intent, in `mailserver-intents/` at the account's root: prepared messages wait for their publishing
outside the lock, several at a time. Files are read in the order they were written.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import time
from collections.abc import Container
from typing import Any

from attrs import frozen

from mailserver.errors import MailError
from mailserver.store.maildir.disk import directories, lock, safeio

DIRECTORY = "mailserver-intents"
_SUFFIX = ".json"
_DUE = ".due"
_counter = itertools.count()
_log = logging.getLogger(__name__)


@frozen
class Intent:
    """Steps to finish or undo."""

    kind: str
    """Who understands the payload: "rename", "copy", "move", ..."""
    payload: dict[str, Any]
    """What JSON can hold. File names go through `os.fsdecode`; their surrogates survive."""
    id: str = ""
    """Given by `write`: the file's name without its end."""

    @property
    def is_due(self) -> bool:
        """Whether it is settled though the process that wrote it is alive; see `make_due`."""
        return self.id.endswith(_DUE)


def write(root: str, intent: Intent) -> Intent:
    """Keep it, durably; the same intent with its id. With an id already: replaces that one.

    Raises: NoSpace, StoreUnavailable.
    """
    directory = os.path.join(root, DIRECTORY)
    if not os.path.isdir(directory):
        directories.make_directories(directory)
    name = intent.id or f"{time.time_ns():020d}-{os.getpid()}-{next(_counter)}"
    data = json.dumps({"kind": intent.kind, "payload": intent.payload}).encode("ascii")
    path = os.path.join(directory, name + _SUFFIX)
    safeio.point("intent.before-write")
    try:
        safeio.replace(path, data)
    except BaseException:
        if not intent.id:
            # The steps are not done: nobody is to do them.
            safeio.discard(path)
        raise
    safeio.point("intent.after-write")
    return Intent(intent.kind, intent.payload, name)


def read_all(root: str) -> list[Intent]:
    """All that are left, oldest first; [] costs one failed or one short readdir. Raises: StoreUnavailable.

    A file that cannot be read as an intent was not written by `write`: it is put aside as NAME.bad.
    """
    directory = os.path.join(root, DIRECTORY)
    try:
        with safeio.boundary():
            names = sorted(name for name in os.listdir(directory) if name.endswith(_SUFFIX))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        path = os.path.join(directory, name)
        try:
            document = json.loads(safeio.read_file(path))
            intent = Intent(str(document["kind"]), dict(document["payload"]), name.removesuffix(_SUFFIX))
        except FileNotFoundError:
            continue
        except (ValueError, TypeError, KeyError):
            _put_aside(path)
            continue
        found.append(intent)
    return found


def any_due(root: str, besides: Container[str] = ()) -> bool:
    """Does one, besides those ids, wait for the next that comes, whoever wrote it? Needs no lock.

    Raises: StoreUnavailable.
    """
    try:
        with safeio.boundary():
            names = os.listdir(os.path.join(root, DIRECTORY))
    except FileNotFoundError:
        return False
    return any(name.endswith(_DUE + _SUFFIX) and name.removesuffix(_SUFFIX) not in besides for name in names)


def put_aside(root: str, intent: Intent) -> None:
    """Keep it as NAME.bad, for nobody can settle it; harmless when it is gone. Raises: StoreUnavailable."""
    _put_aside(os.path.join(root, DIRECTORY, intent.id + _SUFFIX))


def _put_aside(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        safeio.rename(path, path + ".bad")
        _log.warning("%s cannot be settled and is put aside as .bad", path)


def make_due(root: str, intent: Intent) -> Intent:
    """The same under a name that says `is_due`; without the account's lock, and without room on the disk.

    It need not outlive its process, so nothing is synced. Raises: FileNotFoundError when it is gone, StoreUnavailable.
    """
    if intent.is_due:
        return intent
    due = Intent(intent.kind, intent.payload, intent.id + _DUE)
    directory = os.path.join(root, DIRECTORY)
    safeio.rename(os.path.join(directory, intent.id + _SUFFIX), os.path.join(directory, due.id + _SUFFIX))
    # Whoever believes that there is nothing to settle must look again.
    lock.disturb(root)
    return due


def forget(root: str, intent: Intent) -> None:
    """As `clear`, where settling it once more does no harm: what the disk hinders is done later, and nothing raises."""
    try:
        clear(root, intent)
    except (OSError, MailError) as error:
        path = os.path.join(root, DIRECTORY, intent.id + _SUFFIX)
        if os.path.lexists(path):
            safeio.keep_for_later(path, error)
        else:
            _log.warning("the removal of %s is not safe on the disk yet: %r", path, error)


def clear(root: str, intent: Intent) -> None:
    """Forget it, durably; harmless when it is gone. Raises: NoSpace, StoreUnavailable."""
    directory = os.path.join(root, DIRECTORY)
    with contextlib.suppress(FileNotFoundError):
        safeio.point("intent.before-clear")
        safeio.unlink(os.path.join(directory, intent.id + _SUFFIX))
        safeio.sync_directory(directory)
