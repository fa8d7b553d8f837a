"""`owner.lock`: held by the process that sends, for its life, and by a rebuild. The kernel releases it with the process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from mailserver.queue import disk
from mailserver.queue.model import QueueBusy

OWNER: Final = "owner.lock"


def acquire(directory: Path) -> int:
    """Return the descriptor that holds the lock until it is closed. Raises: QueueBusy, StorageFailure."""
    with disk.boundary():
        fd = os.open(directory / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise QueueBusy from None
    return fd
