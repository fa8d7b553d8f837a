"""The two locks of an account: ours, and Dovecot's.

`AccountLock` is a flock(2) on a file that is never deleted, each holder with a descriptor of its own. It ends with its
process, so a start after a kill never waits; it excludes two threads of one process as well as two processes. (fcntl
locks do not: the same process is granted one twice, and closing any descriptor of the file gives it up.)

`dotlock` makes `dovecot-uidlist.lock`, for the time that uidlist, keywords or new names of a mailbox change: this is
the lock that Dovecot knows. It is always taken inside the account's lock, several in path order.

`MaildropLock` is another flock, on a file of its own, that a POP3 session may hold for as long as it lasts.

A dotlock outlives its process, so there are rules for a stale one. It holds `pid:host`, and is removed at once if that
is a dead process of this host, or ourselves (whoever asks holds the account's lock: it is a leftover of an earlier
process with our pid), or a process that started after the lock was made (the pid was given anew). So is one without
content that is older than this machine's start: a power cut lets the name survive what it held. Any other one, be it
another host's or an unreadable one, is removed when neither it nor the file it protects has changed for two minutes,
which is Dovecot's own rule.

Each holder of the account's lock leaves its stamp in the lock file. Who finds its own there knows that nobody else has
changed the account since it let go of it, and need not ask the index what it wrote there itself.

Behind the stamp the file has room for `notes`: what the holder leaves for the next one, whoever that is. Its octets are
there from the file's beginning, so that a note needs neither room on the disk nor a sync; it may not outlive the machine.

Removing is done by renaming the lock to a name of our own and looking at what was got: between look and removal it may
have become another program's fresh lock, which is then put back.
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
"""Seconds without a change after which a dotlock of which nothing else is known is removed."""
_LONGEST_NAP = 0.005
"""Seconds, by half more at times: below `scan_process.PAUSE`, in which a long work lets others in."""
_START_MARGIN = 1.0
_STAMP_SIZE = 16
_NOTES_AT = 32
_SIZE = 4096
"""Octets of the lock file: a block of the file system."""
NOTES_ROOM = _SIZE - _NOTES_AT
"""Octets of notes that there is room for."""
_NO_STAMP = bytes(_STAMP_SIZE)


class AccountLock:
    """The lock of the account whose root directory is `root`. Not reentrant; one object for each holder."""

    def __init__(self, root: str, wait: float | None = None) -> None:
        """`wait` is in seconds, WAIT unless said."""
        self._path = os.path.join(root, FILE_NAME)
        self._wait = wait
        self._fd = -1
        self._stamp = os.urandom(_STAMP_SIZE)
        self.alone = False
        """Once taken: nobody else has held it since this object held it last."""
        self.noted = False
        """Once taken: there are notes."""

    def __enter__(self) -> Self:
        """Take it. Raises: InUse after the wait, NoSpace, StoreUnavailable."""
        assert self._fd < 0, "the lock is not reentrant"
        fd = _open_lock_file(self._path, os.path.dirname(self._path))
        try:
            if not _try_flock(fd):
                wait_for(lambda: _try_flock(fd), WAIT if self._wait is None else self._wait)
            self.alone, self.noted = _leave_stamp(fd, self._stamp)
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

    def notes(self) -> bytes:
        """What a holder before has left; none if they cannot be read. While it is held."""
        try:
            return os.pread(self._fd, NOTES_ROOM, _NOTES_AT).rstrip(b"\0") if self.noted else b""
        except OSError:
            return b""

    def leave_notes(self, notes: bytes) -> bool:
        """Leave these, at most NOTES_ROOM octets that end in no NUL, in place of others; whether that could be done."""
        try:
            if len(notes) > NOTES_ROOM or os.pwrite(self._fd, notes.ljust(NOTES_ROOM, b"\0"), _NOTES_AT) != NOTES_ROOM:
                return False
            os.pwrite(self._fd, b"1" if notes else b"\0", _STAMP_SIZE)
        except OSError:
            return False
        self.noted = bool(notes)
        return True


class MaildropLock:
    """The maildrop of the account whose root directory is `root`, held from here to `release` or the process's end.

    Not waited for: whoever comes second is told at once (RFC 1939 4). Raises: InUse, NoSpace, StoreUnavailable.
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
        """Give it up; may be called on any thread, for it never waits."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                fcntl.flock(fd, fcntl.LOCK_UN)
            finally:
                os.close(fd)


def disturb(root: str) -> None:
    """Make the next holder of the account's lock, whoever it is, look at everything. Raises: StoreUnavailable."""
    with safeio.boundary(), contextlib.suppress(FileNotFoundError):
        fd = os.open(os.path.join(root, FILE_NAME), os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(fd, _NO_STAMP, 0)
        finally:
            os.close(fd)


@contextlib.contextmanager
def dotlock(path: str, wait: float = WAIT) -> Iterator[None]:
    """Hold Dovecot's lock file `path`; the caller holds the account's lock.

    Raises: InUse after the wait, FileNotFoundError (no directory), NoSpace, StoreUnavailable.
    """
    mine = take_dotlock(path, wait)
    try:
        yield
    finally:
        release_dotlock(path, mine)


def take_dotlock(path: str, wait: float = WAIT) -> tuple[int, int]:
    """Make the lock file; what tells it from another, for `release_dotlock`. Raises as `dotlock`."""
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
    """Remove the lock file if it still is the one that was made: others may have taken it for stale. Whether it is gone.

    Never raises for the disk: what was done under the lock is done.
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
    """Remove a dotlock that nobody holds; whether trying anew makes sense. Raises: StoreUnavailable."""
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
        # Somebody else removed the stale one and made this: give it back.
        with contextlib.suppress(FileExistsError):
            safeio.link(removed, path, or_copy=False)
    safeio.discard(removed)
    return True


def is_stale(path: str, status: os.stat_result) -> bool:
    """Whether the dotlock, whose lstat is `status`, belongs to nobody. Raises: FileNotFoundError."""
    try:
        content = safeio.read_file(path)
    except StoreUnavailable:
        # Not a regular file, or not to be read: only its age speaks.
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
    """What tells a lock file from the next one, which may get the same inode."""
    return status.st_ino, status.st_mtime_ns


def _leave_stamp(fd: int, stamp: bytes) -> tuple[bool, bool]:
    """Whether it was there, and whether there are notes; it is there afterwards, or no stamp at all, so that everybody
    looks at everything.

    Raises: StoreUnavailable.
    """
    try:
        found = os.pread(fd, _NOTES_AT, 0)
    except OSError:
        # A directory in place of the file: the account may only be read.
        return False, False
    noted = found[_STAMP_SIZE : _STAMP_SIZE + 1] == b"1"
    if found[:_STAMP_SIZE] == stamp:
        return True, noted
    # The first holder takes the room for notes.
    data = stamp if len(found) == _NOTES_AT else stamp.ljust(_SIZE, b"\0")
    try:
        if os.pwrite(fd, data, 0) == len(data):
            return False, noted
    except OSError as error:
        if error.errno == errno.EBADF:
            # Opened for reading: who may not write here changes nothing either.
            return False, noted
    # A full disk. Another's stamp must not stay.
    with safeio.boundary():
        os.ftruncate(fd, 0)
    return False, False


def _open_lock_file(path: str, stand_in: str) -> int:
    """`stand_in`: the directory that is locked instead where nobody may make the file."""
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
        # An account that may only be read: nobody makes the file, so a directory can stand for it.
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
    """Whether the lock `path` could be made. Raises: FileNotFoundError, NoSpace, StoreUnavailable."""
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
        # Random, so that waiters do not march in step.
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
