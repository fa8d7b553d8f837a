"""Reads of files that the kernel has in memory whole: they never wait for a disk, so the reactor's thread may make them.

openat2(2) with RESOLVE_CACHED (Linux 5.12) opens a path only if the dentry cache has all of it, and preadv2(2) with
RWF_NOWAIT reads only what the page cache has. But a file system of another machine, or of another process (FUSE), may be
asked even for such an open: nothing is read here of one that `may_wait` knows.

Each call takes a microsecond or two. Python's own functions would release Python's lock for it, and wait up to a switch
interval (5 ms) to get it back from a busy thread. So libc is called with the lock held (`PyDLL`).
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import lru_cache
from typing import Any, Final

LARGEST: Final = 256 * 1024
"""Octets of the largest file that is read."""
_OPENAT2: Final = 437
"""The number of the system call, on every architecture but one."""
_AT_FDCWD: Final = -100
_RESOLVE_CACHED: Final = 0x20
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_HOW: Final = struct.pack("QQQ", _FLAGS, 0, _RESOLVE_CACHED)
"""A struct open_how."""


_REMOTE: Final = frozenset(
    {
        0x6969,  # NFS
        0x65735546,  # FUSE
        0x517B, 0xFE534D42, 0xFF534D42,  # SMB
        0x01021997,  # 9P
        0x00C36400,  # Ceph
        0x5346414F, 0x6B414653, 0x73757245,  # AFS, Coda
        0x0BD00BD0, 0x01161970, 0x7461636F, 0x47504653,  # Lustre, GFS2, OCFS2, GPFS
        0x786F4256,  # VirtualBox
    }
)  # fmt: skip
"""File systems by their magic numbers (statfs(2))."""
_libc: Final = ctypes.CDLL(None)
_STATFS: Final = 512
"""Octets that have room for a struct statfs; the type comes first."""


class PageCache:
    """The system calls and their buffer; for one thread."""

    def __init__(self, libc: Any) -> None:
        """Raises: AttributeError where libc lacks a function."""
        self._syscall, self._preadv2, self._close = libc.syscall, libc.preadv2, libc.close
        self._syscall.argtypes = (
            ctypes.c_long,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
        )
        self._syscall.restype = ctypes.c_long
        self._preadv2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int)
        self._preadv2.restype = ctypes.c_ssize_t
        self._close.argtypes = (ctypes.c_int,)
        self._buffer = bytearray(LARGEST + 1)
        self._octets = memoryview(self._buffer)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        # A struct iovec. One octet more than the largest file shows that a file is larger.
        self._whole = struct.pack("PN", self._address, LARGEST + 1)
        self._one = struct.pack("PN", self._address, 1)

    def is_supported(self) -> bool:
        """Tell whether the kernel opens a path that it certainly has in memory."""
        fd = self._syscall(_OPENAT2, _AT_FDCWD, b"/", _HOW, len(_HOW))
        if fd < 0:
            return False
        self._close(fd)
        return True

    def read(self, path: bytes) -> bytes | None:
        """Read a whole file of at most LARGEST octets.

        None: it is not in memory, or it is larger, or a call has failed.
        """
        fd = self._syscall(_OPENAT2, _AT_FDCWD, path, _HOW, len(_HOW))
        if fd < 0:
            return None
        count = self._preadv2(fd, self._whole, 1, 0, os.RWF_NOWAIT)
        # The second read distinguishes the end of the file from the end of what is in memory.
        if 0 <= count <= LARGEST and self._preadv2(fd, self._one, 1, count, os.RWF_NOWAIT):
            count = -1
        self._close(fd)
        return bytes(self._octets[:count]) if 0 <= count <= LARGEST else None

    def read_start(self, path: bytes, most: int) -> bytes | None:
        """Read the first octets of a file that are in memory, `most` of them at most; None if there are none."""
        fd = self._syscall(_OPENAT2, _AT_FDCWD, path, _HOW, len(_HOW))
        if fd < 0:
            return None
        count = self._preadv2(fd, struct.pack("PN", self._address, min(most, LARGEST)), 1, 0, os.RWF_NOWAIT)
        self._close(fd)
        return bytes(self._octets[:count]) if count > 0 else None


@lru_cache(maxsize=1)
def page_cache() -> PageCache | None:
    """Return the page cache for the reactor's thread; None where the system has no such calls."""
    try:
        found = PageCache(ctypes.PyDLL(None))
    except (AttributeError, OSError):
        return None
    return found if found.is_supported() else None


def file_system_type(path: str) -> int:
    """Return the magic number of the file system of a directory; 0 if it cannot be determined."""
    buffer = ctypes.create_string_buffer(_STATFS)
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        return 0
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF


def may_wait(path: str) -> bool:
    """Tell whether opening a file in this directory may wait for another machine or process. It may wait itself."""
    return file_system_type(path) in _REMOTE
