"""The log of a worker and of the zygote: standard output, or the configured file; and of a master in the foreground."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from mailserver.net.log.events import log
from mailserver.net.log.format import LogFormat, is_chatter, json_of, text_of
from mailserver.net.log.writer import LineWriter, open_log_file, output_writer

_STANDARD_OUTPUT = 1


@implementer(ILogObserver)
class ProcessLog:
    """Writes each event as one line and waits for no reader."""

    def __init__(self, name: str, *, relayed: bool, log_format: LogFormat = "text") -> None:
        """`name` of the process stands in each line; `relayed`: the master reads standard output (`relay.py`).

        To be made before a change of user, which may take away the right to open standard output anew.
        """
        self.name = name
        self.log_format = log_format
        self._relayed = relayed
        self._number: int | None = None
        self._writer = LineWriter(partial(os.write, _STANDARD_OUTPUT) if relayed else output_writer(_STANDARD_OUTPUT))

    def open(self, path: Path) -> None:
        """Write to a file from now on, in place of standard output or of the file before. Raises: OSError."""
        opened = open_log_file(path)
        if self._number is not None:
            os.close(self._number)
        self._number = opened
        self._writer.write = partial(os.write, opened)
        self._relayed = False

    def reopen(self, path: Path) -> None:
        """Go on in a new file of the name, after it was moved away; in the old one if that fails."""
        try:
            self.open(path)
        except OSError as error:
            log.warn(
                "the log file {path} is not reopened: {reason}",
                event="log-not-reopened",
                path=str(path),
                reason=error.strerror,
            )

    def __call__(self, event: LogEvent) -> None:
        """Write one event."""
        if is_chatter(event):
            return
        line = self._format(event)
        if line is not None:
            self._writer(line, self._format)

    def _format(self, event: LogEvent) -> str | None:
        if self._relayed:
            return json_of(event, self.name, with_text=True)
        if self.log_format == "json":
            return json_of(event, self.name)
        return text_of(event, self.name)
