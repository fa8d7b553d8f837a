"""Rename or unlink many files of a directory: what STORE and EXPUNGE of thousands of messages spend most of their time in.

The directories are opened once, so that the kernel looks up names alone; with paths a rename takes a tenth longer. The rules
are those of `safeio`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence

from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.recorder import Change


def rename_all(
    source: str, target: str, pairs: Sequence[tuple[bytes, bytes]], where: Sequence[int], *, done: list[int], step: str
) -> None:
    """Rename files of the directory `source` into `target`, by the (old, new) names of `pairs` at the indexes `where`.

    `done` gets the index of each that was renamed, at once, so also if another one fails; files that are missing are left
    out. `step` names the point after each. No sync. Raises: FileNotFoundError if a directory is missing, NoSpace,
    StoreUnavailable.
    """
    if len(where) == 1:
        if _rename_one(source, target, *pairs[where[0]]):
            done.append(where[0])
            safeio.point(step)
        return
    with contextlib.ExitStack() as stack:
        from_fd = to_fd = _open_directory(stack, source)
        if target != source:
            to_fd = _open_directory(stack, target)
        rename, finished = os.rename, done.append
        is_watched = safeio.recorder is not None or safeio.hook is not None
        for at in where:
            old, new = pairs[at]
            try:
                rename(old, new, src_dir_fd=from_fd, dst_dir_fd=to_fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise safeio.failure(error) from error
            finished(at)
            if is_watched:
                _show("rename", f"{source}/{os.fsdecode(old)}", f"{target}/{os.fsdecode(new)}", step)


def _rename_one(source: str, target: str, old: bytes, new: bytes) -> bool:
    """Rename one file, for which opening the directories costs more than it saves. False if the file is missing."""
    try:
        safeio.rename(f"{source}/{os.fsdecode(old)}", f"{target}/{os.fsdecode(new)}")
    except FileNotFoundError:
        if os.path.isdir(source) and os.path.isdir(target):
            return False
        raise
    return True


def unlink_all(directory: str, names: Sequence[bytes], where: Iterable[int], *, done: list[int], step: str) -> None:
    """Unlink files of a directory by the `names` at the indexes `where`; the rest is as for `rename_all`."""
    with contextlib.ExitStack() as stack:
        fd = _open_directory(stack, directory)
        unlink, finished = os.unlink, done.append
        is_watched = safeio.recorder is not None or safeio.hook is not None
        for at in where:
            try:
                unlink(names[at], dir_fd=fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise safeio.failure(error) from error
            finished(at)
            if is_watched:
                _show("unlink", f"{directory}/{os.fsdecode(names[at])}", "", step)


def _open_directory(stack: contextlib.ExitStack, path: str) -> int:
    """Open a directory until the stack is closed. Raises: FileNotFoundError, StoreUnavailable."""
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise safeio.failure(error) from error
    stack.callback(os.close, fd)
    return fd


def _show(operation: str, path: str, other: str, step: str) -> None:
    """Show a change to the tests."""
    if safeio.recorder is not None:
        safeio.recorder.record(Change(operation, path, other))
    safeio.point(step)
