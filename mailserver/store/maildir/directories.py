"""Directories on disk, made and removed by the rules of `safeio`.

`mkdir`, `rmdir`, `remove_tree` and `sweep` do not sync; `make_directories` and `rename_tree` are durable when they return.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable

from mailserver.errors import StoreUnavailable
from mailserver.store.maildir import safeio

MODE = 0o700


def mkdir(path: str, mode: int = MODE) -> None:
    """Make a directory; no sync. Raises: FileExistsError, NoSpace, StoreUnavailable."""
    try:
        os.mkdir(path, mode)
    except OSError as error:
        raise safeio.failure(error) from error
    if safeio.recorder is not None:
        safeio.recorder.record(safeio.Change("mkdir", path))


def make_directories(path: str, mode: int = MODE) -> None:
    """Make a directory and its missing parents, durably; harmless when it exists. Raises: NoSpace, StoreUnavailable."""
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        # Another process may make it at the same moment.
        with contextlib.suppress(FileExistsError):
            mkdir(directory, mode)
        safeio.sync_directory(os.path.dirname(directory))


def rmdir(path: str) -> None:
    """Remove an empty directory; no sync. Raises: FileNotFoundError, StoreUnavailable, OSError (ENOTEMPTY)."""
    try:
        os.rmdir(path)
    except OSError as error:
        raise safeio.failure(error) from error
    if safeio.recorder is not None:
        safeio.recorder.record(safeio.Change("rmdir", path))


def rename_tree(old: str, new: str) -> None:
    """Rename a directory with all below it, durably. Raises: FileNotFoundError, OSError (ENOTEMPTY), NoSpace."""
    safeio.rename(old, new)
    target, source = os.path.dirname(new), os.path.dirname(old)
    safeio.sync_directory(target)
    if source != target:
        safeio.sync_directory(source)


def remove_tree(path: str) -> None:
    """Remove a directory and all below it, links and not what they point to; no sync. Harmless when it is gone.

    Go on after what cannot be removed, then raise. Raises: StoreUnavailable.
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


def sweep(directory: str, pattern: re.Pattern[str]) -> int:
    """Remove the files whose names match, left by dead processes; how many. No sync. Raises: StoreUnavailable."""
    with safeio.boundary():
        left = [name for name in os.listdir(directory) if pattern.fullmatch(name)]
    for name in left:
        with contextlib.suppress(FileNotFoundError):
            safeio.unlink(os.path.join(directory, name))
    return len(left)


def sync_directories(directories: Iterable[str]) -> None:
    """Make the names in them safe, in the order given, each once."""
    for directory in dict.fromkeys(directories):
        safeio.sync_directory(directory)
