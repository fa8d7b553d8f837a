"""The master's side of processes: a zygote that it started, and the workers which that forks."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.net.ipc.child_processes import is_child, kill_as
from mailserver.net.ipc.frames import (
    MAX_JSON,
    MAX_PASSED,
    MAX_WAITING,
    BadFrame,
    Decoder,
    FrameSocket,
    read_some,
    send_blocking,
    to_pickle,
)
from mailserver.net.ipc.ipc_messages import ForkRequest
from mailserver.net.ipc.message_schema import Json, one_line
from mailserver.net.ipc.received_fds import close_passed
from mailserver.net.log.events import log
from mailserver.net.workers.supervisor import SILENCE
from mailserver.net.workers.zygote_start import StartedZygote, start_zygote

START_TIME = 60.0
ENDING_TIME = 5.0
"""Seconds between the end of a line and that of the process."""


def from_json(frame: bytes) -> Json:
    """A body for the master; None, which means nothing, where it is no JSON."""
    try:
        found: Json = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    return found


@implementer(IReadDescriptor)
class ProcessEnd:
    """Calls `ended()` once when the process of a pidfd has ended, whoever its parent is. It owns the descriptor."""

    def __init__(self, reactor: Any, pidfd: int, ended: Callable[[], None], user: int | None = None) -> None:
        """`user`: whose process it must be to be killed, where another process has passed the pidfd."""
        self._reactor = reactor
        self._pidfd = pidfd
        self._user = user
        self._ended = ended
        reactor.addReader(self)

    def kill(self) -> None:
        """SIGKILL, to this process and no other that may have its number by now."""
        if self._pidfd >= 0:
            try:
                kill_as(self._pidfd, self._user)
            except ProcessLookupError:
                pass
            except PermissionError:
                log.error("a process that is no worker was to be killed as one, and was not", event="kill-refused")

    def fileno(self) -> int:
        """The descriptor, -1 once it has ended."""
        return self._pidfd

    def logPrefix(self) -> str:
        """A name for the log."""
        return "process"

    def doRead(self) -> None:
        """It has ended."""
        self._reactor.removeReader(self)
        os.close(self._pidfd)
        self._pidfd = -1
        self._ended()

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002
        """The reactor ends."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class WorkerProcess:
    """A worker's line, and its end; implements `supervisor.Process`."""

    def __init__(
        self,
        reactor: Any,
        line: socket.socket,
        heard: Callable[[Json], None],
        ended: Callable[[], None],
        user: int | None = None,
    ) -> None:
        """`user`: who serves, if not who this process is."""
        self._reactor = reactor
        self._user = user
        self._ended = ended
        self._end: ProcessEnd | None = None
        self._line = FrameSocket(
            reactor, line, self._take(heard), self._lost, longest=MAX_JSON, most_waiting=MAX_WAITING
        )

    def send(self, body: object, passed: Sequence[socket.socket] = ()) -> None:
        """A frame to it; sockets that do not fit beside it go ahead."""
        while len(passed) > MAX_PASSED:
            self._line.send(to_pickle("sockets"), passed[:MAX_PASSED])
            passed = passed[MAX_PASSED:]
        self._line.send(to_pickle(body), passed)

    def kill(self) -> None:
        """SIGKILL; before its number is known it loses its line, which ends it too."""
        if self._end is not None:
            self._end.kill()
        else:
            self._line.close()
            self._lost()

    def watch(self, pidfd: int) -> None:
        """It has been forked."""
        self._end = ProcessEnd(self._reactor, pidfd, self._is_over, self._user)

    @staticmethod
    def _take(heard: Callable[[Json], None]) -> Callable[[bytes, list[int]], None]:
        def take(frame: bytes, descriptors: list[int]) -> None:
            close_passed(descriptors)
            # A worker has nothing to pass.
            heard(None if descriptors else from_json(frame))

        return take

    def _lost(self) -> None:
        if self._end is not None:
            # A process that ends has its line closed first.
            self._reactor.callLater(ENDING_TIME, self._end.kill)
        else:
            self._is_over()

    def _is_over(self) -> None:
        self._line.finish()
        self._ended()


class ZygoteProcess:
    """A started zygote."""

    def __init__(
        self,
        reactor: Any,
        begun: StartedZygote | None = None,
        *,
        output: int | None,
        forked: Callable[[int, int, int], None],
        not_forked: Callable[[int], None],
        log_file: Callable[[int], None],
        ended: Callable[[ZygoteProcess], None],
    ) -> None:
        """Take over one that has `begun`, or start it, with `output` as its standard output and error. Raises: OSError.

        `forked(number, pid, pidfd)`, `not_forked(number)`, `log_file(descriptor)` are what it tells, `ended(self)` its end.
        """
        self.started = self.heard = reactor.seconds()
        self.patience = START_TIME
        """Seconds of silence after which it is taken for stuck."""
        self.killed = False
        self.retired = False
        self._reactor = reactor
        self._forked = forked
        self._not_forked = not_forked
        self._log_file = log_file
        begun = begun or start_zygote(output)
        self._socket, self.pid = begun.line, begun.pid
        # Ours was raised for all that listens, perhaps after its start.
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
        self._line: FrameSocket | None = None
        self._end = ProcessEnd(reactor, os.pidfd_open(self.pid), lambda: self._is_over(ended))

    def begin(self, frames: Sequence[tuple[object, Sequence[socket.socket]]]) -> None:
        """Send it what it begins with, and wait until it has begun. Raises: SystemExit with what it says."""
        self._socket.settimeout(START_TIME)
        decoder = Decoder(MAX_JSON)
        try:
            for body, passed in frames:
                send_blocking(self._socket, to_pickle(body), [each.fileno() for each in passed])
            while (frame := decoder.next_frame()) is None:
                data, received = read_some(self._socket)
                if not data:
                    raise SystemExit("the process that forks workers has ended")
                decoder.receive(data, received)
        except (OSError, BadFrame) as error:
            raise SystemExit(f"the process that forks workers does not begin: {error}") from error
        self._take(*frame)
        self._listen()

    def begin_later(self, frames: Sequence[tuple[object, Sequence[socket.socket]]]) -> None:
        """The same without waiting: what is sent later comes behind it."""
        self._listen()
        for body, passed in frames:
            self.send(body, passed)

    def send(self, body: object, passed: Sequence[socket.socket] = ()) -> None:
        """A frame to it."""
        if self._line is not None:
            self._line.send(to_pickle(body), passed)

    def fork(self, fork: ForkRequest, line: socket.socket) -> None:
        """Have it fork a worker, whose end of the line is given away."""
        assert self._line is not None
        self._line.send(to_pickle(fork), (line,), given=True)

    def retire(self) -> None:
        """It forks no more, and ends after the last worker of its own."""
        self.retired = True
        self.send("retire")

    def kill(self) -> None:
        """SIGKILL; its end is told."""
        self.killed = True
        self._end.kill()

    def close(self) -> None:
        """The master ends: it is to end too, after its workers."""
        if self._line is not None:
            self._line.close()

    def _listen(self) -> None:
        self._line = FrameSocket(self._reactor, self._socket, self._take, self._lost, longest=MAX_JSON)

    def _lost(self) -> None:
        self._reactor.callLater(ENDING_TIME, self._end.kill)

    def _is_over(self, ended: Callable[[ZygoteProcess], None]) -> None:
        self.close()
        ended(self)

    def _take(self, frame: bytes, descriptors: list[int]) -> None:
        self.heard = self._reactor.seconds()
        self.patience = SILENCE
        match from_json(frame), descriptors:
            case {"forked": int(number), "pid": int(pid)}, [pidfd] if is_child(pidfd, pid, {self.pid, os.getpid()}):
                self._forked(number, pid, pidfd)
            case {"not forked": int(number), "why": str(why)}, []:
                log.error("no worker can be forked: {reason}", event="fork-failed", reason=one_line(why))
                self._not_forked(number)
            case {"ended": int(pid), "status": int(status)}, []:
                if status:
                    log.warn(
                        "process {pid} ended with {status}", event="process-ended", pid=pid, status=_in_words(status)
                    )
            case (({"ready": True} | {"log file": True}), [number]):
                self._log_file(number)
            case {"failed": str(why)}, []:
                if self._line is None:
                    raise SystemExit(one_line(why))
                log.error("the zygote cannot start: {reason}", event="zygote-start-failed", reason=one_line(why))
            case _:
                close_passed(descriptors)


def _in_words(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        # Most of the real-time signals have no name.
        return f"signal {-status}"
