"""`[server] log_file`: the log in a file of our own, in place of twistd's; reopened after it was moved away.

twistd begins its log before the process has become the configured user, and the file must be that user's. So what is
logged before `open` goes where twistd would have written it, and is then repeated in the file, which tells the whole
story of a start. From there on lines go to the file alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
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

from mailserver.net.log.events import classic_text, is_chatter, log
from mailserver.net.log.process_log import open_log_file

REPEATED = 1000
"""Lines of the start that the file repeats."""


@implementer(ILogObserver)
class LogFile:
    """The process's log observer. A line that finds no room on the disk is lost and counted, and nobody waits for it."""

    def __init__(self, path: Path, first: ILogObserver | None, *, beside: bool = False) -> None:
        """`first`: where lines go until `open`. `beside`: twistd was given an observer that stays, so we are added."""
        self._path = path
        self._first = first
        self._beside = beside
        self._start = LimitedHistoryLogObserver(REPEATED)
        self._number: int | None = None
        self._lost = 0

    def __call__(self, event: LogEvent) -> None:
        """One event."""
        if is_chatter(event):
            return
        if self._number is not None:
            self._write(event, self._number)
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
        self._number = number
        if first:
            self._start.replayTo(self)
            if self._beside:
                globalLogPublisher.addObserver(self)

    def reopen(self) -> None:
        """Go on in a new file of the name; in the old one where that cannot be."""
        try:
            opened = open_log_file(self._path)
        except OSError as error:
            log.warn("{line}", line=f"the log file {self._path} is not reopened: {error.strerror}")
            return
        before, self._number = self._number, opened
        if before is not None:
            os.close(before)

    def _write(self, event: LogEvent, number: int) -> None:
        text = classic_text(event)
        if text is None:
            return
        if self._lost:
            # The one before may have been cut: it is ended first.
            text = f"\n{self._lost} lines of the log found no room\n{text}"
        line = text.encode("utf-8", "backslashreplace")
        try:
            written = os.write(number, line)
        except OSError:
            written = 0
        self._lost = 0 if written == len(line) else self._lost + 1


def make_log_file(path: Path, twistd: Mapping[str, Any] | None) -> LogFile:
    """The observer for what twistd was told on its command line; None where there is no twistd."""
    options = twistd or {}
    beside = options.get("logger") is not None
    name = options.get("logfile")
    first = None
    if name not in {None, "-"}:
        first = textFileLogObserver(RotatedFile.fromFullPath(name))
    elif options.get("nodaemon"):
        first = textFileLogObserver(sys.stdout)
    return LogFile(path, None if beside else first, beside=beside)
