"""Making and removing directories, by the rules of `safeio`.

`mkdir`, `rmdir`, `remove_tree`, `discard_tree` and `sweep` do not sync. `make_directories` and `rename_tree` are
durable when they return.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable

from mailserver.errors import NoSpace, StoreUnavailable
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.recorder import Change

MODE = 0o700


def mkdir(path: str, mode: int = MODE) -> None:
    """Make a directory; no sync. Raises: FileExistsError, NoSpace, StoreUnavailable."""
    try:
        os.mkdir(path, mode)
    except OSError as error:
        raise safeio.failure(error) from error
    if safeio.recorder is not None:
        safeio.recorder.record(Change("mkdir", path))


def make_directories(path: str, mode: int = MODE, *, top: str | None = None) -> None:
    """Make a directory and its missing parents, durably. Harmless if it exists. Raises: NoSpace, StoreUnavailable.

    `top`: a directory above it. The names below it are synced even if the directories exist already: another process
    may have made them, and its sync may have failed.
    """
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    if top is not None:
        there = []
        while path.startswith(top.rstrip("/") + "/"):
            path = os.path.dirname(path)
            there.append(path)
        sync_directories(reversed(there))
    for directory in reversed(missing):
        # Another process may make it at the same moment.
        with contextlib.suppress(FileExistsError):
            mkdir(directory, mode)
        try:
            safeio.sync_directory(os.path.dirname(directory))
        except BaseException:
            with contextlib.suppress(OSError, StoreUnavailable):
                rmdir(directory)
            raise


def rmdir(path: str) -> None:
    """Remove an empty directory; no sync. Raises: FileNotFoundError, StoreUnavailable, OSError (ENOTEMPTY)."""
    try:
        os.rmdir(path)
    except OSError as error:
        raise safeio.failure(error) from error
    if safeio.recorder is not None:
        safeio.recorder.record(Change("rmdir", path))


def rename_tree(old: str, new: str) -> None:
    """Rename a directory with all below it, durably. If that cannot be synced, rename it back.

    Raises: FileNotFoundError, OSError (ENOTEMPTY), NoSpace, StoreUnavailable.
    """
    safeio.rename(old, new)
    places = dict.fromkeys([os.path.dirname(new), os.path.dirname(old)])
    try:
        sync_directories(places)
    except BaseException:
        with contextlib.suppress(OSError, NoSpace, StoreUnavailable):
            safeio.rename(new, old)
            sync_directories(places)
        raise


def remove_tree(path: str) -> None:
    """Remove a directory and all below it; links are removed, not followed. No sync. Harmless if it is gone.

    Continue after a failure, then raise. Raises: StoreUnavailable.
    """
    kept: Exception | None = None
    try:
        with os.scandir(path) as entries:
            found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except FileNotFoundError:
        return
    except OSError as error:
        raise safeio.failure(error) from error
    for child, is_directory in found:
        try:
            if is_directory:
                remove_tree(child)
            else:
                with contextlib.suppress(FileNotFoundError):
                    safeio.unlink(child)
        except StoreUnavailable as error:
            kept = error
    if kept is not None:
        raise kept
    with contextlib.suppress(FileNotFoundError):
        rmdir(path)


def discard_tree(path: str) -> None:
    """Remove a useless file or directory with all below it. What cannot be removed is removed later."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        else:
            safeio.discard(path)
    except (OSError, NoSpace, StoreUnavailable) as error:
        safeio.keep_for_later(path, error)


def sweep(directory: str, pattern: re.Pattern[str]) -> int:
    """Remove the files with matching names, left by dead processes. Return their number. No sync; failures are retried
    later.

    Raises: FileNotFoundError, StoreUnavailable when the directory cannot be read.
    """
    with safeio.boundary():
        left = [name for name in os.listdir(directory) if pattern.fullmatch(name)]
    for name in left:
        safeio.discard(os.path.join(directory, name))
    return len(left)


def sync_directories(directories: Iterable[str]) -> None:
    """Sync directories in the given order, each once. After a failure the rest is not synced, but noted.

    Raises: FileNotFoundError, NoSpace, StoreUnavailable.
    """
    left = list(dict.fromkeys(directories))
    while left:
        try:
            safeio.sync_directory(left[0])
        except BaseException:
            safeio.unsynced.update(left[1:])
            raise
        del left[0]
