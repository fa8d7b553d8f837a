"""The write calls that SQLite makes for a queue, recorded or made to fail.

SQLite lets its calls be replaced, but for fsync(2), so that a descriptor whose sync is to fail becomes one of /dev/null.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

import apsw

from mailserver.queue import disk
from mailserver.store.maildir.disk.recorder import Change

_PWRITE: Final = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_longlong, use_errno=True
)


class _Shim(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("queue-calls", "unix")


class Calls:
    """What happens to each write below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.changes: list[Change] = []
        self.fails: Callable[[str], int] = lambda _path: 0
        """Returns the error of a write to that file, 0 for none."""
        self.writes = 0
        self.end = 0
        """Where the write that is asked for ends."""
        self._saved: dict[int, int] = {}
        self._syncs_fail = False

    def pwrite(self, fd: int, address: int, count: int, offset: int) -> int:
        try:
            path = os.readlink(f"/proc/self/fd/{self._saved.get(fd, fd)}")
            data = ctypes.string_at(address, count)
            if path.startswith(self.root) and not path.endswith("-shm"):
                self.writes += 1
                self.end = offset + count
                if code := self.fails(path):
                    ctypes.set_errno(code)
                    return -1
                if self._syncs_fail and path.endswith("-wal") and fd not in self._saved:
                    self._saved[fd] = os.dup(fd)
                    null = os.open(os.devnull, os.O_RDWR)
                    os.dup2(null, fd, inheritable=False)
                    os.close(null)
                self.changes.append(Change("write", path, offset=offset, data=data))
            return os.pwrite(self._saved.get(fd, fd), data, offset)
        except OSError as error:
            ctypes.set_errno(error.errno or errno.EIO)
            return -1

    @contextmanager
    def failing_syncs(self) -> Iterator[None]:
        """SQLite writes its log, and cannot sync it."""
        self._syncs_fail = True
        try:
            yield
        finally:
            self._syncs_fail = False
            for fd, saved in self._saved.items():
                os.dup2(saved, fd, inheritable=False)
                os.close(saved)
            self._saved.clear()


@contextmanager
def watched(root: Path) -> Iterator[Calls]:
    """Watch SQLite's writes, and the calls of `disk`, below a directory."""
    calls = Calls(root)
    shim = _Shim()
    callback = _PWRITE(calls.pwrite)
    before = shim.xGetSystemCall("pwrite64")
    address = ctypes.cast(callback, ctypes.c_void_p).value
    assert before is not None
    assert address is not None
    shim.xSetSystemCall("pwrite64", address)
    try:
        with ExitStack() as stack:
            for name, function in _recording(calls.changes).items():
                stack.enter_context(mock.patch.object(disk, name, function))
            yield calls
    finally:
        shim.xSetSystemCall("pwrite64", before)
        shim.unregister()


def _recording(changes: list[Change]) -> dict[str, Any]:
    """The functions of `disk`, which record what they have done."""

    def path_of(fd: int) -> str:
        return os.readlink(f"/proc/self/fd/{fd}")

    real = {name: getattr(disk, name) for name in ("create", "write", "sync", "sync_directory", "unlink", "rename")}

    def create(path: Path) -> int:
        fd: int = real["create"](path)
        changes.append(Change("create", str(path)))
        return fd

    def write(fd: int, data: bytes, offset: int) -> None:
        real["write"](fd, data, offset)
        changes.append(Change("write", path_of(fd), offset=offset, data=bytes(data)))

    def sync(fd: int) -> None:
        real["sync"](fd)
        changes.append(Change("sync", path_of(fd)))

    def sync_directory(path: Path) -> None:
        real["sync_directory"](path)
        changes.append(Change("sync_directory", str(path)))

    def unlink(path: Path) -> None:
        there = path.exists()
        real["unlink"](path)
        if there:
            changes.append(Change("unlink", str(path)))

    def rename(old: Path, new: Path) -> None:
        real["rename"](old, new)
        changes.append(Change("rename", str(old), str(new)))

    return {
        "create": create,
        "write": write,
        "sync": sync,
        "sync_directory": sync_directory,
        "unlink": unlink,
        "rename": rename,
    }
