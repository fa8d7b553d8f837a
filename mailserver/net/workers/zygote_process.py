"""The master's side of its child processes: the zygote that it started, and the workers which that forks."""

from __future__ import annotations

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
    MAX_DESCRIPTORS,
    MAX_JSON,
    MAX_QUEUED,
    BadFrame,
    Decoder,
    FrameSocket,
    OpenFile,
    read_some,
    send_blocking,
    to_pickle,
)
from mailserver.net.ipc.master_messages import ForkRequest, RetireZygote, SocketsAhead
from mailserver.net.ipc.message_schema import BadMessage, one_line
from mailserver.net.ipc.received_fds import close_descriptors
from mailserver.net.ipc.worker_messages import (
    ChildEnded,
    ForkFailed,
    LogFileOpened,
    WorkerForked,
    WorkerMessage,
    ZygoteFailed,
    ZygoteReady,
    decode_worker_message,
    decode_zygote_message,
)
from mailserver.net.log.events import log
from mailserver.net.workers.supervisor import SILENCE
from mailserver.net.workers.zygote_start import StartedZygote, start_zygote

START_TIME = 60.0
"""Seconds that a zygote may take to start."""
ENDING_TIME = 5.0
"""Seconds between the end of a connection and SIGKILL for its process."""


@implementer(IReadDescriptor)
class ProcessEnd:
    """Calls `ended()` once when the process of a pidfd has ended, whoever its parent is. It owns the descriptor."""

    def __init__(self, reactor: Any, pidfd: int, ended: Callable[[], None], user: int | None = None) -> None:
        """`user`: the user whose process it must be to be killed, where another process has sent the pidfd."""
        self._reactor = reactor
        self._pidfd = pidfd
        self._user = user
        self._ended = ended
        reactor.addReader(self)

    def kill(self) -> None:
        """Send SIGKILL to this process, never to another that has its number by now."""
        if self._pidfd >= 0:
            try:
                kill_as(self._pidfd, self._user)
            except ProcessLookupError:
                pass
            except PermissionError:
                log.error("a process that is no worker was to be killed as one, and was not", event="kill-refused")

    def fileno(self) -> int:
        """Return the descriptor, -1 once the process has ended."""
        return self._pidfd

    def logPrefix(self) -> str:
        """Name in the log."""
        return "process"

    def doRead(self) -> None:
        """Handle the end of the process."""
        self._reactor.removeReader(self)
        os.close(self._pidfd)
        self._pidfd = -1
        self._ended()

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002
        """Handle the end of the reactor."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class WorkerProcess:
    """A worker's process and the connection to it; implements `worker_record.Process`."""

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        received: Callable[[WorkerMessage], None],
        rejected: Callable[[str], None],
        ended: Callable[[], None],
        *,
        user: int | None = None,
    ) -> None:
        """Call `received(message)`, or `rejected(reason)` for a malformed one. `user`: the worker's, if not this process's."""
        self._reactor = reactor
        self._user = user
        self._received = received
        self._rejected = rejected
        self._ended = ended
        self._end: ProcessEnd | None = None
        self._socket = FrameSocket(reactor, sock, self._receive, self._lost, longest=MAX_JSON, max_queued=MAX_QUEUED)

    def send(self, body: object, sockets: Sequence[socket.socket] = ()) -> None:
        """Send a message; sockets that do not fit beside it go ahead of it."""
        while len(sockets) > MAX_DESCRIPTORS:
            self._socket.send(to_pickle(SocketsAhead()), sockets[:MAX_DESCRIPTORS])
            sockets = sockets[MAX_DESCRIPTORS:]
        self._socket.send(to_pickle(body), sockets)

    def kill(self) -> None:
        """Send SIGKILL; before its pidfd is known, close the connection, which ends the worker too."""
        if self._end is not None:
            self._end.kill()
        else:
            self._socket.close()
            self._lost()

    def watch(self, pidfd: int) -> None:
        """Watch the process, which the zygote has forked."""
        self._end = ProcessEnd(self._reactor, pidfd, self._process_ended, self._user)

    def _receive(self, frame: bytes, descriptors: list[int]) -> None:
        close_descriptors(descriptors)
        if descriptors:
            self._rejected("there are descriptors beside it")
            return
        try:
            message = decode_worker_message(frame)
        except BadMessage as error:
            self._rejected(str(error))
        else:
            self._received(message)

    def _lost(self) -> None:
        if self._end is not None:
            # The kernel closes the connection of a process that ends before its pidfd says so.
            self._reactor.callLater(ENDING_TIME, self._end.kill)
        else:
            self._process_ended()

    def _process_ended(self) -> None:
        self._socket.finish()
        self._ended()


class ZygoteProcess:
    """A started zygote and the connection to it."""

    def __init__(
        self,
        reactor: Any,
        started: StartedZygote | None = None,
        *,
        output: int | None,
        forked: Callable[[int, int, int], None],
        not_forked: Callable[[int], None],
        log_file: Callable[[int], None],
        ended: Callable[[ZygoteProcess], None],
    ) -> None:
        """Take one that was `started`, or start one with `output` as its standard output and error. Raises: OSError.

        `forked(request, pid, pidfd)`, `not_forked(request)` and `log_file(descriptor)` are called for its messages,
        `ended(self)` at its end.
        """
        self.started = self.heard = reactor.seconds()
        self.patience = START_TIME
        """Seconds without a message until it is killed."""
        self.killed = False
        self.retired = False
        self._sent_malformed = False
        self._reactor = reactor
        self._forked = forked
        self._not_forked = not_forked
        self._log_file = log_file
        started = started or start_zygote(output)
        self._socket, self.pid = started.connection, started.pid
        # The master raised its own limit for its listening sockets, perhaps after it started the zygote.
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
        self._frames: FrameSocket | None = None
        self._end = ProcessEnd(reactor, os.pidfd_open(self.pid), lambda: self._process_ended(ended))

    def begin(self, frames: Sequence[tuple[object, Sequence[OpenFile]]]) -> None:
        """Send what it needs, and wait until it is ready. Raises: SystemExit with the zygote's reason."""
        self._socket.settimeout(START_TIME)
        decoder = Decoder(MAX_JSON)
        try:
            for body, sockets in frames:
                send_blocking(self._socket, to_pickle(body), [each.fileno() for each in sockets])
            while (frame := decoder.next_frame()) is None:
                data, received = read_some(self._socket)
                if not data:
                    raise SystemExit("the process that forks workers has ended")
                decoder.receive(data, received)
        except (OSError, BadFrame) as error:
            raise SystemExit(f"the process that forks workers does not begin: {error}") from error
        self._receive(*frame)
        self._listen()

    def begin_later(self, frames: Sequence[tuple[object, Sequence[OpenFile]]]) -> None:
        """Send what it needs without waiting: later messages are queued behind it."""
        self._listen()
        for body, sockets in frames:
            self.send(body, sockets)

    def send(self, body: object, sockets: Sequence[OpenFile] = ()) -> None:
        """Send a message."""
        if self._frames is not None:
            self._frames.send(to_pickle(body), sockets)

    def fork(self, request: ForkRequest, sock: socket.socket) -> None:
        """Have it fork a worker; `sock` is the worker's, and is closed here."""
        assert self._frames is not None
        self._frames.send(to_pickle(request), (sock,), close=True)

    def retire(self) -> None:
        """Order it to fork no more, and to end after its last worker."""
        self.retired = True
        self.send(RetireZygote())

    def kill(self) -> None:
        """Send SIGKILL; `ended` is called."""
        self.killed = True
        self._end.kill()

    def close(self) -> None:
        """Close the connection: the zygote ends after its workers."""
        if self._frames is not None:
            self._frames.close()

    def _listen(self) -> None:
        self._frames = FrameSocket(self._reactor, self._socket, self._receive, self._lost, longest=MAX_JSON)

    def _lost(self) -> None:
        self._reactor.callLater(ENDING_TIME, self._end.kill)

    def _process_ended(self, ended: Callable[[ZygoteProcess], None]) -> None:
        self.close()
        ended(self)

    def _receive(self, frame: bytes, descriptors: list[int]) -> None:
        self.heard = self._reactor.seconds()
        self.patience = SILENCE
        try:
            message = decode_zygote_message(frame)
        except BadMessage as error:
            close_descriptors(descriptors)
            if not self._sent_malformed:
                self._sent_malformed = True
                log.error(
                    "the zygote has sent an invalid message: {reason}",
                    event="zygote-message-invalid",
                    reason=str(error),
                )
            return
        match message, descriptors:
            case WorkerForked(request, pid), [pidfd] if is_child(pidfd, pid, {self.pid, os.getpid()}):
                self._forked(request, pid, pidfd)
            case ForkFailed(request, reason), []:
                log.error("no worker can be forked: {reason}", event="fork-failed", reason=one_line(reason))
                self._not_forked(request)
            case ChildEnded(pid, status), []:
                if status:
                    log.warn(
                        "process {pid} ended with {status}", event="process-ended", pid=pid, status=_in_words(status)
                    )
            case ((ZygoteReady() | LogFileOpened()), [number]):
                self._log_file(number)
            case ZygoteFailed(reason), []:
                if self._frames is None:
                    raise SystemExit(one_line(reason))
                log.error("the zygote cannot start: {reason}", event="zygote-start-failed", reason=one_line(reason))
            case _:
                close_descriptors(descriptors)


def _in_words(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        # Most of the real-time signals have no name.
        return f"signal {-status}"
