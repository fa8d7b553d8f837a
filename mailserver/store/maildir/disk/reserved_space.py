"""Reserved disk space, released when the disk is full.

A database with a write-ahead log cannot be opened on a full disk, and expunging needs a little room. So each mail root
has a file of 4 MiB. It is removed at the first ENOSPC, and made again when there is space. The file begins with a text
that explains it.
"""

from __future__ import annotations

import contextlib
import os

from mailserver.errors import NoSpace, StoreUnavailable
from mailserver.store.maildir.disk import safeio

FILE_NAME = "mailserver-ballast"
SIZE = 4 << 20
TEXT = b"""\
This file reserves 4 MiB of the disk for the mail server, which made it.

When the disk is full the server removes it, so that mail can still be read and
expunged, and makes it again when there is space. It holds no mail. You may
delete it at any time, and leave it out of backups. There is one in each mail
root ([mail] root). More: "A full disk" in docs/operations.md.
"""
"""The beginning of the file; the rest is zeros."""
_explained: set[str] = set()
"""Paths of files whose text this process has checked: older versions made them without it."""


def ensure(root: str) -> bool:
    """Reserve the space. Return whether it is reserved now. One stat if nothing is to be done.

    Never raises for want of space or rights: mail goes on without it. It is reserved again only if twice as much would
    stay free, so that it does not come and go.
    """
    path = os.path.join(root, FILE_NAME)
    try:
        if os.stat(path).st_size >= SIZE:
            _explain(path)
            return True
        # Incomplete, from a process that died.
        safeio.unlink(path)
    except FileNotFoundError:
        pass
    except (OSError, StoreUnavailable):
        return False
    try:
        space = os.statvfs(root)
        if space.f_bavail * space.f_frsize < 3 * SIZE:
            return False
        fd = safeio.open_new(path)
    except FileExistsError:
        return True
    except (OSError, NoSpace, StoreUnavailable):
        return False
    try:
        os.posix_fallocate(fd, 0, SIZE)
        os.pwrite(fd, TEXT, 0)
        return True
    except OSError:
        release(root)
        return False
    finally:
        os.close(fd)


def release(root: str) -> bool:
    """Release the space. Return whether there was any. Never raises."""
    with contextlib.suppress(OSError, StoreUnavailable):
        safeio.unlink(os.path.join(root, FILE_NAME))
        return True
    return False


def _explain(path: str) -> None:
    """Add the text to a file of an older version, once in a process. Failures do not matter."""
    if path in _explained:
        return
    _explained.add(path)
    with contextlib.suppress(OSError, NoSpace, StoreUnavailable):
        fd = safeio.open_existing(path, os.O_RDWR)
        try:
            if os.pread(fd, len(TEXT), 0) != TEXT:
                os.pwrite(fd, TEXT, 0)
        finally:
            os.close(fd)
