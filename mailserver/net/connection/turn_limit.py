"""The last resort against a session that keeps the reactor's thread: it is cut, and the process goes on.

Problem: while one turn of a session computes, nobody else of the process is served. After ten seconds the master takes the
worker for dead and kills it, with everybody's sessions.

Rule: a thread looks twice a second which session's turn it is. One whose turn has taken LIMIT seconds of the processor is
cut: a signal has the main thread raise TurnOverrun wherever it computes, if it is still in the same turn, and so the
session ends as if it had failed. Its connection is closed and the log names user, address, session and command.

The signal may come in the midst of a change to what sessions share: Twisted's Deferreds and transports, the connections and
the account's queue (`mailserver.net`), the queues of logins (`mailserver.auth`), the mailboxes in memory
(`mailserver.store.live`). There the cut is put off to the next look, a few times: such code takes microseconds, unless it is
what computes.

What this cannot cut is one call of a C function that keeps Python's lock, as neither the thread nor the signal's handler
runs then; and work that is no session's. There the master's rule remains.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Final

from twisted.python.failure import Failure

import twisted
from mailserver.net.connection.coroutines import STEP, Task, Turn, TurnOverrun, turn

LIMIT: Final = 3.0
"""Seconds of the processor that one turn may take."""
INTERVAL: Final = 0.5
"""Seconds between two looks."""
_CROWDED: Final = 2
"""Times LIMIT by the clock, where the processor is shared, after which a third of LIMIT is enough."""
MAX_DEFERRALS: Final = 4
"""Looks that a cut is put off for at most."""
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SHARED: Final = tuple(
    os.path.join(directory, "")
    for directory in (
        os.path.dirname(os.path.abspath(twisted.__file__)),
        os.path.join(_PACKAGE, "net"),
        os.path.join(_PACKAGE, "auth"),
        os.path.join(_PACKAGE, "store", "live"),
    )
)
"""Where the code lies that changes what sessions share."""
SIGNAL: Final = signal.SIGURG
"""Ignored where no handler is set."""


class TurnLimit:
    """Watches the turns of the thread that starts it, which must be the main thread."""

    def __init__(self, watched: Turn = turn, limit: float = LIMIT, interval: float = INTERVAL) -> None:
        self._turn = watched
        self._limit = limit
        self._interval = interval
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._suspect: tuple[Task, float] | None = None
        self._put_off = 0

    def start(self) -> None:
        """Begin to watch."""
        signal.signal(SIGNAL, self._interrupt)
        main = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, args=(main,), name="turn-limit", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watching; repeating it is harmless."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            signal.signal(SIGNAL, signal.SIG_DFL)

    def _watch(self, main: int) -> None:
        clock = time.pthread_getcpuclockid(main)
        seen: tuple[Task, float] | None = None
        since = 0.0
        looks = 0
        while not self._ended.wait(self._interval):
            task = self._turn.task
            now = time.clock_gettime(clock)
            current = None if task is None else (task, task.began)
            if current is None or current != seen:
                seen, since, looks = current, now, 0
                continue
            if self._suspect == current:
                # It was put off, or is about to be handled.
                signal.pthread_kill(main, SIGNAL)
                continue
            # A process that was stopped has not been looked at: looks count, not the clock.
            looks += 1
            used = now - since
            is_crowded = looks * self._interval >= _CROWDED * self._limit and used >= self._limit / 3
            if used >= self._limit or is_crowded:
                self._suspect = current
                since, looks = now, 0
                signal.pthread_kill(main, SIGNAL)

    def _interrupt(self, _number: int, frame: FrameType | None) -> None:
        """In the main thread, between two of its steps: what it does now is known for certain."""
        suspect, task = self._suspect, self._turn.task
        if task is not None and suspect == (task, task.began):
            if self._put_off < MAX_DEFERRALS and _changes_shared(frame):
                self._put_off += 1
                return
            self._suspect, self._put_off = None, 0
            raise TurnOverrun
        self._suspect, self._put_off = None, 0


def _changes_shared(frame: FrameType | None) -> bool:
    """Is a session, within its turn, in code that changes what sessions share?"""
    while frame is not None and frame.f_code is not STEP:
        if frame.f_code.co_filename.startswith(_SHARED):
            return True
        frame = frame.f_back
    return False


def location_of(failure: Failure) -> str:
    """The place that computed: file and line of the innermost frame but the signal's handler."""
    places = [(path, line) for _function, path, line, *_rest in failure.frames if path != __file__]
    if not places:
        return ""
    path, line = places[-1]
    return f"{path.rpartition('/mailserver/')[2]}:{line}"
