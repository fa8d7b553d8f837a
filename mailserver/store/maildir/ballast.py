"""A file that takes space, to be given up when the disk is full.

A database with a write-ahead log cannot be opened on a full disk, and expunging needs a little room. So each mail root
holds 4 MiB that are removed at the first ENOSPC, and taken again when there is space.
"""

from __future__ import annotations

import contextlib
import os

from mailserver.errors import NoSpace, StoreUnavailable
from mailserver.store.maildir import safeio

FILE_NAME = "mailserver-ballast"
SIZE = 4 << 20


def ensure(root: str) -> bool:
    """Take the space if it is not taken; whether it is taken now. One stat when nothing is to be done.

    Never raises for want of space or rights: mail goes on without it. It is taken again only when twice as much would
    stay free, so that it does not come and go.
    """
    path = os.path.join(root, FILE_NAME)
    try:
        if os.stat(path).st_size >= SIZE:
            return True
        # Left half-made by a process that died.
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
        return True
    except OSError:
        release(root)
        return False
    finally:
        os.close(fd)


def release(root: str) -> bool:
    """Give the space back; whether there was any to give. Never raises."""
    with contextlib.suppress(OSError, StoreUnavailable):
        safeio.unlink(os.path.join(root, FILE_NAME))
        return True
    return False
