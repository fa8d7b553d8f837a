"""`[server] log_file`: the log in a file of our own, in place of twistd's; reopened after it was moved away.

twistd begins its log before the process has become the configured user, and the file must be that user's. So what is
logged before `open` goes where twistd would have written it, and is then repeated in the file, which tells the whole
story of a start. From there on lines go to the file alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.logger import (
    ILogObserver,
    LimitedHistoryLogObserver,
    LogEvent,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile as RotatedFile
from zope.interface import implementer

from mailserver.net.log.events import log
from mailserver.net.log.format import LogFormat, formatter, is_chatter
from mailserver.net.log.writer import LineWriter, open_log_file

REPEATED = 1000
"""Lines of the start that the file repeats."""


@implementer(ILogObserver)
class LogFile:
    """The process's log observer. A line that finds no room on the disk is lost and counted, and nobody waits for it."""

    def __init__(
        self, path: Path, first: ILogObserver | None, *, beside: bool = False, log_format: LogFormat = "text"
    ) -> None:
        """`first`: where lines go until `open`. `beside`: twistd was given an observer that stays, so this one is added."""
        self._format = formatter(log_format)
        self._path = path
        self._first = first
        self._beside = beside
        self._start = LimitedHistoryLogObserver(REPEATED)
        self._number: int | None = None
        self._writer = LineWriter(lambda _line: 0)

    def __call__(self, event: LogEvent) -> None:
        """One event."""
        if is_chatter(event):
            return
        if self._number is not None:
            line = self._format(event)
            if line is not None:
                self._writer(line, self._format)
            return
        self._start(event)
        if self._first is not None:
            self._first(event)

    def open(self) -> None:
        """Write to the file from now on. Raises: SystemExit."""
        try:
            number = open_log_file(self._path)
        except OSError as error:
            raise SystemExit(f"cannot write the log file {self._path}: {error.strerror}") from error
        self.take(number)

    def take(self, number: int) -> None:
        """Write from now on to a file that another process has opened, as its owner."""
        first = self._number is None
        if self._number is not None:
            os.close(self._number)
        self._set(number)
        if first:
            self._start.replayTo(self)
            if self._beside:
                globalLogPublisher.addObserver(self)

    def reopen(self) -> None:
        """Go on in a new file of the name; in the old one where that cannot be."""
        try:
            opened = open_log_file(self._path)
        except OSError as error:
            log.warn(
                "the log file {path} is not reopened: {reason}",
                event="log-not-reopened",
                path=str(self._path),
                reason=error.strerror,
            )
            return
        before = self._number
        self._set(opened)
        if before is not None:
            os.close(before)

    def _set(self, number: int) -> None:
        self._number = number
        self._writer.write = partial(os.write, number)


def make_log_file(path: Path, twistd: Mapping[str, Any] | None, log_format: LogFormat = "text") -> LogFile:
    """The observer for what twistd was told on its command line; None where there is no twistd."""
    options = twistd or {}
    beside = options.get("logger") is not None
    name = options.get("logfile")
    first = None
    if name not in {None, "-"}:
        first = textFileLogObserver(RotatedFile.fromFullPath(name))
    elif options.get("nodaemon"):
        first = textFileLogObserver(sys.stdout)
    return LogFile(path, None if beside else first, beside=beside, log_format=log_format)
