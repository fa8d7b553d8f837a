"""Linux inotify on the reactor: names that appear in a directory or disappear from it.

Twisted's own watcher closes all its watches when one directory is deleted, and does not report an overflow; both
lose changes. Here every event is reported, and an overflow means that anything may have changed.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Collection, Sequence
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF, IN_Q_OVERFLOW, IN_IGNORED = 0x400, 0x800, 0x4000, 0x8000
IN_ONLYDIR, IN_DONT_FOLLOW = 0x1000000, 0x2000000
MASK = IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW
_HEADER = struct.Struct("iIII")
_READ = 256 * 1024
PAUSE: Final = 0.005
"""Seconds between two reads; changes meanwhile, most of them this server's own, are read together."""
FEW: Final = 2
"""Events during a pause after which it ends: those of this server's own rename of a message that was just delivered."""

_libc = ctypes.CDLL(None, use_errno=True)
log = Logger(namespace="mailserver")


@implementer(IReadDescriptor)
class Inotify:
    """One inotify instance. It calls `changed(watch, names, arrived)` for the events of a read.

    `names` is None if anything may have changed. `arrived` has those of the names that came from an unwatched directory:
    the deliveries. A rename within the watched directories is two events with one cookie.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        clock: IReactorTime,
        changed: Callable[[int, Sequence[str] | None, Collection[str]], None],
        overflow: Callable[[], None],
        *,
        mask: int = MASK,
    ) -> None:
        """`mask`: the events to report of all directories."""
        self._mask = mask
        self._reactor = reactor
        self._clock = clock
        self._changed = changed
        self._overflow = overflow
        self._pause: IDelayedCall | None = None
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        reactor.addReader(self)

    def add(self, path: str) -> int:
        """Watch a directory; return the number that its events carry. Raises: OSError."""
        watch: int = _libc.inotify_add_watch(self._fd, os.fsencode(path), self._mask)
        if watch < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), path)
        return watch

    def remove(self, watch: int) -> None:
        """Stop watching a directory; harmless if it is gone."""
        _libc.inotify_rm_watch(self._fd, watch)

    def close(self) -> None:
        """Stop watching."""
        if self._pause is None:
            self._reactor.removeReader(self)
        else:
            self._pause.cancel()
            self._pause = None
        os.close(self._fd)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """Name in the log."""
        return "inotify"

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """Handle the end of the reactor, or a failed descriptor."""

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        """Report events at once, and those that follow after a pause."""
        if self._read() and self._pause is None:
            self._reactor.removeReader(self)
            self._pause = self._clock.callLater(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        if self._read() > FEW:
            self._pause = self._clock.callLater(PAUSE, self._go_on)
        else:
            self._reactor.addReader(self)

    def _read(self) -> int:
        """Read events; return how many there were."""
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return 0
        count = 0
        names: dict[int, list[str]] = {}
        arrived: dict[int, set[str]] = {}
        left: set[int] = set()
        """Cookies of names that a watched directory had."""
        whole: dict[int, None] = {}
        overflow = False
        at = 0
        while at < len(data):
            watch, mask, cookie, size = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            count += 1
            name = os.fsdecode(data[at : at + size].rstrip(b"\0"))
            at += size
            if mask & IN_Q_OVERFLOW:
                overflow = True
            elif mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED):
                whole[watch] = None
            elif name:
                names.setdefault(watch, []).append(name)
                if mask & IN_MOVED_FROM:
                    left.add(cookie)
                elif mask & IN_CREATE or (mask & IN_MOVED_TO and cookie not in left):
                    arrived.setdefault(watch, set()).add(name)
        for watch, found in names.items():
            self._changed(watch, found, arrived.get(watch, ()))
        for watch in whole:
            self._changed(watch, None, ())
        if overflow:
            self._overflow()
        return count
