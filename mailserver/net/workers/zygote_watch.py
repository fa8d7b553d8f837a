"""Keep a zygote running: start it, renew it, and replace one that has ended or hangs."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from mailserver.net.ipc.frames import OpenFile
from mailserver.net.ipc.master_messages import ForkRequest
from mailserver.net.log.events import log
from mailserver.net.workers.supervisor import STALLED
from mailserver.net.workers.zygote_process import ZygoteProcess

EARLY = 10.0
"""A zygote that dies within so many seconds of its start is not replaced at once."""

Frames: TypeAlias = list[tuple[object, Sequence[OpenFile]]]


class ZygoteWatch:
    """The present zygote, and earlier ones whose workers still live."""

    def __init__(
        self,
        reactor: Any,
        start: Callable[[Callable[[ZygoteProcess], None]], ZygoteProcess],
        frames: Callable[[], Frames],
        renewed: Callable[[], None],
    ) -> None:
        """`start(ended)` starts a zygote, calls `ended(zygote)` at its end and raises OSError; `frames()` are sent to it first.

        `renewed()` replaces the workers of an earlier zygote.
        """
        self._reactor = reactor
        self._start_one = start
        self._frames = frames
        self._renewed = renewed
        self._current: ZygoteProcess | None = None
        self._living: set[ZygoteProcess] = set()
        self._groups: set[int] = set()
        """Process groups of the zygotes, which their workers and these workers' children belong to."""
        self._wait = 0.0
        self._checked = reactor.seconds()
        self._ending = False

    def begin(self) -> None:
        """Start the first zygote, and wait until it is ready. Raises: SystemExit."""
        self._start().begin(self._frames())

    def renew(self) -> None:
        """Start a zygote with new keys for session tickets, and replace the workers; their sessions go on."""
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
        """Send a message to the present zygote. Between two there is none, and the next one gets the state of its start."""
        if self._current is not None:
            self._current.send(body, passed)

    def fork(self, request: ForkRequest, sock: socket.socket) -> None:
        """Have it fork a worker; `sock` is the worker's, and is closed here."""
        if self._current is None:
            # Between two zygotes: the end of this connection starts the worker again.
            sock.close()
        else:
            self._current.fork(request, sock)

    def check(self) -> None:
        """Kill a zygote that hangs; called once a second."""
        now = self._reactor.seconds()
        checked, self._checked = self._checked, now
        zygote = self._current
        if zygote is None:
            return
        if now - checked > STALLED:
            zygote.heard = max(zygote.heard, now - STALLED)
        if now - zygote.heard > zygote.patience and not zygote.killed:
            log.error("the zygote (process {pid}) gives no sign of life: killed", event="zygote-killed", pid=zygote.pid)
            zygote.kill()

    def reap(self) -> None:
        """Wait for processes that have ended: zygotes, and descendants that were left to this process.

        Other child processes of this process, such as those of another service in the same twistd, are not touched.
        """
        _reap_orphans()
        for group in tuple(self._groups):
            try:
                while os.waitpid(-group, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                if all(zygote.pid != group for zygote in self._living):
                    self._groups.discard(group)

    def retire(self) -> None:
        """Have all zygotes fork no more, and replace none; each ends after its last worker."""
        self._ending = True
        for zygote in self._living:
            zygote.retire()

    def kill(self) -> None:
        """Kill all zygotes, and wait for their ends."""
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
        self._groups.add(zygote.pid)
        self._current = zygote
        return zygote

    def _ended(self, zygote: ZygoteProcess) -> None:
        self._living.discard(zygote)
        self.reap()
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


def _reap_orphans() -> None:
    """Wait for processes whose parent, a program of another session, has ended: a check of back ends, or a key's password command.

    A process that this one has started itself is in the same session, or leads its own.
    """
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if os.getsid(ended.si_pid) in {ended.si_pid, os.getsid(0)}:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)
