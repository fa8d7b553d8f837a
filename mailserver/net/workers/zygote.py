"""The zygote: started by exec, it takes the sockets and the keys, becomes the service's user, and forks workers.

It never imports the reactor: a forked reactor shares its epoll with the others. The base TLS context lives here, so
that all workers seal session tickets with the same keys, those forked after a reload too. It waits for its children,
so that their process numbers stay theirs until the master has heard of the end. When the master goes, it takes back
what does not end by itself.
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
from typing import Any

from attrs import define, field
from twisted.logger import globalLogBeginner

from mailserver.net.ipc.frames import MAX_PICKLE, BadFrame, Decoder, from_pickle, read_some, send_blocking, to_json
from mailserver.net.ipc.ipc_messages import (
    ForkRequest,
    ListenerSockets,
    PokeSockets,
    ServedConfig,
    WorkerInit,
    ZygoteInit,
)
from mailserver.net.ipc.message_schema import Json
from mailserver.net.log.events import log
from mailserver.net.log.process_log import ProcessLog
from mailserver.net.log.writer import open_log_file
from mailserver.net.service.process_identity import allow_files
from mailserver.system.as_user import become

BEAT = 2.0
_PR_SET_PDEATHSIG = 1
LAST_WAIT = 30.0
"""Seconds that workers have to end by themselves when the master has gone."""


@define
class Zygote:
    """The zygote's state, and its loop."""

    line: socket.socket
    make_policy: Callable[[ServedConfig], Any]
    """A TLS policy of a setting's material."""
    update_policy: Callable[[Any, ServedConfig], None]
    """Have the policy serve other material, on the same base."""
    change_policy: Callable[[Any, Any], None]
    """Have it serve a `tls.serving.material.Change`."""
    work: Callable[[WorkerInit], None]
    """What a worker does, from just after the fork to its end."""
    decoder: Decoder = field(factory=lambda: Decoder(MAX_PICKLE))
    beginning: ZygoteInit | None = None
    setting: ServedConfig | None = None
    policy: Any = None
    lines: ProcessLog | None = None
    listening: dict[tuple[str, int], socket.socket] = field(factory=dict)
    poke_sockets: dict[int, tuple[socket.socket, socket.socket]] = field(factory=dict)
    children: dict[int, int] = field(factory=dict)
    """Its pidfd -> the child's number."""
    retired: bool = False

    def run(self) -> None:
        """Until the master ends it, or has gone, or it is retired and without children."""
        poll = select.poll()
        poll.register(self.line, select.POLLIN)
        watched: set[int] = set()
        open_line = True
        deadline = 0.0
        while open_line or self.children:
            for pidfd in self.children.keys() - watched:
                poll.register(pidfd, select.POLLIN)
                watched.add(pidfd)
            for number, _event in poll.poll(BEAT * 1000):
                if number == self.line.fileno():
                    if not self._read():
                        poll.unregister(self.line)
                        open_line = False
                        self._close_sockets()
                        self._signal_children(signal.SIGCONT)
                        deadline = time.monotonic() + LAST_WAIT
                else:
                    poll.unregister(number)
                    watched.discard(number)
                    self._reap(number, tell=open_line)
            if open_line and not self._tell({"beat": len(self.children)}):
                continue  # the end of the line is read next
            if self.retired and not self.children:
                return
            if not open_line and time.monotonic() > deadline:
                self._signal_children(signal.SIGKILL)

    def _signal_children(self, number: int) -> None:
        for pidfd in self.children:
            signal.pidfd_send_signal(pidfd, number)

    def _read(self) -> bool:
        try:
            data, passed = read_some(self.line)
        except (OSError, BadFrame):
            return False
        if not data:
            return False
        self.decoder.receive(data, passed)
        while (frame := self.decoder.next_frame()) is not None:
            body, descriptors = frame
            self._take(from_pickle(body), descriptors)
        return True

    def _take(self, body: object, descriptors: list[int]) -> None:
        match body:
            case ZygoteInit():
                self._begin(body)
            case ListenerSockets():
                for key, number in zip(body.places, descriptors, strict=True):
                    self.listening[key] = socket.socket(fileno=number)
            case PokeSockets():
                for worker, receive, send in zip(body.workers, descriptors[::2], descriptors[1::2], strict=True):
                    self.poke_sockets[worker] = (socket.socket(fileno=receive), socket.socket(fileno=send))
            case ServedConfig():
                self.update_policy(self.policy, body)
                self.setting = body
            case ("certificates", change):
                self.change_policy(self.policy, change)
            case ForkRequest():
                self._fork(body, socket.socket(fileno=descriptors[0]))
            case ("close", list(places)):
                for key in [key for key in self.listening if key[0] in places]:
                    self.listening.pop(key).close()
            case "retire":
                self.retired = True
                self._close_sockets()
            case "log file":
                self._open_log_file()

    def _begin(self, beginning: ZygoteInit) -> None:
        self.beginning = beginning
        self.setting = beginning.setting
        self.lines = ProcessLog(
            "zygote", relayed=beginning.relayed, log_format=beginning.setting.config.server.log_format
        )
        globalLogBeginner.beginLoggingTo([self.lines], discardBuffer=True, redirectStandardIO=False)
        server = beginning.setting.config.server
        allow_files(beginning.setting.config.limits.connections)
        become(server)
        go_on_when_parent_dies()
        try:
            self.policy = self.make_policy(beginning.setting)
            passed = self._log_file_opened()
        except SystemExit as error:
            self._tell({"failed": str(error)})
            raise
        # What is there now is shared with all workers, as long as nobody writes to it. Loading leaves next to no garbage,
        # and to look for it takes as long as a seventh of the loading.
        gc.freeze()
        gc.disable()
        self._tell({"ready": True}, passed)

    def _log_file_opened(self) -> list[int]:
        """The log file for the master, opened by its owner: who may be root must not follow a user's path."""
        assert self.setting is not None
        assert self.lines is not None
        path = self.setting.config.server.log_file
        if path is None:
            return []
        try:
            self.lines.open(path)
            return [open_log_file(path)]
        except OSError as error:
            raise SystemExit(f"cannot write the log file {path}: {error.strerror}") from error

    def _open_log_file(self) -> None:
        try:
            passed = self._log_file_opened()
        except SystemExit as error:
            log.warn("{reason}", event="log-not-reopened", reason=str(error))
        else:
            self._tell({"log file": True}, passed)

    def _fork(self, fork: ForkRequest, line: socket.socket) -> None:
        assert self.beginning is not None
        assert self.setting is not None
        assert self.lines is not None
        try:
            number = os.fork()
        except OSError as error:
            line.close()
            self._tell({"not forked": fork.number, "why": error.strerror})
            return
        if number == 0:
            status = 1
            try:
                init = self._become_worker(fork, line)
                self.work(init)
                status = 0
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                # The stack above is the zygote's.
                os._exit(status)
        line.close()
        pidfd = os.pidfd_open(number)
        self.children[pidfd] = number
        self._tell({"forked": fork.number, "pid": number}, [pidfd], keep=True)

    def _become_worker(self, fork: ForkRequest, line: socket.socket) -> WorkerInit:
        assert self.beginning is not None
        assert self.setting is not None
        assert self.lines is not None
        self.lines.name = str(fork.shard)
        gc.enable()
        go_on_when_parent_dies()
        self.line.close()
        self.decoder.close()
        for pidfd in self.children:
            os.close(pidfd)
        listening = {}
        for (place, shard), opened in self.listening.items():
            if shard in {fork.shard, -1}:
                listening[place] = opened
            else:
                opened.close()
        poke_send = {}
        for worker, (receive, send) in self.poke_sockets.items():
            if worker == fork.worker:
                poke_receive = receive
                send.close()
            else:
                receive.close()
                poke_send[worker] = send
        return WorkerInit(
            setting=self.setting,
            shards=self.beginning.shards,
            shard=fork.shard,
            worker=fork.worker,
            living=fork.living,
            penalty_key=self.beginning.penalty_key,
            tls=self.policy,
            lines=self.lines,
            line=line,
            listening=listening,
            mail_root=self.beginning.mail_root,
            known_key=self.beginning.known_key,
            poke_receive=poke_receive,
            poke_send=poke_send,
        )

    def _reap(self, pidfd: int, *, tell: bool) -> None:
        number = self.children.pop(pidfd)
        _number, status = os.waitpid(number, 0)
        os.close(pidfd)
        if tell:
            self._tell({"ended": number, "status": os.waitstatus_to_exitcode(status)})

    def _tell(self, body: Json, passed: list[int] | None = None, *, keep: bool = False) -> bool:
        try:
            send_blocking(self.line, to_json(body), passed or ())
        except OSError:
            return False
        finally:
            for number in () if keep else passed or ():
                os.close(number)
        return True

    def _close_sockets(self) -> None:
        """The kernel refuses who connects where no process is left to answer."""
        for opened in self.listening.values():
            opened.close()
        self.listening.clear()


def go_on_when_parent_dies() -> None:
    """A process that stands still (SIGSTOP) then sees the end of its line, as any other, instead of staying for ever.

    prctl(2): a change of user forgets it, so it comes after that; a fork does, too.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


def quiet_signals() -> None:
    """What a terminal or a manager sends to all processes is the master's to act on."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
