"""Intents: a journal of the steps of a change to several files, written before the first step.

A process may die between the steps of RENAME, COPY, MOVE, APPEND of several messages, or between the next hop's 250 and
the publishing of a local copy. (DELETE needs none: one rename takes the mailbox away, and the files are swept.) So the
steps are written first, durably, under the account's lock. The next holder of the lock that finds an intent finishes or
undoes it, depending on its `kind`, and clears it. Each step must be harmless when done twice.

Each intent is a file in `mailserver-intents/` at the account's root: prepared messages wait for their publishing
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
    """The type of change: "rename", "copy", "move", ..."""
    payload: dict[str, Any]
    """JSON. File names go through `os.fsdecode`; their surrogates survive."""
    id: str = ""
    """Set by `write`: the file's name without its suffix."""

    @property
    def is_due(self) -> bool:
        """True if it is settled while the process that wrote it is alive; see `make_due`."""
        return self.id.endswith(_DUE)


def write(root: str, intent: Intent) -> Intent:
    """Write an intent, durably. Return it with its id. One with an id replaces the file of that id.

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
            # The steps are not done, and must not be.
            safeio.discard(path)
        raise
    safeio.point("intent.after-write")
    return Intent(intent.kind, intent.payload, name)


def read_all(root: str) -> list[Intent]:
    """Read all intents, oldest first. [] costs one failed or one short readdir. Raises: StoreUnavailable.

    A file that is no valid intent was not written by `write`: it is renamed to NAME.bad.
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
    """Tell whether an intent, other than those ids, is due. Needs no lock.

    Raises: StoreUnavailable.
    """
    try:
        with safeio.boundary():
            names = os.listdir(os.path.join(root, DIRECTORY))
    except FileNotFoundError:
        return False
    return any(name.endswith(_DUE + _SUFFIX) and name.removesuffix(_SUFFIX) not in besides for name in names)


def put_aside(root: str, intent: Intent) -> None:
    """Rename an intent that nobody can settle to NAME.bad. Harmless if it is gone. Raises: StoreUnavailable."""
    _put_aside(os.path.join(root, DIRECTORY, intent.id + _SUFFIX))


def _put_aside(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        safeio.rename(path, path + ".bad")
        _log.warning("the intent %s is invalid and was renamed to .bad", path)


def make_due(root: str, intent: Intent) -> Intent:
    """Rename an intent so that `is_due` is true. Needs neither the account's lock nor disk space.

    It need not outlive its process, so nothing is synced. Raises: FileNotFoundError when it is gone, StoreUnavailable.
    """
    if intent.is_due:
        return intent
    due = Intent(intent.kind, intent.payload, intent.id + _DUE)
    directory = os.path.join(root, DIRECTORY)
    safeio.rename(os.path.join(directory, intent.id + _SUFFIX), os.path.join(directory, due.id + _SUFFIX))
    # Processes with cached state must check for intents again.
    lock.disturb(root)
    return due


def forget(root: str, intent: Intent) -> None:
    """Do `clear` for an intent that may be settled twice: a failing disk is retried later, and nothing raises."""
    try:
        clear(root, intent)
    except (OSError, MailError) as error:
        path = os.path.join(root, DIRECTORY, intent.id + _SUFFIX)
        if os.path.lexists(path):
            safeio.keep_for_later(path, error)
        else:
            _log.warning("the removal of %s could not be synced: %r", path, error)


def clear(root: str, intent: Intent) -> None:
    """Remove an intent, durably. Harmless if it is gone. Raises: NoSpace, StoreUnavailable."""
    directory = os.path.join(root, DIRECTORY)
    with contextlib.suppress(FileNotFoundError):
        safeio.point("intent.before-clear")
        safeio.unlink(os.path.join(directory, intent.id + _SUFFIX))
        safeio.sync_directory(directory)
