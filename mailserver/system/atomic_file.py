"""Files that are replaced whole: a reader sees the old one or the new one, also after a power cut."""

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
    """Put `data` in the place of `path`: temp in the same directory, fsync, rename, fsync of the directory.

    An existing file keeps its mode and its owner; `mode` is for a new one, and so is `owner` (uid, gid) when root
    makes it. A symbolic link stays: what it points to is replaced; without `follow`, it is itself. Raises: OSError, with
    the old file untouched.
    """
    if follow:
        path = path.resolve()
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            _take_over(path, file.fileno(), mode, owner)
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
    """Make the names in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Keep other commands from changing files beside `path` at the same time: a lock on its directory."""
    descriptor = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _take_over(path: Path, descriptor: int, mode: int, owner: tuple[int, int] | None) -> None:
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
