"""A zygote that lives: the master begins it, renews it, and replaces one that has ended or stands still."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from mailserver.net.ipc.ipc_messages import ForkRequest
from mailserver.net.log.events import log
from mailserver.net.workers.supervisor import BLIND
from mailserver.net.workers.zygote_process import ZygoteProcess

EARLY = 10.0
"""Seconds after its start in which a zygote's death is a fault of more than the moment."""

Frames: TypeAlias = list[tuple[object, list[socket.socket]]]


class ZygoteWatch:
    """The zygote that forks now, and those before it, whose workers still live."""

    def __init__(
        self,
        reactor: Any,
        start: Callable[[Callable[[ZygoteProcess], None]], ZygoteProcess],
        frames: Callable[[], Frames],
        renewed: Callable[[], None],
        reap: Callable[[], None],
    ) -> None:
        """`start(ended)` starts one, whose end is told to `ended`, and raises OSError; `frames()` is what it begins with.

        `renewed()`: workers of before are to be replaced. `reap()` waits for processes that have ended.
        """
        self._reactor = reactor
        self._start_one = start
        self._frames = frames
        self._renewed = renewed
        self._reap = reap
        self._current: ZygoteProcess | None = None
        self._living: set[ZygoteProcess] = set()
        self._wait = 0.0
        self._looked = reactor.seconds()
        self._ending = False

    def begin(self) -> None:
        """The first one; waits until it has begun. Raises: SystemExit."""
        self._start().begin(self._frames())

    def renew(self) -> None:
        """A new zygote, with new keys for session tickets, and new workers in place of the old, whose sessions go on."""
        before = self._current
        try:
            self._start().begin_later(self._frames())
        except SystemExit as error:
            log.error("{reason}", event="zygote-start-failed", reason=str(error))
            if before is None:
                self._renew_later(early=True)
            return
        if before is not None:
            before.retire()
        self._renewed()

    def send(self, body: object, passed: Sequence[socket.socket] = ()) -> None:
        """A frame to the one that forks now; to none between two, as the next begins with what is right by then."""
        if self._current is not None:
            self._current.send(body, passed)

    def fork(self, fork: ForkRequest, line: socket.socket) -> None:
        """Have it fork a worker, whose end of the line is given away."""
        if self._current is None:
            # Between two zygotes: the end of this line has the worker begun again.
            line.close()
        else:
            self._current.fork(fork, line)

    def check(self) -> None:
        """Kill one that stands still; once a second."""
        now = self._reactor.seconds()
        looked, self._looked = self._looked, now
        zygote = self._current
        if zygote is None:
            return
        if now - looked > BLIND:
            zygote.heard = max(zygote.heard, now - BLIND)
        if now - zygote.heard > zygote.patience and not zygote.killed:
            log.error("the zygote (process {pid}) gives no sign of life: killed", event="zygote-killed", pid=zygote.pid)
            zygote.kill()

    def retire(self) -> None:
        """All fork no more, and none is replaced; each ends after the last worker of its own."""
        self._ending = True
        for zygote in self._living:
            zygote.retire()

    def kill(self) -> None:
        """All end, and have ended."""
        for zygote in tuple(self._living):
            zygote.kill()
        for zygote in tuple(self._living):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(zygote.pid, 0)

    def _start(self) -> ZygoteProcess:
        try:
            zygote = self._start_one(self._ended)
        except OSError as error:
            raise SystemExit(f"the process that forks workers cannot be started: {error}") from error
        self._living.add(zygote)
        self._current = zygote
        return zygote

    def _ended(self, zygote: ZygoteProcess) -> None:
        self._living.discard(zygote)
        self._reap()
        if zygote is not self._current:
            return
        self._current = None
        if self._ending:
            return
        log.error("the zygote (process {pid}) has ended; it is replaced", event="zygote-ended", pid=zygote.pid)
        self._renew_later(early=self._reactor.seconds() - zygote.started < EARLY)

    def _renew_later(self, *, early: bool) -> None:
        self._wait = min(30.0, max(1.0, 2 * self._wait)) if early else 0.0
        self._reactor.callLater(self._wait, self._renew_if_missing)

    def _renew_if_missing(self) -> None:
        if not self._ending and self._current is None:
            self.renew()
