"""Lines that workers write, taken up into the log of the master, where that goes to a place of its own."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

LONGEST = 65536
_SYSTEM = re.compile(r"\[([^]]{1,100})\] ")


@implementer(IReadDescriptor)
class LogRelay:
    """Reads the pipe that is standard output and error of the zygote and its workers."""

    def __init__(self, reactor: Any) -> None:
        """`output` is the end to write to; a full pipe takes no more, and nobody waits."""
        self._reading, self.output = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._reactor = reactor
        self._rest = b""
        reactor.addReader(self)

    def close(self) -> None:
        """Write what has come, and give up the pipe."""
        if self._reading < 0:
            return
        os.close(self.output)
        self.doRead()
        self._reactor.removeReader(self)
        os.close(self._reading)
        self._reading = -1

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""
        return self._reading

    def logPrefix(self) -> str:
        """A name for the log."""
        return "workers"

    def doRead(self) -> None:
        """Write whole lines to the log."""
        try:
            data = os.read(self._reading, LONGEST)
        except BlockingIOError:
            return
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest if len(rest) <= LONGEST else b""
        for line in lines:
            _write(line.decode("utf-8", "backslashreplace"))

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002
        """The reactor ends."""
        self.close()


def _write(line: str) -> None:
    found = _SYSTEM.match(line)
    system, text = (found[1], line[found.end() :]) if found else ("worker", line)
    globalLogPublisher(
        {
            "log_format": "{line}",
            "line": text,
            "log_system": system,
            "log_level": LogLevel.info,
            "log_time": time.time(),
            "log_namespace": "mailserver",
        }
    )
