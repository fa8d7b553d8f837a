"""The limit of a session's turn on the reactor's thread: the last resort, which ends the session, and not the process.

While one turn of a session computes, the process serves no other client. After ten seconds the master takes the worker for
dead and kills it, with all its sessions.

So a thread checks twice a second which session has the turn. After LIMIT seconds of the processor it sends a signal, whose
handler raises TurnOverrun in the main thread if that is still in the same turn. The session ends as if it had failed: its
connection is closed, and the log names user, address, session and command.

A signal handler belongs to the whole process. So only the `mailserver` service starts this, and no program that embeds the
factories (`mailserver.embedding`).

The signal may come while the main thread changes what sessions share: Twisted's Deferreds and transports, the connections and
the account's queue (`mailserver.net`), the queues of logins (`mailserver.auth`), the mailboxes in memory
(`mailserver.store.live`). There the end is deferred to the next check, MAX_DEFERRALS times: such code takes microseconds,
unless it is the code that computes.

Two cases remain for the master: a call of a C function that keeps Python's lock, as neither the thread nor the handler runs
then, and work that is no session's.
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
"""Seconds between two checks."""
_CROWDED: Final = 2
"""Where the processor is shared: multiples of LIMIT by the clock, after which a third of LIMIT of the processor is enough."""
MAX_DEFERRALS: Final = 4
"""Checks by which the end is deferred at most."""
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
"""Directories of the code that changes what sessions share."""
SIGNAL: Final = signal.SIGURG
"""The system ignores it where no handler is set."""


class TurnLimit:
    """Limits the turns of the thread that starts it, which must be the main thread."""

    def __init__(self, watched: Turn = turn, limit: float = LIMIT, interval: float = INTERVAL) -> None:
        self._turn = watched
        self._limit = limit
        self._interval = interval
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._suspect: tuple[Task, float] | None = None
        self._deferrals = 0

    def start(self) -> None:
        """Set the handler and start the thread."""
        signal.signal(SIGNAL, self._interrupt)
        main = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, args=(main,), name="turn-limit", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and reset the handler; repeating it is harmless."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            signal.signal(SIGNAL, signal.SIG_DFL)

    def _watch(self, main: int) -> None:
        clock = time.pthread_getcpuclockid(main)
        seen: tuple[Task, float] | None = None
        since = 0.0
        checks = 0
        while not self._ended.wait(self._interval):
            task = self._turn.task
            now = time.clock_gettime(clock)
            current = None if task is None else (task, task.began)
            if current is None or current != seen:
                seen, since, checks = current, now, 0
                continue
            if self._suspect == current:
                # It was deferred, or the handler is about to run.
                signal.pthread_kill(main, SIGNAL)
                continue
            # No check was made while the process was stopped: checks count, not the clock.
            checks += 1
            used = now - since
            is_crowded = checks * self._interval >= _CROWDED * self._limit and used >= self._limit / 3
            if used >= self._limit or is_crowded:
                self._suspect = current
                since, checks = now, 0
                signal.pthread_kill(main, SIGNAL)

    def _interrupt(self, _number: int, frame: FrameType | None) -> None:
        """Handle the signal, in the main thread: between two of its steps, so that the turn cannot change meanwhile."""
        suspect, task = self._suspect, self._turn.task
        if task is not None and suspect == (task, task.began):
            if self._deferrals < MAX_DEFERRALS and _changes_shared(frame):
                self._deferrals += 1
                return
            self._suspect, self._deferrals = None, 0
            raise TurnOverrun
        self._suspect, self._deferrals = None, 0


def _changes_shared(frame: FrameType | None) -> bool:
    """Is the session's turn in code that changes what sessions share?"""
    while frame is not None and frame.f_code is not STEP:
        if frame.f_code.co_filename.startswith(_SHARED):
            return True
        frame = frame.f_back
    return False


def location_of(failure: Failure) -> str:
    """File and line of the innermost frame but the signal's handler."""
    frames = [(path, line) for _function, path, line, *_rest in failure.frames if path != __file__]
    if not frames:
        return ""
    path, line = frames[-1]
    return f"{path.rpartition('/mailserver/')[2]}:{line}"
