"""Child processes on Twisted's reactor (`system.children`), and signals to processes of another user."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from mailserver.system.children import Child, ChildEvents

_SETRESUID: Final = {"x86_64": 117, "aarch64": 147, "riscv64": 147}
"""Number of the system call, by machine; on others the check of the pidfd must suffice."""


class _Child(ProcessProtocol):
    def __init__(self, events: ChildEvents, ended: Callable[[_Child], None]) -> None:
        self._events = events
        self._ended = ended
        self._alive = True

    def write(self, data: bytes) -> None:
        """Write to its standard input; dropped once it is dead."""
        if self._alive and self.transport is not None:
            self.transport.write(data)

    def kill(self) -> None:
        """Send SIGKILL, unless it is dead."""
        if self._alive and self.transport is not None:
            self.transport.signalProcess("KILL")

    def outReceived(self, data: bytes) -> None:
        """Pass on its output."""
        self._events.received(data)

    def processEnded(self, reason: Failure) -> None:
        """Handle its end, once its pipes are closed."""
        self._alive = False
        self._ended(self)
        self._events.ended("it stopped" if reason.check(ProcessDone) else reason.getErrorMessage())


class ProcessSpawner:
    """Starts processes with pipes at 0 and 1, and the server's own standard error; implements `children.Spawner`."""

    def __init__(self, reactor: IReactorProcess) -> None:
        self._reactor = reactor
        self._children: set[_Child] = set()
        self._waiting: list[Deferred[None]] = []

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str], events: ChildEvents) -> Child:
        """Start a process by exec. Raises: OSError."""
        child = _Child(events, self._forget)
        descriptors: Any = {0: "w", 1: "r", 2: 2}
        self._reactor.spawnProcess(child, arguments[0], list(arguments), env=dict(environment), childFDs=descriptors)
        self._children.add(child)
        return child

    def when_none(self) -> Deferred[None]:
        """Wait until all processes that it started have ended."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        self._check_none()
        return waiting

    def _forget(self, child: _Child) -> None:
        self._children.discard(child)
        self._check_none()

    def _check_none(self) -> None:
        if not self._children:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)


def kill_as(pidfd: int, uid: int | None) -> None:
    """Send SIGKILL to the process of a pidfd with the rights of a user, or with those of this process for None.

    For a process that is root and got the pidfd from another process. Only the calling thread changes its user meanwhile;
    glibc's setresuid would change all threads. Raises: ProcessLookupError, PermissionError.
    """
    if uid is None or os.geteuid() != 0 or os.uname().machine not in _SETRESUID:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return
    # The real user too, as it also permits a signal (kill(2)). The saved user is the way back.
    _set_thread_user(uid, uid, 0)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        _set_thread_user(0, 0, 0)


def _set_thread_user(real: int, effective: int, saved: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SETRESUID[os.uname().machine], real, effective, saved) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def is_child(pidfd: int, pid: int, parents: Collection[int]) -> bool:
    """Return whether a pidfd is of that process, and the process has one of these parents or has ended.

    For a process that may be root and got the pidfd from one that is not: root's signal would reach any process. Where
    /proc hides processes this proves nothing, and `kill_as` protects them.
    """
    try:
        of = _field(Path(f"/proc/self/fdinfo/{pidfd}"), "Pid")
        return of == -1 or (of == pid and _field(Path(f"/proc/{pid}/status"), "PPid") in parents)
    except FileNotFoundError:
        return True  # it has ended since
    except (OSError, ValueError):
        return False


def _field(path: Path, name: str) -> int:
    """Raises: OSError, ValueError."""
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        key, _colon, value = line.partition(":")
        if key == name:
            return int(value)
    raise ValueError(f"{path} has no {name}")
