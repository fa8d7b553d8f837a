"""A disk that fails: one call of `safeio`, `bulk` and `directories` after the other, once, for good, for want of room, or half.

`Faults` stands in for `os` in these modules. It counts the calls that change something, and lets the one that a `Plan`
names go wrong. A file whose sync failed is one whose data the kernel may have dropped: a later sync of it proves
nothing, which the recorder is told as a change called "lost" (see `power`).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any, Final, Literal
from unittest import mock

import apsw
from attrs import frozen

from mailserver.store.index import schema
from mailserver.store.maildir.disk import bulk, copying, directories, safeio
from mailserver.store.maildir.disk.recorder import Change

Kind = Literal["once", "full once", "full", "short", "unsynced", "dead"]
KINDS: Final[tuple[Kind, ...]] = ("once", "full once", "full", "short", "unsynced", "dead")

_NEED_ROOM = frozenset({"create", "write", "link", "mkdir"})
_MAY_NEED_ROOM = _NEED_ROOM | {"rename", "sync", "sync_directory"}
_SYNCS = frozenset({"sync", "sync_directory"})


@frozen
class Plan:
    """What goes wrong.

    once        that call fails with EIO, and nothing else does
    full once   that call finds no room, and all others do
    full        from that call on nothing finds room that needs some
    short       that call writes half of what it should, and from then on there is no room
    unsynced    from that call on no sync succeeds
    dead        from that call on nothing can be changed
    """

    kind: Kind
    nth: int

    @property
    def lasts(self) -> bool:
        """The disk stays as it is until it is mended."""
        return self.kind in {"full", "short", "unsynced", "dead"}


class Faults:
    """`os`, as `safeio`, `bulk` and `directories` see it."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.count = 0
        """Calls that change something, so far."""
        self.calls: list[tuple[str, str]] = []
        self.struck = False
        """Something went wrong as planned."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def begin(self, plan: Plan | None) -> None:
        self.plan, self.count, self.struck = plan, 0, False
        self.calls = []

    def mend(self) -> None:
        """From now on all is well."""
        self.plan = None

    def _fails(self, operation: str, path: str) -> int:
        """The error of this call, 0 for none, -1 for half a write."""
        plan, number = self.plan, self.count
        self.count += 1
        self.calls.append((operation, path))
        if plan is None or number < plan.nth:
            return 0
        first = number == plan.nth
        code = 0
        if plan.kind == "once":
            code = errno.EIO if first else 0
        elif plan.kind == "full once":
            code = errno.ENOSPC if first and operation in _MAY_NEED_ROOM else 0
        elif plan.kind in {"full", "short"}:
            code = errno.ENOSPC if operation in _NEED_ROOM else 0
            if plan.kind == "short" and first and operation == "write":
                code = -1
        elif plan.kind == "unsynced":
            code = errno.EIO if operation in _SYNCS else 0
        else:
            code = errno.EIO
        self.struck = self.struck or bool(code)
        return code

    def check(self, operation: str, path: object) -> None:
        code = self._fails(operation, str(path))
        if code:
            raise OSError(errno.ENOSPC if code < 0 else code, os.strerror(abs(code)), str(path))

    # --- what changes something

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            self.check("create", path)
        return os.open(path, flags, mode)

    def write(self, fd: int, data: Any) -> int:
        return self._written(lambda part: os.write(fd, part), fd, data)

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        return self._written(lambda part: os.pwrite(fd, part, offset), fd, data)

    def _written(self, write: Any, fd: int, data: Any) -> int:
        code = self._fails("write", _path_of(fd))
        if code > 0:
            raise OSError(code, os.strerror(code))
        half: int = write(data[: len(data) // 2] if code else data)
        return half

    def copy_file_range(self, source: int, target: int, count: int, **named: Any) -> int:
        code = self._fails("write", _path_of(target))
        if code > 0:
            raise OSError(code, os.strerror(code))
        return os.copy_file_range(source, target, max(1, count // 2) if code else count, **named)

    def fsync(self, fd: int) -> None:
        path = _path_of(fd)
        self._sync(os.fsync, fd, path, "sync_directory" if os.path.isdir(path) else "sync")

    def fdatasync(self, fd: int) -> None:
        self._sync(os.fdatasync, fd, _path_of(fd), "sync")

    def _sync(self, sync: Any, fd: int, path: str, operation: str) -> None:
        try:
            self.check(operation, path)
        except OSError:
            if operation == "sync" and safeio.recorder is not None:
                safeio.recorder.record(Change("lost", path))
            raise
        # The order of calls counts and not the time they take.

    def ftruncate(self, fd: int, size: int) -> None:
        self.check("truncate", _path_of(fd))
        os.ftruncate(fd, size)

    def utime(self, fd: Any, **named: Any) -> None:
        self.check("utime", fd)
        os.utime(fd, **named)

    def rename(self, old: Any, new: Any, **named: Any) -> None:
        at = named.get("src_dir_fd")
        self.check("rename", old if at is None else f"{_path_of(at)}/{os.fsdecode(old)}")
        os.rename(old, new, **named)

    def link(self, old: str, new: str, **named: Any) -> None:
        self.check("link", new)
        os.link(old, new, **named)

    def unlink(self, path: Any, **named: Any) -> None:
        at = named.get("dir_fd")
        self.check("unlink", path if at is None else f"{_path_of(at)}/{os.fsdecode(path)}")
        os.unlink(path, **named)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self.check("mkdir", path)
        os.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        self.check("rmdir", path)
        os.rmdir(path)


class _FailingFiles(apsw.VFS):
    """SQLite's files: the index, its WAL."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        super().__init__("failing", "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _FailingFile(self._faults, name, flags)


class _FailingFile(apsw.VFSFile):
    def __init__(self, faults: Faults, name: Any, flags: list[int]) -> None:
        self._faults = faults
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        self._check("write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._check("sync")
        super().xSync(flags)

    def xTruncate(self, size: int) -> None:
        self._check("truncate")
        super().xTruncate(size)

    def _check(self, operation: str) -> None:
        try:
            self._faults.check(operation, self._path)
        except OSError as error:
            raise (apsw.FullError if error.errno == errno.ENOSPC else apsw.IOError) from error


class _Apsw:
    """`apsw`, as `schema` sees it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(apsw, name)

    def Connection(self, path: str, flags: int) -> apsw.Connection:
        return apsw.Connection(path, flags=flags, vfs=None if path == schema.IN_MEMORY else "failing")


def _path_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


@contextlib.contextmanager
def failing_index() -> Iterator[Faults]:
    """The same for SQLite's files alone."""
    faults = Faults()
    files = _FailingFiles(faults)
    try:
        with mock.patch.object(schema, "apsw", _Apsw()):
            yield faults
    finally:
        files.unregister()


@contextlib.contextmanager
def failing_disk() -> Iterator[Faults]:
    """`os` replaced in the modules that change something; nothing fails before `begin`."""
    faults = Faults()
    with contextlib.ExitStack() as stack:
        for module in (safeio, bulk, directories, copying):
            stack.enter_context(mock.patch.object(module, "os", faults))
        yield faults
