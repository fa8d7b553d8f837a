"""The two locks of an account: ours, and Dovecot's.

`AccountLock` is a flock(2) on a file that is never deleted, with a descriptor for each holder. It ends with its
process, so a start after a kill never waits. It excludes two threads of one process as well as two processes. (fcntl
locks do not: one process gets the same lock twice, and closing any descriptor of the file releases it.)

`dotlock` makes `dovecot-uidlist.lock` while uidlist, keywords or new names of a mailbox change: Dovecot knows this
lock. It is always taken inside the account's lock, several in path order.

`MaildropLock` is another flock, on a file of its own, which a POP3 session may hold for its whole life.

A dotlock outlives its process, so there are rules for a stale one. It contains `pid:host`. It is removed at once if the
process is a dead one of this host; or this process, which holds the account's lock, so that it is a leftover of an
earlier process with the same pid; or a process that started after the lock was made, so that the pid was reused. An
empty one is removed at once if it is older than this machine's start: after a power cut the name may survive its
content. Any other one, of another host or unreadable, is removed when neither it nor the file it protects has changed
for two minutes: Dovecot's own rule.

Each holder of the account's lock leaves a stamp in the lock file. A holder that finds its own stamp knows that nobody
else has changed the account meanwhile, and need not read again what it wrote to the index. The end of a stamp is KEEPS_SUMS
if the sums of the index (`store.index.sums`) hold. A version of this program without these sums leaves another end: they
are then removed before the mark is set again.

After the stamp the file has room for `notes` to the next holder. These octets are allocated from the file's beginning,
so a note needs neither space nor a sync; it need not outlive the machine.

A stale lock is removed by renaming it to a name of our own and checking what was renamed: meanwhile it may have become
another program's fresh lock, which is then put back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from mailserver.cancellation import check_change
from mailserver.errors import InUse, StoreUnavailable
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.process_start import boot_time, process_start

FILE_NAME = "mailserver-lock"
MAILDROP_FILE_NAME = "mailserver-maildrop-lock"
WAIT = 10.0
"""Seconds until InUse."""
STALE_AFTER = 120.0
"""Seconds without a change after which a dotlock of unknown owner is removed."""
_LONGEST_NAP = 0.005
"""Seconds, at times half more: less than `scan_process.PAUSE`, in which long work lets other holders in."""
_START_MARGIN = 1.0
_STAMP_SIZE = 16
_NOTES_AT = 32
_SIZE = 4096
"""Octets of the lock file: a block of the file system."""
NOTES_ROOM = _SIZE - _NOTES_AT
"""Largest size of notes in octets."""
KEEPS_SUMS = b"sums"
_RANDOM = _STAMP_SIZE - len(KEEPS_SUMS)


class AccountLock:
    """The lock of the account whose root directory is `root`. Not reentrant; one object for each holder."""

    def __init__(self, root: str, wait: float | None = None) -> None:
        """`wait` in seconds; default WAIT."""
        self._path = os.path.join(root, FILE_NAME)
        self._wait = wait
        self._fd = -1
        self._stamp = os.urandom(_RANDOM)
        self.alone = False
        """Once held: no other object has held it since this one did."""
        self.noted = False
        """Once held: there are notes."""
        self.sums_hold = False
        """Once held: all holders since the sums were last removed have kept them."""

    def __enter__(self) -> Self:
        """Acquire it. Raises: InUse after the wait, NoSpace, StoreUnavailable."""
        assert self._fd < 0, "the lock is not reentrant"
        fd = _open_lock_file(self._path, os.path.dirname(self._path))
        try:
            if not _try_flock(fd):
                wait_for(lambda: _try_flock(fd), WAIT if self._wait is None else self._wait)
            self.alone, self.noted, self.sums_hold = _leave_stamp(fd, self._stamp)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fd, self._fd = self._fd, -1
        try:
            # Closing is not enough: a process forked meanwhile holds the same open file.
            fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def mark_sums(self) -> None:
        """Note that the sums of the index hold, after they were removed. Only while it is held. Repeated if it fails."""
        with contextlib.suppress(OSError):
            self.sums_hold = os.pwrite(self._fd, KEEPS_SUMS, _RANDOM) == len(KEEPS_SUMS)

    def notes(self) -> bytes:
        """Return the notes of an earlier holder; none if they cannot be read. Only while it is held."""
        try:
            return os.pread(self._fd, NOTES_ROOM, _NOTES_AT).rstrip(b"\0") if self.noted else b""
        except OSError:
            return b""

    def leave_notes(self, notes: bytes) -> bool:
        """Write notes, at most NOTES_ROOM octets that do not end in NUL, in place of others. False if that fails."""
        try:
            if len(notes) > NOTES_ROOM or os.pwrite(self._fd, notes.ljust(NOTES_ROOM, b"\0"), _NOTES_AT) != NOTES_ROOM:
                return False
            os.pwrite(self._fd, b"1" if notes else b"\0", _STAMP_SIZE)
        except OSError:
            return False
        self.noted = bool(notes)
        return True


class MaildropLock:
    """The lock on the maildrop of the account at `root`, from here to `release` or the process's end.

    It does not wait: the second session gets an error at once (RFC 1939 4). Raises: InUse, NoSpace, StoreUnavailable.
    """

    def __init__(self, root: str) -> None:
        self._fd = _open_lock_file(os.path.join(root, MAILDROP_FILE_NAME), os.path.join(root, "cur"))
        held = False
        try:
            held = _try_flock(self._fd)
        finally:
            if not held:
                os.close(self._fd)
        if not held:
            raise InUse("another session has the maildrop locked")

    def release(self) -> None:
        """Release it. On any thread, as it never waits."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                fcntl.flock(fd, fcntl.LOCK_UN)
            finally:
                os.close(fd)


def disturb(root: str) -> None:
    """Clear the stamp, so that the next holder of the account's lock rereads everything. Raises: StoreUnavailable."""
    with safeio.boundary(), contextlib.suppress(FileNotFoundError):
        fd = os.open(os.path.join(root, FILE_NAME), os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(fd, bytes(_RANDOM), 0)
        finally:
            os.close(fd)


@contextlib.contextmanager
def dotlock(path: str, wait: float = WAIT) -> Iterator[None]:
    """Hold Dovecot's lock file `path`. The caller holds the account's lock.

    Raises: InUse after the wait, FileNotFoundError (no directory), NoSpace, StoreUnavailable.
    """
    mine = take_dotlock(path, wait)
    try:
        yield
    finally:
        release_dotlock(path, mine)


def take_dotlock(path: str, wait: float = WAIT) -> tuple[int, int]:
    """Make the lock file. Return its identity for `release_dotlock`. Raises as `dotlock`."""
    host = os.uname().nodename
    temporary = f"{path}.{host}.{os.getpid()}.{os.urandom(8).hex()}"
    fd = safeio.open_new(temporary)
    try:
        try:
            safeio.write(fd, f"{os.getpid()}:{host}".encode())
            mine = _identity(os.fstat(fd))
        finally:
            os.close(fd)
        wait_for(lambda: try_link(temporary, path), wait, lambda: remove_if_stale(path))
    finally:
        safeio.discard(temporary)
    safeio.point("dotlock.taken")
    return mine


def release_dotlock(path: str, mine: tuple[int, int]) -> bool:
    """Remove the lock file unless another program took it for stale and replaced it. True if it is gone.

    Never raises for the disk: the work under the lock is done.
    """
    try:
        if _identity(os.lstat(path)) == mine:
            safeio.unlink(path)
    except FileNotFoundError:
        pass
    except (OSError, StoreUnavailable):
        return False
    return True


def remove_if_stale(path: str) -> bool:
    """Remove a dotlock without an owner. True if another attempt makes sense. Raises: StoreUnavailable."""
    try:
        with safeio.boundary():
            status = os.lstat(path)
        stale = is_stale(path, status)
    except FileNotFoundError:
        return True
    if not stale:
        return False
    removed = f"{path}.stale.{os.getpid()}.{os.urandom(8).hex()}"
    try:
        safeio.rename(path, removed)
    except FileNotFoundError:
        return True
    if _identity(os.lstat(removed)) != _identity(status):
        # Another process removed the stale one and made this one: put it back.
        with contextlib.suppress(FileExistsError):
            safeio.link(removed, path, or_copy=False)
    safeio.discard(removed)
    return True


def is_stale(path: str, status: os.stat_result) -> bool:
    """Tell whether the dotlock, whose lstat is `status`, has no owner. Raises: FileNotFoundError."""
    try:
        content = safeio.read_file(path)
    except StoreUnavailable:
        # Not a regular file, or unreadable: only its age counts.
        content = b""
    if not content.strip(b"\0 \n") and status.st_ctime < boot_time() - _START_MARGIN:
        return True
    pid_text, _, host = content.strip().partition(b":")
    if pid_text.isdigit() and len(pid_text) <= 10 and host == os.fsencode(os.uname().nodename):
        pid = int(pid_text)
        if pid == os.getpid() or not _is_alive(pid):
            return True
        started = process_start(pid)
        if started is not None and started > status.st_ctime + _START_MARGIN:
            return True
    newest = max(status.st_mtime, status.st_ctime)
    with contextlib.suppress(OSError):
        protected = os.stat(path.removesuffix(".lock"))
        newest = max(newest, protected.st_mtime, protected.st_ctime)
    return time.time() - newest > STALE_AFTER


def _identity(status: os.stat_result) -> tuple[int, int]:
    """The identity of a lock file, also against a later one with the same inode."""
    return status.st_ino, status.st_mtime_ns


def _leave_stamp(fd: int, stamp: bytes) -> tuple[bool, bool, bool]:
    """Write the stamp. Return whether it was there already, whether there are notes, and whether the sums hold.

    If it cannot be written, the file has no stamp, so that every holder rereads everything. Raises: StoreUnavailable.
    """
    try:
        found = os.pread(fd, _NOTES_AT, 0)
    except OSError:
        # A directory in place of the file: the account is read-only.
        return False, False, False
    noted = found[_STAMP_SIZE : _STAMP_SIZE + 1] == b"1"
    sums_hold = found[_RANDOM:_STAMP_SIZE] == KEEPS_SUMS
    if found[:_RANDOM] == stamp:
        return True, noted, sums_hold
    # The first holder takes the room for notes.
    data = stamp + (KEEPS_SUMS if sums_hold else bytes(len(KEEPS_SUMS)))
    if len(found) != _NOTES_AT:
        data = data.ljust(_SIZE, b"\0")
    try:
        if os.pwrite(fd, data, 0) == len(data):
            return False, noted, sums_hold
    except OSError as error:
        if error.errno == errno.EBADF:
            # Opened for reading: a process that may not write here changes nothing either.
            return False, noted, sums_hold
    # The disk is full. Another holder's stamp must not stay.
    with safeio.boundary():
        os.ftruncate(fd, 0)
    return False, False, False


def _open_lock_file(path: str, stand_in: str) -> int:
    """`stand_in`: the directory to lock instead if the file cannot be made."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(OSError):
        return os.open(path, flags | os.O_RDWR)
    with safeio.boundary():
        try:
            try:
                return os.open(path, flags | os.O_RDWR)
            except FileNotFoundError:
                return os.open(path, flags | os.O_RDWR | os.O_CREAT, safeio.FILE_MODE)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EROFS}:
                raise
        # A read-only account: nobody can make the file, so a directory can replace it.
        try:
            return os.open(path, flags | os.O_RDONLY)
        except FileNotFoundError:
            return os.open(stand_in, flags | os.O_RDONLY | os.O_DIRECTORY)


def _try_flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise safeio.failure(error) from error
    return True


def try_link(temporary: str, path: str) -> bool:
    """Tell whether the lock `path` could be made. Raises: FileNotFoundError, NoSpace, StoreUnavailable."""
    try:
        safeio.link(temporary, path, or_copy=False)
    except FileExistsError:
        return False
    return True


def wait_for(attempt: Callable[[], bool], wait: float, cleared: Callable[[], bool] = lambda: False) -> None:
    """Try until it succeeds, at once again when something was `cleared`. Raises: InUse after `wait` seconds, Cancelled."""
    deadline = time.monotonic() + wait
    nap = 0.0005
    while not attempt():
        check_change()
        late = time.monotonic() >= deadline
        if cleared() and attempt():
            return
        if late:
            raise InUse
        # Random, so that waiters do not run in step.
        time.sleep(nap * (0.5 + os.urandom(1)[0] / 256))
        nap = min(nap * 2, _LONGEST_NAP)


def _is_alive(pid: int) -> bool:
    if pid <= 0 or pid > 2**31 - 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
