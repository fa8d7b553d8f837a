"""The log of a worker and of the zygote: standard output, or the configured file."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from mailserver.net.log import classic_text, log

_STANDARD_OUTPUT = 1


@implementer(ILogObserver)
class LineLog:
    """Each event is one write, so that lines of several processes do not mix.

    Nothing waits for a reader: where there is no room lines are left out, and how many is told when there is again.
    """

    def __init__(self, name: str, *, relayed: bool) -> None:
        """`name` stands in each line; `relayed`: whoever reads standard output has a log that says when."""
        self.name = name
        self._relayed = relayed
        self._number = _STANDARD_OUTPUT
        self._left_out = 0

    def open(self, path: Path) -> None:
        """Write to a file from now on, in place of standard output or of the file before. Raises: OSError."""
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if self._number != _STANDARD_OUTPUT:
            os.close(self._number)
        self._number = opened
        self._relayed = False

    def reopen(self, path: Path) -> None:
        """Go on in a new file of the name, after it was moved away; in the old one where that cannot be."""
        try:
            self.open(path)
        except OSError as error:
            log.warn("{line}", line=f"the log file {path} is not reopened: {error.strerror}")

    def __call__(self, event: LogEvent) -> None:
        """One event."""
        if event.get("log_system") == "-" and not event.get("isError"):
            return  # each socket opened and closed, in each process
        level = getattr(event.get("log_level"), "name", "-")
        system = event.get("log_system") or f"{event.get('log_namespace', '-')}#{level}"
        text = classic_text({**event, "log_system": f"{system} {self.name}"})
        if text is None:
            return
        if self._relayed:
            text = text.partition(" ")[2]
        if self._left_out:
            text = f"{self._left_out} lines of the log found no room\n{text}"
        line = text.encode("utf-8", "backslashreplace")
        try:
            written = os.write(self._number, line)
        except OSError:
            written = 0
        self._left_out = 0 if written == len(line) else self._left_out + 1
