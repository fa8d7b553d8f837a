"""Copying between open files within the kernel, by the rules of `safeio`."""

from __future__ import annotations

import errno
import os

from mailserver.errors import StoreUnavailable
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.recorder import Change

_COPY_REFUSED = frozenset({errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM})
_COPY_CHUNK = 1 << 20


def copy_part(source: int, offset: int, count: int, target: int) -> None:
    """Copy octets of another open file to the descriptor's position, within the kernel where it can. Not synced.

    Raises: NoSpace, StoreUnavailable (also if the source is too short).
    """
    end = offset + count
    while offset < end:
        start = os.lseek(target, 0, os.SEEK_CUR) if safeio.recorder is not None else 0
        try:
            done = _copy_some(source, offset, end - offset, target)
        except OSError as error:
            raise safeio.failure(error) from error
        if not done:
            raise StoreUnavailable("the source file is too short")
        if safeio.recorder is not None:
            safeio.recorder.record(
                Change("write", safeio.path_of(target), offset=start, data=os.pread(source, done, offset))
            )
        offset += done


def _copy_some(source: int, offset: int, count: int, target: int) -> int:
    try:
        return os.copy_file_range(source, target, count, offset_src=offset)
    except OSError as error:
        if error.errno not in _COPY_REFUSED:
            raise
    return os.write(target, os.pread(source, min(count, _COPY_CHUNK), offset))
