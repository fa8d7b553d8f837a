"""`commit.lock`: the flock around each write transaction, of any process, and the mark of a failed sync.

SQLite's own lock is polled with growing pauses, so that a writer may wait for most of a second beside busy ones; this one
is asked for each millisecond or so. The kernel releases it with the process.

The mark says that octets of the WAL may not reach the disk though a later sync succeeds: the kernel reports a failed
write once. Until they are written anew, no file is unlinked and nothing is acknowledged.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mailserver.queue import disk
from mailserver.queue.model import QueueBusy

WAITS: Final = 20.0
"""Seconds that a writer waits: far longer than a commit takes, shorter than clients wait for a reply."""
_PAUSES: Final = (0.0005, 0.001, 0.002, 0.004)
_CLEAN: Final = b"."
_MARKED: Final = b"!"


class CommitLock:
    """The lock of one process. Threads take turns."""

    def __init__(self, path: Path) -> None:
        """Raises: NoSpace, StorageFailure."""
        self._threads = threading.Lock()
        self._unwritten = False
        with disk.boundary():
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if not os.pread(self._fd, 1, 0):
                    # The octet exists before it is needed: a full disk can still be marked.
                    os.pwrite(self._fd, _CLEAN, 0)
            except BaseException:
                os.close(self._fd)
                raise

    @contextlib.contextmanager
    def held(self, waits: float = WAITS) -> Iterator[None]:
        """Hold the lock. Not reentrant. Raises: QueueBusy after so many seconds."""
        until = time.monotonic() + waits
        if not self._threads.acquire(timeout=max(0.0, waits)):
            raise QueueBusy
        try:
            self._acquire(until)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def _acquire(self, until: float) -> None:
        tries = 0
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise QueueBusy from None
                time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
                tries += 1
            else:
                return

    def is_marked(self) -> bool:
        """Has a sync failed, in any process? Raises: StorageFailure."""
        with disk.boundary():
            return self._unwritten or os.pread(self._fd, 1, 0) == _MARKED

    def mark(self) -> None:
        """Record a failed sync. Never raises: if the mark cannot be written, this process alone remembers it."""
        try:
            os.pwrite(self._fd, _MARKED, 0)
        except OSError:
            self._unwritten = True

    def clear(self) -> None:
        """The WAL was written anew, and is synced. Raises: StorageFailure."""
        with disk.boundary():
            os.pwrite(self._fd, _CLEAN, 0)
        self._unwritten = False

    def close(self) -> None:
        """Close the file, which releases the lock."""
        os.close(self._fd)
