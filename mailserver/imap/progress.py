"""ProgressReporter a client how far a command is that takes long (RFC 9585).

The RFC recommends 10 to 15 seconds between two notifications. People look at a progress bar sooner, so the first comes
after a second, and each pause is twice the one before, up to that.
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
"""Commands on fewer messages than that take no such time."""


class ProgressReporter:
    """From `start` until it is left, the client of that command is told its progress, which whoever works keeps up to date.

    Nothing else may be in the middle of being written then.
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
        """It may take long from now on; repeated, nothing happens."""
        if self._timer is None:
            self._timer = self._session.channel.call_later(self._pause, self._tell)

    def probe(self) -> None:
        """Tell it now, once, if the client sends no more: an answer is the only way to see whether it has gone."""
        if self._timer is not None and self._session.channel.input_ended and not self._probed:
            self._probed = True
            self._timer.cancel()
            self._timer = self._session.channel.call_later(0.0, self._tell)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        # Section 4: PROGRESS never falls, and is less than GOAL as long as the command goes on.
        goal = max(0, self.progress.goal)
        done = self._last = max(self._last, min(self.progress.done, goal - 1)) if goal else self._last
        self._session.untagged(b"OK [INPROGRESS (%b %b)] still at work" % (_tag(self._tag), _numbers(done, goal)))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._timer = self._session.channel.call_later(self._pause, self._tell)


def _tag(tag: str) -> bytes:
    """Quoted; NIL for one with a "]", which many clients would take for the end of the code."""
    return b"NIL" if "]" in tag else writer.quoted(tag.encode("ascii"))


def _numbers(done: int, goal: int) -> bytes:
    return b"%d %d" % (done, goal) if done < goal else b"NIL NIL"
