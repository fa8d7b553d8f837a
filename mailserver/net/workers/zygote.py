"""The zygote: started by exec, it receives the sockets and the keys, becomes the configured user, and forks workers.

It never imports the reactor: a forked reactor would share its epoll descriptor. The base TLS context is made here, so that
all workers seal session tickets with the same keys, also those forked after a reload. The zygote waits for its children,
so that a process number stays theirs until the master knows of the end. When the master has gone, the zygote kills the
workers that do not end by themselves.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from mmap import mmap
from typing import Any

from attrs import define, field
from twisted.logger import globalLogBeginner

from mailserver.net.ipc.frames import MAX_PICKLE, BadFrame, Decoder, from_pickle, read_some, send_blocking
from mailserver.net.ipc.master_messages import (
    CertificatesChanged,
    CloseListeners,
    ForkRequest,
    ListenerSockets,
    OpenMailboxMemory,
    PokeSockets,
    ReopenLog,
    RetireZygote,
    ServedConfig,
    WorkerInit,
    ZygoteInit,
)
from mailserver.net.ipc.open_mailbox_table import map_memory
from mailserver.net.ipc.worker_messages import (
    ChildEnded,
    ForkFailed,
    LogFileOpened,
    WorkerForked,
    ZygoteFailed,
    ZygoteHeartbeat,
    ZygoteMessage,
    ZygoteReady,
    encode_zygote_message,
)
from mailserver.net.log.events import log
from mailserver.net.log.process_log import ProcessLog
from mailserver.net.log.writer import open_log_file
from mailserver.net.service.process_identity import allow_files
from mailserver.system.as_user import become

HEARTBEAT = 2.0
"""Seconds between two signs of life."""
LAST_WAIT = 30.0
"""Seconds that workers have to end by themselves when the master has gone."""
_PR_SET_PDEATHSIG = 1


@define
class Zygote:
    """The zygote's state and its loop."""

    master: socket.socket
    make_policy: Callable[[ServedConfig], Any]
    """Make the TLS policy of a configuration."""
    update_policy: Callable[[Any, ServedConfig], None]
    """Have the policy serve another configuration, on the same base context."""
    change_policy: Callable[[Any, Any], None]
    """Have the policy serve a `tls.serving.material.Change`."""
    work: Callable[[WorkerInit], None]
    """Run a worker, from just after the fork to its end."""
    decoder: Decoder = field(factory=lambda: Decoder(MAX_PICKLE))
    init: ZygoteInit | None = None
    served: ServedConfig | None = None
    policy: Any = None
    process_log: ProcessLog | None = None
    listening: dict[tuple[str, int], socket.socket] = field(factory=dict)
    poke_sockets: dict[int, tuple[socket.socket, socket.socket]] = field(factory=dict)
    open_mailboxes: mmap | None = None
    children: dict[int, int] = field(factory=dict)
    """Pidfd -> process number."""
    retired: bool = False

    def run(self) -> None:
        """Loop until the master kills it or has gone, or until it is retired and has no children."""
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        watched: set[int] = set()
        connected = True
        deadline = 0.0
        while connected or self.children:
            for pidfd in self.children.keys() - watched:
                poll.register(pidfd, select.POLLIN)
                watched.add(pidfd)
            for number, _event in poll.poll(HEARTBEAT * 1000):
                if number == self.master.fileno():
                    if not self._read():
                        poll.unregister(self.master)
                        connected = False
                        self._close_sockets()
                        self._signal_children(signal.SIGCONT)
                        deadline = time.monotonic() + LAST_WAIT
                else:
                    poll.unregister(number)
                    watched.discard(number)
                    self._reap(number, report=connected)
            if connected and not self._send(ZygoteHeartbeat(len(self.children))):
                continue  # the next read finds the end of the connection
            if self.retired and not self.children:
                return
            if not connected and time.monotonic() > deadline:
                self._signal_children(signal.SIGKILL)

    def _signal_children(self, number: int) -> None:
        for pidfd in self.children:
            signal.pidfd_send_signal(pidfd, number)

    def _read(self) -> bool:
        try:
            data, descriptors = read_some(self.master)
        except (OSError, BadFrame):
            return False
        if not data:
            return False
        self.decoder.receive(data, descriptors)
        while (frame := self.decoder.next_frame()) is not None:
            body, of_frame = frame
            self._handle(from_pickle(body), of_frame)
        return True

    def _handle(self, message: object, descriptors: list[int]) -> None:
        match message:
            case ZygoteInit():
                self._begin(message)
            case ListenerSockets(places):
                for place, number in zip(places, descriptors, strict=True):
                    self.listening[place] = socket.socket(fileno=number)
            case PokeSockets(workers):
                for worker, receive, send in zip(workers, descriptors[::2], descriptors[1::2], strict=True):
                    self.poke_sockets[worker] = (socket.socket(fileno=receive), socket.socket(fileno=send))
            case OpenMailboxMemory():
                self.open_mailboxes = map_memory(descriptors[0])
            case ServedConfig():
                self.update_policy(self.policy, message)
                self.served = message
            case CertificatesChanged(change):
                self.change_policy(self.policy, change)
            case ForkRequest():
                self._fork(message, socket.socket(fileno=descriptors[0]))
            case CloseListeners(places):
                for key in [key for key in self.listening if key[0] in places]:
                    self.listening.pop(key).close()
            case RetireZygote():
                self.retired = True
                self._close_sockets()
            case ReopenLog():
                self._reopen_log()

    def _begin(self, init: ZygoteInit) -> None:
        self.init = init
        self.served = init.served
        config = init.served.config
        self.process_log = ProcessLog("zygote", relayed=init.relayed, log_format=config.server.log_format)
        globalLogBeginner.beginLoggingTo([self.process_log], discardBuffer=True, redirectStandardIO=False)
        allow_files(config.limits.connections)
        become(config.server)
        continue_when_parent_dies()
        try:
            self.policy = self.make_policy(init.served)
            log_files = self._open_log_file()
        except SystemExit as error:
            self._send(ZygoteFailed(str(error)))
            raise
        # All workers share the memory of present objects as long as nobody writes to it. Loading leaves next to no garbage,
        # and a collection takes a seventh of the time that loading takes.
        gc.freeze()
        gc.disable()
        self._send(ZygoteReady(), log_files)

    def _open_log_file(self) -> list[int]:
        """Open the log file, and once more for the master, which may be root and must not follow a user's path."""
        assert self.served is not None
        assert self.process_log is not None
        path = self.served.config.server.log_file
        if path is None:
            return []
        try:
            self.process_log.open(path)
            return [open_log_file(path)]
        except OSError as error:
            raise SystemExit(f"cannot write the log file {path}: {error.strerror}") from error

    def _reopen_log(self) -> None:
        try:
            log_files = self._open_log_file()
        except SystemExit as error:
            log.warn("{reason}", event="log-not-reopened", reason=str(error))
        else:
            self._send(LogFileOpened(), log_files)

    def _fork(self, request: ForkRequest, to_master: socket.socket) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            to_master.close()
            self._send(ForkFailed(request.request, error.strerror or ""))
            return
        if pid == 0:
            status = 1
            try:
                self.work(self._become_worker(request, to_master))
                status = 0
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                # The stack above is the zygote's.
                os._exit(status)
        to_master.close()
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = pid
        self._send(WorkerForked(request.request, pid), [pidfd], keep=True)

    def _become_worker(self, request: ForkRequest, to_master: socket.socket) -> WorkerInit:
        assert self.init is not None
        assert self.served is not None
        assert self.process_log is not None
        assert self.open_mailboxes is not None
        self.process_log.name = str(request.shard)
        gc.enable()
        continue_when_parent_dies()
        self.master.close()
        self.decoder.close()
        for pidfd in self.children:
            os.close(pidfd)
        listening = {}
        for (place, shard), opened in self.listening.items():
            if shard in {request.shard, -1}:
                listening[place] = opened
            else:
                opened.close()
        poke_send = {}
        for worker, (receive, send) in self.poke_sockets.items():
            if worker == request.worker:
                poke_receive = receive
                send.close()
            else:
                receive.close()
                poke_send[worker] = send
        return WorkerInit(
            served=self.served,
            shards=self.init.shards,
            shard=request.shard,
            worker=request.worker,
            living=request.living,
            penalty_key=self.init.penalty_key,
            tls=self.policy,
            process_log=self.process_log,
            master=to_master,
            listening=listening,
            mail_root=self.init.mail_root,
            known_key=self.init.known_key,
            poke_receive=poke_receive,
            poke_send=poke_send,
            open_mailboxes=self.open_mailboxes,
        )

    def _reap(self, pidfd: int, *, report: bool) -> None:
        pid = self.children.pop(pidfd)
        _pid, status = os.waitpid(pid, 0)
        os.close(pidfd)
        if report:
            self._send(ChildEnded(pid, os.waitstatus_to_exitcode(status)))

    def _send(self, message: ZygoteMessage, descriptors: list[int] | None = None, *, keep: bool = False) -> bool:
        """Send a message to the master, and close the descriptors beside it unless they are to be kept."""
        try:
            send_blocking(self.master, encode_zygote_message(message), descriptors or ())
        except OSError:
            return False
        finally:
            for number in () if keep else descriptors or ():
                os.close(number)
        return True

    def _close_sockets(self) -> None:
        """Close the listening sockets: the kernel refuses connections once no process is left to accept them."""
        for opened in self.listening.values():
            opened.close()
        self.listening.clear()


def continue_when_parent_dies() -> None:
    """Have the kernel send SIGCONT when the parent ends, so that a stopped process (SIGSTOP) sees that and ends too.

    A change of user and a fork both forget it (prctl(2)), so this is called after them.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


def ignore_signals() -> None:
    """Ignore signals that a terminal or a service manager sends to all processes: the master acts on them.

    SIGTTOU: of a background process group that writes its log to the terminal.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
