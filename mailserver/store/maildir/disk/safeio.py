"""Durable file operations. All changes on disk are made here, in `bulk` and in `directories`. What was synced survives a
power cut; the rest may vanish.

Problems:

*   rename(2), link(2), unlink(2), mkdir(2) and open(O_CREAT) change a directory. A power cut undoes them until that
    directory is synced. A file's data are lost until the file is synced. One sync does not include the other.
*   A file that is overwritten in place can be torn. One that is renamed before it was synced can be empty.
*   An append can be short: a disk that fills takes the first half of a line.
*   write(2) and fsync(2) fail for want of space or by the device; the caller needs to know which of the two.
*   A sync that failed once may succeed the next time and prove nothing: the kernel reports an error once, and takes the
    data for written.

Rules:

*   Files are replaced only by `replace`: a temporary file in the same directory, fsync, rename, fsync of the directory.
*   An operation that raises has been undone, as far as the disk lets it. `unsynced` has the paths that could not be
    synced, and `leftovers` the names that could not be removed, until an account takes both over (see the module
    `unsynced`).
*   `append` writes whole lines in one write(2) and syncs. A short write is cut off again and refused.
*   `rename`, `link`, `unlink`, `open_new` do not sync: a caller that changes many names in a directory calls
    `sync_directory` once. `replace` and `append` are durable when they return.
*   ENOSPC, EDQUOT, EFBIG are NoSpace. ENOENT, EEXIST, ENOTEMPTY, EISDIR, ELOOP stay the OSError they are: the caller
    knows what they mean ("another process was here"). All else is StoreUnavailable.

For tests: `hook` is called at each `point(name)`, where it may end the process. `recorder` gets each change in order,
so that the state after a power cut at any moment can be replayed.

Rejected: O_SYNC files (a sync for each of several writes), renameat2(RENAME_NOREPLACE) (not on every file system; names
of messages are unique, and directories are renamed under the account's lock).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import stat
from collections.abc import Callable, Iterator

from mailserver.errors import NoSpace, StoreUnavailable
from mailserver.store.maildir.disk.recorder import Change, Recorder

FILE_MODE = 0o600

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ANSWERS = frozenset({errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ELOOP})
_LINK_REFUSED = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
_COPY_CHUNK = 1 << 20
_EXISTING = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_temporary = itertools.count()
_log = logging.getLogger(__name__)


hook: Callable[[str], None] | None = None
"""Set by tests: called at each `point`."""

recorder: Recorder | None = None
"""Set by tests: gets each change."""

unsynced: set[str] = set()
"""Directories whose last sync failed, and files to be rewritten after a failed sync. Shared by all threads."""

leftovers: set[str] = set()
"""Useless files and directories that could not be removed. Shared by all threads."""


def point(name: str) -> None:
    """Mark a point between two steps, such as "delivery.after-rename". Free unless a test has set `hook`."""
    if hook is not None:
        hook(name)


def failure(error: OSError) -> Exception:
    """Return the exception for an error of the operating system: NoSpace, StoreUnavailable, or one that equals it.

    It is never the error itself. As its own cause, that would be a cycle: until a full garbage collection, it would keep
    the frames that it has passed, with all their values.
    """
    if error.errno in _NO_SPACE:
        return NoSpace()
    if error.errno in _ANSWERS:
        return OSError(error.errno, error.strerror, error.filename, None, error.filename2)
    return StoreUnavailable()


@contextlib.contextmanager
def boundary() -> Iterator[None]:
    """Translate OSErrors of the block as `failure` does, for reads that have no function here."""
    try:
        yield
    except OSError as error:
        raise failure(error) from error


def open_new(path: str, mode: int = FILE_MODE) -> int:
    """Create a file for reading and writing. Return its descriptor.

    Raises: FileExistsError, NoSpace, StoreUnavailable.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except OSError as error:
        raise failure(error) from error
    if recorder is not None:
        recorder.record(Change("create", path))
    return fd


def open_existing(path: str, flags: int = os.O_RDONLY) -> int:
    """Open an existing regular file. Return its descriptor. Never waits for a FIFO nor follows a link.

    Raises: FileNotFoundError, StoreUnavailable (also for anything that is not a regular file).
    """
    return open_with_status(path, flags)[0]


def open_with_status(path: str, flags: int = os.O_RDONLY) -> tuple[int, os.stat_result]:
    """Do `open_existing`; return the file's status, too, which is needed anyway. Raises the same."""
    fd = open_unasked(path, flags)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise StoreUnavailable
    return fd, status


def open_unasked(path: str, flags: int = os.O_RDONLY) -> int:
    """Do `open_existing` without checking the file's type, for callers that know its size and read no more.

    Raises: FileNotFoundError, StoreUnavailable.
    """
    try:
        return os.open(path, flags | _EXISTING)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreUnavailable from error
        raise failure(error) from error


def read_file(path: str) -> bytes:
    """Read a whole regular file. Raises: FileNotFoundError, StoreUnavailable."""
    fd = open_existing(path)
    try:
        return _read_all(fd)
    finally:
        os.close(fd)


def _read_all(fd: int) -> bytes:
    with boundary():
        chunks = []
        while chunk := os.read(fd, _COPY_CHUNK):
            chunks.append(chunk)
        return b"".join(chunks)


def write(fd: int, data: bytes) -> None:
    """Write all of `data` at the descriptor's position. Not synced. Raises: NoSpace, StoreUnavailable."""
    start = os.lseek(fd, 0, os.SEEK_CUR) if recorder is not None else 0
    done = 0
    view = memoryview(data)
    try:
        while done < len(data):
            done += os.write(fd, view[done:])
    except OSError as error:
        raise failure(error) from error
    finally:
        if recorder is not None and done:
            recorder.record(Change("write", path_of(fd), offset=start, data=data[:done]))


def sync(fd: int) -> None:
    """Sync a file by fsync(2): its data and times are safe, its name is not. Raises: NoSpace, StoreUnavailable."""
    try:
        os.fsync(fd)
    except OSError as error:
        raise failure(error) from error
    if recorder is not None:
        recorder.record(Change("sync", path_of(fd)))


def truncate(fd: int, size: int) -> None:
    """Truncate the file. Not synced. Raises: StoreUnavailable."""
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        raise failure(error) from error
    if recorder is not None:
        recorder.record(Change("truncate", path_of(fd), offset=size))


def set_mtime(fd: int, nanoseconds: int) -> None:
    """Set the file's modification time, a message's INTERNALDATE, since 1970. Not synced.

    Raises: NoSpace, StoreUnavailable.
    """
    try:
        os.utime(fd, ns=(nanoseconds, nanoseconds))
    except OSError as error:
        raise failure(error) from error
    if recorder is not None:
        recorder.record(Change("utime", path_of(fd), offset=nanoseconds))


def append(path_or_fd: str | int, data: bytes, size: int | None = None) -> int:
    """Append to an existing file, whole or not at all, and fdatasync. Return the file's new size. `size`: its present one.

    The caller holds the lock that keeps other writers out. Raises: FileNotFoundError, NoSpace, StoreUnavailable.
    """
    if isinstance(path_or_fd, str):
        fd = open_existing(path_or_fd, os.O_RDWR)
        try:
            return append(fd, data)
        finally:
            os.close(fd)
    fd = path_or_fd
    try:
        start = os.fstat(fd).st_size if size is None else size
        written = 0
        try:
            written = os.pwrite(fd, data, start)
        finally:
            if written and recorder is not None:
                recorder.record(Change("write", path_of(fd), offset=start, data=data[:written]))
            if written < len(data):
                # A torn last line would be read as another line.
                _cut_back(fd, start)
        if written < len(data):
            raise NoSpace
        point("append.before-sync")
        try:
            os.fdatasync(fd)
        except OSError:
            # It is unknown how much of it is on disk: undo it as far as possible.
            _cut_back(fd, start)
            raise
    except OSError as error:
        raise failure(error) from error
    if recorder is not None:
        recorder.record(Change("sync", path_of(fd)))
    return start + written


def _cut_back(fd: int, size: int) -> None:
    try:
        truncate(fd, size)
    except StoreUnavailable:
        unsynced.add(path_of(fd))
        raise


def temporary_name(path: str) -> str:
    """Return an unused name beside `path`. The next start sweeps leftovers with such names."""
    temporary = f"{path}.{os.getpid()}.{next(_temporary)}.tmp"
    with contextlib.suppress(FileNotFoundError):
        # From a dead process with the same pid.
        unlink(temporary)
    return temporary


def replace(path: str, data: bytes, mode: int = FILE_MODE) -> None:
    """Replace the content of `path`: readers and power cuts see the old file or the new one.

    `system.atomic_file` does the same outside the store. This function records each step for the tests of power cuts.

    If the directory cannot be synced, the old file is put back. Raises: NoSpace, StoreUnavailable, FileNotFoundError if
    the directory is missing.
    """
    # Kept open, so that its data stay while the name is the new file's.
    old = -1
    with contextlib.suppress(FileNotFoundError, StoreUnavailable):
        old = open_existing(path)
    try:
        _put(path, data, mode)
        point("replace.after-rename")
        try:
            sync_directory(os.path.dirname(path))
        except BaseException:
            with contextlib.suppress(OSError, NoSpace, StoreUnavailable):
                if old < 0:
                    unlink(path)
                else:
                    _put(path, _read_all(old), stat.S_IMODE(os.fstat(old).st_mode))
                sync_directory(os.path.dirname(path))
            raise
    finally:
        if old >= 0:
            os.close(old)


def _put(path: str, data: bytes, mode: int) -> None:
    """Do `replace` without syncing the name."""
    temporary = temporary_name(path)
    fd = open_new(temporary, mode)
    try:
        try:
            write(fd, data)
            sync(fd)
        finally:
            os.close(fd)
        point("replace.before-rename")
        rename(temporary, path)
    except BaseException:
        discard(temporary)
        raise


def rename(old: str, new: str) -> None:
    """Rename a file; no sync. Raises: FileNotFoundError, NoSpace, StoreUnavailable."""
    try:
        os.rename(old, new)
    except OSError as error:
        raise failure(error) from error
    if recorder is not None:
        recorder.record(Change("rename", old, new))


def link(old: str, new: str, *, or_copy: bool = True) -> None:
    """Link a file. If the file system refuses that, make a synced copy with the same times.

    The new name is not synced. Raises: FileNotFoundError, FileExistsError, NoSpace, StoreUnavailable.
    """
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError as error:
        if or_copy and error.errno in _LINK_REFUSED:
            copy(old, new)
            return
        raise failure(error) from error
    if recorder is not None:
        recorder.record(Change("link", old, new))


def copy(old: str, new: str) -> None:
    """Copy a regular file with its modification time; data synced, the name not. Raises as `link`."""
    source = open_existing(old)
    try:
        target = open_new(new)
        try:
            with boundary():
                while chunk := os.read(source, _COPY_CHUNK):
                    write(target, chunk)
                set_mtime(target, os.fstat(source).st_mtime_ns)
            sync(target)
        except BaseException:
            discard(new)
            raise
        finally:
            os.close(target)
    finally:
        os.close(source)


def unlink(path: str) -> None:
    """Unlink a file; no sync. Raises: FileNotFoundError, StoreUnavailable."""
    try:
        os.unlink(path)
    except OSError as error:
        raise failure(error) from error
    if recorder is not None:
        recorder.record(Change("unlink", path))


def discard(path: str) -> None:
    """Remove a useless file if it is there, later if that fails. Never raises for the disk."""
    try:
        unlink(path)
    except FileNotFoundError:
        pass
    except (OSError, NoSpace, StoreUnavailable) as error:
        keep_for_later(path, error)


def keep_for_later(path: str, error: Exception) -> None:
    """Record a file that could not be removed: the next holder of the account's lock tries again."""
    leftovers.add(path)
    _log.warning("%s could not be removed; the next operation tries again: %r", path, error)


def sync_directory(path: str) -> None:
    """Sync a directory: the names in it are safe. Raises: FileNotFoundError, NoSpace, StoreUnavailable."""
    try:
        fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno != errno.ENOENT:
            unsynced.add(path)
        raise failure(error) from error
    if unsynced:
        unsynced.discard(path)
    if recorder is not None:
        recorder.record(Change("sync_directory", path))


def path_of(fd: int) -> str:
    """Return the file's current name; only for a recorder."""
    return os.readlink(f"/proc/self/fd/{fd}")
