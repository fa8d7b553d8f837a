"""A directory in one SQLite file, in WAL mode: readers never wait for a writer, and see its commit in their next statement.

The command works on the file beside a server that runs, is stopped or was killed. The file and its companions (-wal, -shm)
have mode 0600; the directory around them should be the service's alone, as SQLite makes the companions there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self, cast

import apsw

from mailserver.directory import migrations
from mailserver.directory.database import Row, Value
from mailserver.directory.model import DirectoryDamaged, DirectoryUnavailable, Refused

APPLICATION_ID: Final = 0x4D534449
"""In the header of the file: "MSDI"."""
WRITER_WAITS: Final = 5_000
"""Milliseconds that a writer waits for another one."""
READER_WAITS: Final = 20
"""Milliseconds that a reader waits: it is on the thread of all sessions. Only a recovery after a crash blocks it."""
_CACHE: Final = 4096
"""KiB of pages in memory."""


class SQLiteDatabase:
    """Implements `database.Database`."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.path = path
        self._connection = connection
        self._identity = _identity(path)
        self._wal = _identity(f"{path}-wal")

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new directory. Raises: Refused if something is there already, DirectoryUnavailable."""
        with _faults(path):
            _make_file(path)
            try:
                made = cls._open(path, WRITER_WAITS, empty=True)
                migrations.create(made)
            except BaseException:
                _remove(path)
                raise
            return made

    @classmethod
    def open(cls, path: Path, *, waits: int = READER_WAITS, is_copy: bool = False) -> Self:
        """Open a directory that exists. `waits`: milliseconds for a lock. `is_copy`: leave its journal mode as it is.

        Raises: DirectoryUnavailable; Refused if it is no directory, or one of a newer release.
        """
        with _faults(path):
            database = cls._open(path, waits, empty=False)
            try:
                migrations.version_of(database)
                if not is_copy:
                    database.use_wal()
            except BaseException:
                database.close()
                raise
            database.note_wal()
            return database

    @classmethod
    def _open(cls, path: Path, waits: int, *, empty: bool) -> Self:
        if not path.is_file():
            raise DirectoryUnavailable(f"{path} does not exist, or is no file; `mailserver directory create` makes one")
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW
        # SQLite refuses links in any part of a path; only the last part must not be one here.
        found = path.parent.resolve() / path.name
        _remove_foreign_wal(found)
        connection = apsw.Connection(str(found), flags=flags)
        try:
            connection.set_busy_timeout(waits)
            if empty:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute("PRAGMA journal_mode = WAL")
            _expect_ours(path, connection)
            # With partial indexes SQLite would prepare a statement anew for each value, which costs 20 us: four times its run.
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
            connection.execute("PRAGMA foreign_keys = ON")
            # A commit is on the disk when the command says so.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{_CACHE}")
            return cls(path, connection)
        except BaseException:
            connection.close(True)
            raise

    def rows(self, statement: str, **values: Value) -> list[Row]:
        """See Database."""
        try:
            # To the end: an open statement would keep the WAL from starting anew.
            return cast("list[Row]", self._connection.execute(statement, values).fetchall())
        except apsw.Error as error:
            raise _fault(self.path, error) from error

    def change(self, statement: str, **values: Value) -> int:
        """See Database."""
        with _faults(self.path):
            self._connection.execute(statement, values).fetchall()
            return self._connection.changes()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See Database."""
        with _faults(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            with _faults(self.path):
                self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """See Database."""
        with _faults(self.path):
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                with _faults(self.path):
                    self._connection.execute("COMMIT")

    def state(self) -> int:
        """See Database."""
        try:
            return int(self._connection.execute("PRAGMA data_version").get)
        except apsw.Error as error:
            raise _fault(self.path, error) from error

    def is_replaced(self) -> bool:
        """See Database. A file moved over this one is not seen by an open connection."""
        return _identity(self.path) != self._identity

    def problems(self) -> list[str]:
        """The faults that SQLite finds in the file: damaged pages, targets of nothing. Reads all of it."""
        with _faults(self.path):
            found = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
            broken = self._connection.execute("PRAGMA foreign_key_check").fetchall()
            return found + [f"a row of {row[0]} has no row in {row[2]}" for row in broken[:20]]

    def backup(self, target: Path) -> None:
        """Write a copy of one moment, also while others write. Raises: Refused if there is a file, DirectoryUnavailable."""
        with _faults(target):
            _make_file(target)
            try:
                copy = apsw.Connection(str(target))
                _copy_all(self._connection, copy)
                copy.execute("PRAGMA journal_mode = DELETE")
                copy.close()
                _sync(target)
            except BaseException:
                _remove(target)
                raise

    def restore(self, copy: Path, mark: Callable[[SQLiteDatabase], None]) -> None:
        """Replace all content by that of a copy, to which `mark` has been applied before; in one transaction.

        Raises: Refused, DirectoryUnavailable.
        """
        SQLiteDatabase.open(copy, is_copy=True).close()
        with _faults(self.path):
            source = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)
            marked = apsw.Connection(":memory:")
            _copy_all(source, marked)
            source.close()
            mark(SQLiteDatabase(copy, marked))
            _copy_all(marked, self._connection)
            marked.close()

    def use_wal(self) -> None:
        """Turn a copy that was moved here into a database whose readers do not wait for writers."""
        if self._connection.execute("PRAGMA journal_mode").get != "wal":
            # Where that is not possible now, it is used as it is.
            with contextlib.suppress(apsw.Error):
                self._connection.execute("PRAGMA journal_mode = WAL").fetchall()

    def note_wal(self) -> None:
        """Remember the file of the WAL, which the first statement makes."""
        self._wal = _identity(f"{self.path}-wal")

    def forget_pages(self) -> None:
        """Read pages anew from the disk: a damaged one may be whole again."""
        with _faults(self.path):
            self._connection.execute("PRAGMA shrink_memory").fetchall()

    def close(self) -> None:
        """See Database. The WAL of a file that was moved away goes into that file, and does not mix with another one's."""
        if not self.is_replaced():
            self._connection.close(True)
            return
        with contextlib.suppress(apsw.Error):
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        # SQLite sees that the file was moved, and leaves the WAL at its path alone.
        self._connection.close(True)
        # `Path.exists` raises where a directory of the path may not be searched.
        found = _identity(self.path) is not None
        if self._wal is not None and found and _identity(f"{self.path}-wal") == self._wal:
            _remove(self.path, "-wal", "-shm")


def read_ahead(path: Path) -> None:
    """Have the kernel read the file into its cache. Not while this process has it open.

    Whoever closes a descriptor of a file gives up all locks of the process on it (fcntl(2)), SQLite's too.
    """
    with contextlib.suppress(OSError):  # SQLite meets the same error
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)


def _remove_foreign_wal(path: Path) -> None:
    """Remove the WAL of another file, over which a copy was moved that is not in WAL mode: SQLite would apply it to the copy.

    Those that have the other file open keep both.
    """
    if not _size(f"{path}-wal"):
        return
    # By SQLite, which keeps the locks of this process on the file.
    file = apsw.VFSFile("", str(path), [apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB, 0])
    try:
        versions = file.xRead(2, 18)
    finally:
        file.xClose()
    if versions == b"\1\1":
        _remove(path, "-wal", "-shm")


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn the faults of SQLite and the system into DirectoryUnavailable."""
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise _fault(path, error) from error


def _fault(path: Path, error: Exception) -> DirectoryUnavailable:
    """The same in words."""
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return DirectoryUnavailable(f"{path} is locked by another program")
        case apsw.CorruptError() | apsw.NotADBError():
            return DirectoryDamaged(f"{path} is damaged: {error}")
        case OSError():
            return DirectoryUnavailable(f"{path}: {error.strerror or error}")
        case _:
            return DirectoryUnavailable(f"{path}: {error}")


def _expect_ours(path: Path, connection: apsw.Connection) -> None:
    if connection.execute("PRAGMA application_id").get != APPLICATION_ID:
        raise Refused(f"{path} is no directory of this server")


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Device and inode of a file; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _size(path: str) -> int:
    """The size of a file, octets; 0 if there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _make_file(path: Path) -> None:
    """Make an empty file for the owner alone: SQLite would make it readable by others. Raises: Refused, OSError."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise Refused(f"{path} exists already") from None


def _copy_all(source: apsw.Connection, target: apsw.Connection) -> None:
    with target.backup("main", source, "main") as running:
        running.step()


def _remove(path: Path, *suffixes: str) -> None:
    for suffix in suffixes or ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")


def _sync(path: Path) -> None:
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
