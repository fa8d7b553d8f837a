"""The rows of the queue: `queue.sqlite` in WAL mode, read at any time, written under `commit.lock`.

A durable transaction has its frames of the WAL on the disk, and with them those of all earlier ones. Another survives the
process at once, and a power cut behind the next durable one or `sync`.

*   The WAL file is kept at close, and checkpoints are made here alone: its space is what a full disk still has. At
    SQLITE_FULL the frames go into the database, and the transaction is written over them.
*   A failed sync leaves frames in the kernel's cache that it takes for written. A later commit behind lost frames would be
    lost, too. So the lock is marked, and the next writer writes the whole WAL anew and syncs it before it does anything.
*   A failed commit may have left its frames at the end of the WAL, where the recovery behind a crash would find them:
    another transaction is written over them.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar, cast

import apsw

from mailserver.errors import NoSpace, StorageFailure
from mailserver.queue import disk, migrations, statements
from mailserver.queue.commit_lock import WAITS, CommitLock
from mailserver.queue.model import QueueBusy, QueueDamaged

APPLICATION_ID: Final = 0x4D535155
"""In the header of the file: "MSQU"."""
FILE_NAME: Final = "queue.sqlite"
CHECKPOINT_PAGES: Final = 2000
"""Pages of the WAL from which on a writer moves them into the database: about 8 MB."""
_LOCKED: Final = 5000
"""Milliseconds that SQLite waits: only a recovery or another program's lock takes time, as writers have ours."""
_NONE: Final = (-1, -1)
"""The identity of no file."""
_CACHE: Final = 4096
"""KiB of pages in memory, for each connection."""
_DAMAGED: Final = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.FormatError, apsw.MismatchError)

Value = str | int | None
Row = tuple[Value, ...]
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Rows:
    """The open rows of one process. Threads take turns. To be opened behind a fork, not before."""

    def __init__(self, directory: Path, lock: CommitLock, *, waits: float = WAITS) -> None:
        """Open the rows. `waits`: seconds for which the lock is waited for. Raises: QueueDamaged, QueueTooNew, QueueBusy, StorageFailure."""
        self.path = directory / FILE_NAME
        self._lock = lock
        self._reading = threading.Lock()
        with lock.held(waits):
            self._open()
        try:
            with faults():
                old = migrations.version_of(self._reader) < migrations.NEWEST
            if old:
                self.write(self._upgrade)
            # The name of the WAL, which a first connection may just have made, is to survive like its content.
            with disk.boundary():
                disk.sync_directory(directory)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def create(
        directory: Path, fill: Callable[[apsw.Connection], None] = lambda _connection: None, aside: Path | None = None
    ) -> None:
        """Make the file with its tables and what `fill` adds, whole or not at all. The caller holds the lock.

        `aside`: where the file that is there goes. Raises: NoSpace, StorageFailure.
        """
        new = directory / f"{FILE_NAME}.new"
        path = directory / FILE_NAME
        with faults():
            for suffix in ("", "-wal", "-shm", "-journal"):
                disk.unlink(new.with_name(new.name + suffix))
            fd = disk.create(new)
            try:
                connection = apsw.Connection(str(directory.resolve() / new.name))
                try:
                    with connection:
                        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                        migrations.apply(connection, 0)
                        fill(connection)
                    connection.execute("PRAGMA journal_mode = WAL")
                finally:
                    connection.close(True)
                disk.sync(fd)
            finally:
                os.close(fd)
            disk.point("create.before-rename")
            # A WAL of rows that were lost would be taken for that of the new ones.
            for suffix in ("-wal", "-shm", ""):
                old = path.with_name(path.name + suffix)
                if aside is not None and old.exists():
                    disk.rename(old, aside.with_name(aside.name + suffix))
                elif suffix:
                    disk.unlink(old)
            disk.point("create.moved-aside")
            disk.rename(new, path)
            disk.sync_directory(directory)

    def _open(self) -> None:
        """Open both connections. The caller holds the lock, so that no rebuild replaces the file meanwhile."""
        with faults():
            self._reader = self._connect()
            try:
                self._writer = self._connect()
            except BaseException:
                self._reader.close(True)
                raise
            self._writer.set_wal_hook(self._committed)
            self._identity = _identity(self.path)
            self._wal = _wal_identity(self.path)
        self._pages = 0
        self._state = -1

    def _follow(self) -> None:
        """Take the new file if a rebuild has replaced it. The caller holds the lock.

        Raises: QueueDamaged for a file that was moved to the place of ours, beside its WAL; as `_open`.
        """
        with faults():
            if _identity(self.path) == self._identity:
                return
            if self._wal is not None and _wal_identity(self.path) == self._wal:
                # SQLite would apply it to the other file, and remove it.
                raise QueueDamaged from FileExistsError(errno.EEXIST, "this is not the file of its log", str(self.path))
        with self._reading:
            self.close()
            # Should the next line fail, this file is opened anew when it is put back.
            self._identity, self._wal = _NONE, None
            self._open()

    def _connect(self) -> apsw.Connection:
        if not self.path.is_file():
            raise FileNotFoundError(errno.ENOENT, "the rows are missing", str(self.path))
        # SQLite refuses links in any part of a path; only the last part must not be one here.
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW
        connection = apsw.Connection(str(self.path.parent.resolve() / self.path.name), flags=flags)
        try:
            connection.set_busy_timeout(_LOCKED)
            _expect_ours(connection)
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            keep = array("i", [1])
            connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, keep.buffer_info()[0])
            connection.wal_autocheckpoint(0)
            connection.execute(f"PRAGMA cache_size = -{_CACHE}")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close(True)
            raise
        return connection

    def _committed(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    # --- reading

    def read(self, statement: str, **values: Value) -> list[Row]:
        """Run a statement to its end. Raises: QueueDamaged, QueueBusy, StorageFailure."""
        if self._identity == _NONE:
            with self._lock.held():
                self._follow()
        with self._reading, faults():
            return cast("list[Row]", self._reader.execute(statement, values).fetchall())

    @contextlib.contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """A connection whose statements see the rows of one moment. Raises: as `read`."""
        with self._reading, faults():
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("COMMIT")

    def changed(self) -> bool:
        """Has another connection committed since the last call? The first call says yes, as after a rebuild."""
        with faults():
            replaced = _identity(self.path) != self._identity
        if replaced:
            with self._lock.held():
                self._follow()
        with self._reading, faults():
            state = int(self._reader.execute("PRAGMA data_version").get)
        changed, self._state = state != self._state, state
        return changed

    # --- writing

    def write(self, body: Callable[[apsw.Connection], T], *, durable: bool = True, waits: float = WAITS) -> T:
        """Run the body in a transaction. On a full disk it is run twice, so it changes nothing but rows.

        `waits`: seconds for which the lock is waited for. Raises: NoSpace, QueueBusy, QueueDamaged, StorageFailure, and what the body raises; nothing was changed then.
        """
        with self._lock.held(waits):
            self._follow()
            if self._lock.is_marked():
                self._mend()
            with faults():
                try:
                    value = self._transaction(body, durable=durable)
                except apsw.FullError:
                    self._checkpoint()
                    value = self._transaction(body, durable=durable)
                if self._pages >= CHECKPOINT_PAGES:
                    self._checkpoint_quietly()
            return value

    def _transaction(self, body: Callable[[apsw.Connection], T], *, durable: bool) -> T:
        self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            value = body(self._writer)
            disk.point("commit.before")
            try:
                self._writer.execute("COMMIT")
            except apsw.IOError:
                self._lock.mark()
                raise
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        disk.point("commit.after")
        return value

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """Keep all writers out, when all that they have committed survives a power cut.

        Raises: NoSpace, QueueBusy, StorageFailure.
        """
        with self._lock.held():
            self._follow()
            if self._lock.is_marked():
                self._mend()
            else:
                self._sync_wal()
            yield

    def sync(self) -> None:
        """Make all transactions so far survive a power cut. Raises: NoSpace, QueueBusy, StorageFailure."""
        with self.settled():
            if self._pages >= CHECKPOINT_PAGES // 2:
                self._checkpoint_quietly()

    def _sync_wal(self, *, rewritten: bool = False) -> None:
        # SQLite has no lock on this file, so that its descriptor may be closed.
        with faults():
            fd = os.open(_wal(self.path), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if rewritten:
                    offset = 0
                    while data := os.pread(fd, disk.CHUNK, offset):
                        disk.write(fd, data, offset)
                        offset += len(data)
                try:
                    disk.sync(fd)
                except OSError:
                    self._lock.mark()
                    raise
            finally:
                os.close(fd)

    def _mend(self) -> None:
        """Write the WAL anew, and another transaction over what a failed commit may have left. Raises: StorageFailure."""
        self._sync_wal(rewritten=True)
        with faults():
            self._transaction(lambda connection: connection.execute(statements.OVERWRITE), durable=True)
        self._lock.clear()

    def checkpoint(self) -> None:
        """Move the WAL into the database. Raises: NoSpace, QueueBusy, StorageFailure."""
        with self._lock.held(), faults():
            self._follow()
            self._checkpoint()

    def _checkpoint(self) -> None:
        try:
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        except apsw.IOError:
            self._lock.mark()
            raise
        except apsw.BusyError:
            # A long read keeps the frames: the transaction has to find space behind them.
            return
        self._pages = 0

    def _checkpoint_quietly(self) -> None:
        """The same where nothing depends on it: the WAL grows until it succeeds."""
        try:
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            if isinstance(error, apsw.IOError):
                self._lock.mark()
            _log.warning(
                "the log of %s could not be moved into it; the next transaction tries again: %s", self.path, error
            )
            return
        self._pages = 0

    def _upgrade(self, connection: apsw.Connection) -> None:
        version = migrations.version_of(connection)
        if version < migrations.NEWEST:
            migrations.apply(connection, version)

    def close(self) -> None:
        """Close both connections."""
        self._reader.close(True)
        self._writer.close(True)


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _identity(path: Path) -> tuple[int, int]:
    """Device and inode of the file. Raises: FileNotFoundError, OSError."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _expect_ours(connection: apsw.Connection) -> None:
    if connection.execute("PRAGMA application_id").get != APPLICATION_ID:
        raise apsw.NotADBError("it is no mail queue")


def _wal_identity(path: Path) -> tuple[int, int] | None:
    """The same of its WAL; None if there is none. Raises: OSError."""
    try:
        return _identity(_wal(path))
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """Turn the faults of SQLite and the system into those of the queue."""
    try:
        yield
    except apsw.FullError as error:
        raise NoSpace from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise QueueBusy from error
    except _DAMAGED as error:
        raise QueueDamaged from error
    except apsw.Error as error:
        raise StorageFailure("the mail queue is not available") from error
    except FileNotFoundError as error:
        raise QueueDamaged from error
    except OSError as error:
        raise disk.failure(error) from error
