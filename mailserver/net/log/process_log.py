"""The log of a worker and of the zygote: standard output, or the configured file; and of a master in the foreground."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from mailserver.net.log.events import classic_text, is_chatter, log

_STANDARD_OUTPUT = 1


def open_log_file(path: Path) -> int:
    """A descriptor to append to. A pipe that was put in the file's place is refused. Raises: OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    opened = os.open(path, flags, 0o640)
    if may_wait(opened):
        os.close(opened)
        raise OSError(errno.EINVAL, "it is a pipe, whose reader could hold up the server")
    return opened


def may_wait(number: int) -> bool:
    """Does a write to it wait for a reader: is it a pipe or a socket?"""
    return stat.S_IFMT(os.fstat(number).st_mode) in {stat.S_IFIFO, stat.S_IFSOCK}


@implementer(ILogObserver)
class ProcessLog:
    """Each event is one write, so that lines of several processes do not mix.

    Nothing waits for a reader: where there is no room lines are left out, and how many is told when there is again.
    """

    def __init__(self, name: str, *, relayed: bool) -> None:
        """`name` stands in each line; `relayed`: whoever reads standard output has a log that says when.

        To be made before a change of user, which may take away the right to open standard output anew.
        """
        self.name = name
        self._relayed = relayed
        self._number: int | None = None
        self._write = partial(os.write, _STANDARD_OUTPUT) if relayed else _output(_STANDARD_OUTPUT)
        self._left_out = 0
        self._cut = False
        """The last line has no end."""

    def open(self, path: Path) -> None:
        """Write to a file from now on, in place of standard output or of the file before. Raises: OSError."""
        opened = open_log_file(path)
        if self._number is not None:
            os.close(self._number)
        self._number = opened
        self._write = partial(os.write, opened)
        self._relayed = False

    def reopen(self, path: Path) -> None:
        """Go on in a new file of the name, after it was moved away; in the old one where that cannot be."""
        try:
            self.open(path)
        except OSError as error:
            log.warn("{line}", line=f"the log file {path} is not reopened: {error.strerror}")

    def __call__(self, event: LogEvent) -> None:
        """One event."""
        if is_chatter(event):
            return
        level = getattr(event.get("log_level"), "name", "-")
        system = event.get("log_system") or f"{event.get('log_namespace', '-')}#{level}"
        text = classic_text({**event, "log_system": f"{system} {self.name}" if self.name else system})
        if text is None:
            return
        if self._relayed:
            text = text.partition(" ")[2]
        if self._left_out:
            end = "\n" if self._cut else ""
            text = f"{end}{self._left_out} lines of the log found no room\n{text}"
        line = text.encode("utf-8", "backslashreplace")
        try:
            written = self._write(line)
        except OSError:
            written = 0
        self._left_out = 0 if written == len(line) else self._left_out + 1
        self._cut = 0 < written < len(line) or (self._cut and not written)


def _output(number: int) -> Callable[[bytes], int]:
    """Writes what there is room for at once; raises OSError where there is none.

    A pipe or terminal is opened anew, as others who have it share what O_NONBLOCK says of the opening they have.
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
