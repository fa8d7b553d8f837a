"""System calls of the queue: each error is NoSpace or StorageFailure, a missing file MessageMissing.

A file survives a power cut once it and its directory have been synced. `store.maildir.disk.safeio` has the same for
mailboxes, whose failed operations are undone and taken up again later; here a failed one leaves at most a file to be swept.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from mailserver.errors import MailError, NoSpace, StorageFailure
from mailserver.queue.model import MessageMissing

CHUNK: Final = 1 << 20
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

hook: Callable[[str], None] | None = None
"""Set by tests: called at each `point`, where it may end the process."""


def point(name: str) -> None:
    """Mark a point between two durable steps."""
    if hook is not None:
        hook(name)


def failure(error: OSError) -> MailError:
    """Return the exception for an error of the operating system."""
    if error.errno in _NO_SPACE:
        return NoSpace()
    return MessageMissing() if error.errno == errno.ENOENT else StorageFailure("the mail queue is not available")


@contextlib.contextmanager
def boundary() -> Iterator[None]:
    """Translate OSErrors of the block as `failure` does."""
    try:
        yield
    except OSError as error:
        raise failure(error) from error


def create(path: Path) -> int:
    """Create a file for reading and writing, and return its descriptor. Raises: FileExistsError, OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def write(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at an offset. Raises: OSError."""
    done = 0
    view = memoryview(data)
    while done < len(data):
        done += os.pwrite(fd, view[done:], offset + done)


def sync(fd: int) -> None:
    """Sync a file: its data are safe, its name is not. Raises: OSError."""
    os.fsync(fd)


def sync_directory(path: Path) -> None:
    """Sync a directory: the names in it are safe. Raises: OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unlink(path: Path) -> None:
    """Remove a file if it is there. Raises: OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def rename(old: Path, new: Path) -> None:
    """Rename a file. Raises: OSError."""
    os.rename(old, new)
