"""INPROGRESS responses of a command that takes long (RFC 9585).

The RFC recommends 10 to 15 seconds between two notifications. People expect a progress bar sooner, so the first comes
after a second, and each pause is twice the one before, up to LONGEST_PAUSE.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from mailserver.imap.command import Command
from mailserver.imap.session import Session
from mailserver.imap.wire import writer
from mailserver.store.interfaces import Progress
from mailserver.system.children import Timer

FIRST: Final = 1.0
LONGEST_PAUSE: Final = 10.0
"""Seconds."""
MANY: Final = 100
"""Commands on fewer messages need no progress."""


class ProgressReporter:
    """Send INPROGRESS from `start` until the block exits. The store keeps `progress` up to date.

    Meanwhile no other response may be half written.
    """

    def __init__(self, session: Session, command: Command) -> None:
        self._session = session
        self._tag = command.tag
        self._pause = FIRST
        self._timer: Timer | None = None
        self._last = 0
        self._probed = False
        self.progress = Progress()

    def start(self) -> None:
        """Begin to report. Harmless when repeated."""
        if self._timer is None:
            self._timer = self._session.channel.call_later(self._pause, self._report)

    def probe(self) -> None:
        """Report now, once, if the client has ended its input: only a write shows whether it is gone."""
        if self._timer is not None and self._session.channel.input_ended and not self._probed:
            self._probed = True
            self._timer.cancel()
            self._timer = self._session.channel.call_later(0.0, self._report)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _report(self) -> None:
        # Section 4: PROGRESS never falls, and is less than GOAL as long as the command goes on.
        goal = max(0, self.progress.goal)
        done = self._last = max(self._last, min(self.progress.done, goal - 1)) if goal else self._last
        self._session.untagged(b"OK [INPROGRESS (%b %b)] still at work" % (_tag(self._tag), _numbers(done, goal)))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._timer = self._session.channel.call_later(self._pause, self._report)


class SilentReporter(ProgressReporter):
    """A reporter for work that belongs to no command."""

    def __init__(self) -> None:
        self.progress = Progress()

    def start(self) -> None:
        """Report nothing."""

    def probe(self) -> None:
        """Report nothing."""


class PartReporter(SilentReporter):
    """A reporter for one of several parts of a command's work, whose own progress is not shown."""

    def __init__(self, whole: ProgressReporter) -> None:
        super().__init__()
        self._whole = whole

    def start(self) -> None:
        """Begin to report the whole."""
        self._whole.start()

    def probe(self) -> None:
        """Do it for the whole."""
        self._whole.probe()


def _tag(tag: str) -> bytes:
    """Quoted; NIL for one with a "]", which many clients would take for the end of the code."""
    return b"NIL" if "]" in tag else writer.quoted(tag.encode("ascii"))


def _numbers(done: int, goal: int) -> bytes:
    return b"%d %d" % (done, goal) if done < goal else b"NIL NIL"
