"""Descriptors that somebody passes beside octets on a Unix socket (SCM_RIGHTS), and that nobody here wants.

Who closes the last descriptor of a socket with SO_LINGER waits until its octets have left, for as long as the one who
passed it has set, and a file system of somebody's own may have its `close` wait as well. So they are closed in a thread,
and so is a line on which more of them may be under way.
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


def close_passed(descriptors: Collection[int]) -> None:
    """Close these; nobody waits for it."""
    if not descriptors:
        return
    numbers = tuple(descriptors)
    for number in numbers:
        _forbid_linger(number)

    def close() -> None:
        for number in numbers:
            with contextlib.suppress(OSError):
                os.close(number)

    _apart(close)


def close_line(line: socket.socket) -> None:
    """Close a connection on which descriptors may have been passed that were not read."""
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)  # from here on nothing more comes
    if _waits(line):
        _apart(line.close)
    else:
        line.close()


def _waits(line: socket.socket) -> bool:
    """Are there octets unread? No descriptor comes without one (unix(7))."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(line.fileno(), termios.FIONREAD, count)
    except (OSError, ValueError):
        return False
    return count[0] > 0


def _forbid_linger(number: int) -> None:
    """Of a socket: then most threads end at once. Who has it too may change it again."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            same = socket.socket(fileno=number)
            try:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            finally:
                same.detach()


def _apart(close: Callable[[], object]) -> None:
    threading.Thread(target=close, name="close", daemon=True).start()
