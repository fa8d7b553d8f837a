"""Dovecot's mailbox lock as an account object takes it: one file, linked into each mailbox that is locked.

Making a file costs several times as much as a link, and a delivery holds the lock for a millisecond. So the file with
`pid:host` is made once, in the account's root. Its ctime, which a link changes, tells when the lock was taken. The
rules for stale ones are those of `lock`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Final

from mailserver.errors import StoreUnavailable
from mailserver.store.maildir.disk import lock, safeio
from mailserver.store.maildir.format.uidlist import LOCK_NAME

_log = logging.getLogger(__name__)

FILE_NAME: Final = "mailserver-dotlock"
"""Beginning of the names of files that are linked as dotlocks."""


class _Holding:
    """Context manager of `Dotlocks.holding`."""

    __slots__ = ("_directories", "_dotlocks", "_taken", "_with_room")

    def __init__(
        self, dotlocks: Dotlocks, directories: Iterable[str], with_room: Callable[[Callable[[], None]], None] | None
    ) -> None:
        self._dotlocks = dotlocks
        self._directories = directories
        self._with_room = with_room
        self._taken: list[str] = []

    def __enter__(self) -> None:
        take = self._dotlocks.take
        try:
            # In path order, as all processes take them.
            for directory in sorted(self._directories):
                if self._dotlocks.is_held(directory):
                    continue
                if self._with_room is not None:
                    self._with_room(lambda directory=directory: take(directory))  # type: ignore[misc]
                else:
                    take(directory)
                self._taken.append(directory)
        except BaseException:
            self._release()
            raise

    def __exit__(self, _kind: object, _error: object, _trace: object) -> None:
        self._release()

    def _release(self) -> None:
        while self._taken:
            self._dotlocks.release(self._taken.pop())


class Dotlocks:
    """Dovecot's locks on one account's mailboxes, for one account object; used inside the account's lock."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._file = ""
        self._inode = 0
        self._mtime = 0
        self._pid = 0
        self._held: dict[str, tuple[int, int] | None] = {}
        self._left: dict[str, tuple[int, int]] = {}
        """Locks that could not be removed: path to identity."""

    def holding(
        self, directories: Iterable[str], with_room: Callable[[Callable[[], None]], None] | None = None
    ) -> AbstractContextManager[None]:
        """Hold the locks of these mailboxes that are not held already, each taken inside `with_room`. Raises as `take`."""
        return _Holding(self, directories, with_room)

    def take(self, directory: str, wait: float | None = None) -> None:
        """Lock a mailbox. Raises: InUse after the wait, FileNotFoundError (no directory), NoSpace, StoreUnavailable."""
        path = f"{directory}/{LOCK_NAME}"
        if self._left:
            self.remove_left()
        patience = lock.WAIT if wait is None else wait
        if self._pid != os.getpid():
            self._make()
        try:
            try:
                self._link(path, patience)
            except FileNotFoundError:
                # The mailbox is gone; or our file is, swept by a process that started.
                if os.path.lexists(self._file):
                    raise
                self._make()
                self._link(path, patience)
        except StoreUnavailable:
            # Another file system, or too many links: use a file of its own.
            self._held[directory] = lock.take_dotlock(path, patience)
            return
        self._held[directory] = None
        safeio.point("dotlock.taken")

    def release(self, directory: str) -> None:
        """Unlock it, unless another program took the lock for stale. If the disk hinders it, try again next time."""
        path = f"{directory}/{LOCK_NAME}"
        own = self._held.pop(directory)
        if own is not None:
            if not lock.release_dotlock(path, own):
                self._left[path] = own
            return
        try:
            # The file's other name keeps its inode from being reused by another lock.
            status = os.lstat(path)
            if status.st_ino == self._inode:
                safeio.unlink(path)
        except FileNotFoundError:
            pass
        except (OSError, StoreUnavailable):
            self._left[path] = self._inode, self._mtime
            _log.warning("the lock %s could not be removed; the next operation tries again", path)

    @property
    def some_left(self) -> bool:
        """True if there are locks that could not be removed."""
        return bool(self._left)

    def remove_left(self) -> None:
        """Remove the locks that could not be removed before. Inside the account's lock."""
        for path, own in list(self._left.items()):
            if os.path.dirname(path) in self._held or lock.release_dotlock(path, own):
                del self._left[path]

    def is_held(self, directory: str) -> bool:
        """Tell whether Dovecot is kept out of that mailbox now."""
        return directory in self._held

    def close(self) -> None:
        """Remove the file. The next lock makes it anew."""
        if self._pid == os.getpid():
            self.remove_left()
            safeio.discard(self._file)
        self._pid = 0

    def _make(self) -> None:
        host = os.uname().nodename
        self._file = os.path.join(self._root, f"{FILE_NAME}.{host}.{os.getpid()}.{os.urandom(8).hex()}")
        fd = safeio.open_new(self._file)
        try:
            safeio.write(fd, f"{os.getpid()}:{host}".encode())
            status = os.fstat(fd)
            self._inode, self._mtime = status.st_ino, status.st_mtime_ns
        except BaseException:
            safeio.discard(self._file)
            raise
        finally:
            os.close(fd)
        self._pid = os.getpid()

    def _link(self, path: str, wait: float) -> None:
        if not lock.try_link(self._file, path):
            lock.wait_for(lambda: lock.try_link(self._file, path), wait, lambda: lock.remove_if_stale(path))
