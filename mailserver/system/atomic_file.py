"""Atomic replacement of files outside the mail store. A reader sees the old or the new file, also after a power cut.

The mail store has its own in `store/maildir/disk/safeio.py`, which records each step for the tests of power cuts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path


def replace_file(
    path: Path, data: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None, follow: bool = True
) -> None:
    """Replace `path` by a file with `data`: temporary file in the same directory, fsync, rename, fsync of the directory.

    An existing file keeps its mode and owner. `mode` is for a new file, and so is `owner` (uid, gid) if root makes it. The
    target of a symbolic link is replaced; without `follow`, the link itself. Raises: OSError, with the old file untouched.
    """
    if follow:
        path = path.resolve()
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            _copy_owner_and_mode(path, file.fileno(), mode, owner)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make a directory's entries survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Lock the directory of `path` against other commands that change files there."""
    descriptor = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _copy_owner_and_mode(path: Path, descriptor: int, mode: int, owner: tuple[int, int] | None) -> None:
    try:
        old = os.lstat(path)
    except FileNotFoundError:
        old = None
    if old is None or stat.S_ISLNK(old.st_mode):
        if owner is not None and os.geteuid() == 0:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        return
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    # After the owner: giving a file away clears bits of its mode.
    os.fchmod(descriptor, old.st_mode & 0o7777)
