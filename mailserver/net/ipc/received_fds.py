"""Close descriptors that a peer sent on a Unix socket (SCM_RIGHTS) without being asked.

The close of a socket's last descriptor blocks as long as SO_LINGER says, which the sender has set; a FUSE file system may
block a close as well. So these descriptors are closed in a thread, and so is a connection on which more may arrive.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import stat
import struct
import termios
import threading
from collections.abc import Callable, Collection
from typing import Final

_NO_LINGER: Final = struct.pack("ii", 0, 0)


def close_descriptors(descriptors: Collection[int]) -> None:
    """Close them in a thread."""
    if not descriptors:
        return
    numbers = tuple(descriptors)
    for number in numbers:
        _disable_linger(number)

    def close() -> None:
        for number in numbers:
            with contextlib.suppress(OSError):
                os.close(number)

    _in_thread(close)


def close_socket(sock: socket.socket) -> None:
    """Close a connection that may hold unread descriptors."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)  # nothing more arrives
    if _has_unread(sock):
        _in_thread(sock.close)
    else:
        sock.close()


def _has_unread(sock: socket.socket) -> bool:
    """Return whether there are unread octets. No descriptor arrives without one (unix(7))."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    except (OSError, ValueError):
        return False
    return count[0] > 0


def _disable_linger(number: int) -> None:
    """Disable a socket's SO_LINGER so that close() seldom blocks; another process that has the socket may set it again."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            same = socket.socket(fileno=number)
            try:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            finally:
                same.detach()


def _in_thread(close: Callable[[], object]) -> None:
    threading.Thread(target=close, name="close", daemon=True).start()
