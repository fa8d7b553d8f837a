"""Writing log lines without waiting: a line that finds no room is lost and counted."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import time

from twisted.logger import LogEvent, LogLevel

Write = Callable[[bytes], int]


def open_log_file(path: Path) -> int:
    """A descriptor to append to. A pipe that was put in the file's place is refused. Raises: OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    opened = os.open(path, flags, 0o640)
    if may_wait(opened):
        os.close(opened)
        raise OSError(errno.EINVAL, "it is a pipe, whose reader could hold up the server")
    return opened


def may_wait(number: int) -> bool:
    """Does a write to the descriptor wait for a reader: is it a pipe or a socket?"""
    return stat.S_IFMT(os.fstat(number).st_mode) in {stat.S_IFIFO, stat.S_IFSOCK}


def output_writer(number: int) -> Write:
    """Write to standard output or error what there is room for at once; the result raises OSError where there is none.

    A pipe or terminal is opened anew, because O_NONBLOCK holds for all who share an opening.
    """
    kind = stat.S_IFMT(os.fstat(number).st_mode)
    if kind == stat.S_IFSOCK:
        duplicate = socket.socket(fileno=os.dup(number))
        return lambda line: duplicate.send(line, socket.MSG_DONTWAIT)
    if kind in {stat.S_IFIFO, stat.S_IFCHR}:
        try:
            opened = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return partial(os.write, number)
        return partial(os.write, opened)
    return partial(os.write, number)


class LineWriter:
    """Each line is one write, so that lines of several processes do not mix."""

    def __init__(self, write: Write) -> None:
        self.write = write
        self._lost = 0
        self._is_cut = False
        """The last line has no end."""

    def __call__(self, line: str, lost: Callable[[LogEvent], str | None]) -> None:
        """Write a line with its newline. `lost` formats the event that says how many lines were lost before it."""
        if self._lost:
            notice = lost(
                {
                    "log_format": "{count} lines of the log found no room",
                    "log_level": LogLevel.warn,
                    "log_namespace": "mailserver",
                    "log_time": time(),
                    "event": "log-lines-lost",
                    "count": self._lost,
                }
            )
            end = "\n" if self._is_cut else ""
            line = f"{end}{notice or ''}{line}"
        octets = line.encode("utf-8", "backslashreplace")
        try:
            written = self.write(octets)
        except OSError:
            written = 0
        self._lost = 0 if written == len(octets) else self._lost + 1
        self._is_cut = 0 < written < len(octets) or (self._is_cut and not written)
