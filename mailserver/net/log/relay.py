"""Events of workers in the log of the master: they arrive as lines of JSON on the workers' standard output."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.net.log.events import escape, printable

LONGEST = 65536
_LEVELS = {level.name: level for level in LogLevel.iterconstants()}


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
        """Publish the events of whole lines."""
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
    """Publish the event of a line; a line that is no JSON, such as a crash of the interpreter, as it stands."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        row = {"text": line, "process": "worker"}
    level, namespace, process = (_word(row.pop(key, "")) for key in ("level", "namespace", "process"))
    when, text = row.pop("time", None), printable(str(row.pop("text", "")))
    row.pop("message", None)
    globalLogPublisher(
        {
            **{key: value for key, value in row.items() if not key.startswith("log_")},
            "log_format": "{text}",
            "text": text,
            "log_system": f"{namespace}#{level} {process}" if level else process,
            "log_level": _LEVELS.get(level, LogLevel.info),
            "log_time": _time_of(when),
            "log_namespace": namespace or "mailserver",
        }
    )


def _word(value: object) -> str:
    """A word for the system of a line; a worker that was taken over could else forge lines."""
    return escape(value) if value != "" else ""


def _time_of(when: object) -> float:
    try:
        return datetime.fromisoformat(str(when)).timestamp()
    except ValueError:
        return time.time()
