"""Moving a whole account to another place, for commands beside a running server.

The problem. While an account moves, a delivery for its old name may come. It would make a new account at the old place,
and be lost to the user.

The rules. A file, the marker, is made at the new place. Then it changes places with the Maildir in one step
(renameat2(2), RENAME_EXCHANGE), so that at no moment a new account could be made at the old place: a delivery finds the
marker there, fails temporarily, and is tried again by its sender. The command removes the marker once the server knows
the new name. If the file system cannot exchange names, the marker comes in a step of its own, right after the move. The
move is made under the account's lock, so no operation is in progress.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import time
from typing import Final

from mailserver.errors import StoreUnavailable
from mailserver.store.maildir.disk import directories, safeio

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_MARKER: Final = b"mailserver is moving this account\n"


class PlaceTaken(Exception):
    """There is something at the account's new place. The argument is the path."""


def exchange(source: str, target: str) -> None:
    """Move the directory `source` to `target` and leave the marker at `source`, durably.

    Raises: PlaceTaken, FileNotFoundError, NoSpace, StoreUnavailable.
    """
    directories.make_directories(os.path.dirname(target))
    try:
        descriptor = safeio.open_new(target)
    except FileExistsError as error:
        if not is_marker(target):
            raise PlaceTaken(target) from error
        descriptor = os.open(target, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    _write_marker(descriptor)
    try:
        is_swapped = _swap(source, target)
    except BaseException:
        with contextlib.suppress(OSError, StoreUnavailable):
            safeio.unlink(target)
        raise
    if not is_swapped:
        safeio.unlink(target)
        safeio.rename(source, target)
        _write_marker(safeio.open_new(source))
    for place in (target, source):
        safeio.sync_directory(os.path.dirname(place))


def is_marker(path: str) -> bool:
    """Tell whether there is a marker of a move, or the beginning of one, as a kill leaves it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return _MARKER.startswith(os.read(descriptor, len(_MARKER) + 1))
    except OSError:
        return False
    finally:
        os.close(descriptor)


def remove_marker(path: str) -> None:
    """Remove it, and its directory if that is empty. Raises: StoreUnavailable."""
    if is_marker(path):
        safeio.unlink(path)
    with contextlib.suppress(OSError):
        directories.rmdir(os.path.dirname(path))


def aside(path: str, now: float) -> str:
    """Return a free path beside an account for what is moved away, with the date (UTC)."""
    dated = f"{path}.deleted-{time.strftime('%Y-%m-%d', time.gmtime(now))}"
    candidates = [dated, *(f"{dated}-{number}" for number in range(2, 1000))]
    for candidate in candidates:
        if not os.path.lexists(candidate):
            return candidate
    raise StoreUnavailable


def _write_marker(descriptor: int) -> None:
    """Write it durably and close the file: an empty one would be in the way of every later account."""
    try:
        safeio.write(descriptor, _MARKER)
        safeio.sync(descriptor)
    finally:
        os.close(descriptor)


def _swap(one: str, other: str) -> bool:
    """Exchange two names in one step. False if the system cannot. Raises: as safeio.rename."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    if not library.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}:
        return False
    error = OSError(number, os.strerror(number), one)
    raise safeio.failure(error) from error
