"""The service that twistd runs where there are workers: it binds, reads keys, supervises and reloads; it serves nobody.

It stays who it is, root at best, and so takes in little: its configuration and the files that names, the control
socket, and the frames of its workers (JSON, bounded). All listening sockets stay open here, so that what waits in
their queues outlives whichever worker was to take it.

A reload is checked here; then every worker prepares it, and any may refuse; then the zygote, for workers to come, and
all workers take it up.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import itertools
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool

from mailserver.config.model import Config
from mailserver.net.admin.admin_queries import AdminQueries
from mailserver.net.admin.control_socket import Answer
from mailserver.net.connection.open_connections import GRACE
from mailserver.net.ipc.ipc_messages import ForkRequest, PokeSockets, ServedConfig, ZygoteInit
from mailserver.net.ipc.received_fds import close_passed
from mailserver.net.ipc.server_link import WorkerPool
from mailserver.net.listeners.binding import Bound, places, ready_line
from mailserver.net.listeners.listener_shards import ListenerShards
from mailserver.net.log.events import log, log_exceptions
from mailserver.net.log.log_file import LogFile
from mailserver.net.log.relay import LogRelay
from mailserver.net.log.writer import may_wait
from mailserver.net.service.service import ServiceProcess
from mailserver.net.serving.serving import ReloadCheck
from mailserver.net.workers import reload_results
from mailserver.net.workers.supervisor import Record, Supervisor
from mailserver.net.workers.zygote_process import WorkerProcess, ZygoteProcess
from mailserver.net.workers.zygote_start import StartedZygote
from mailserver.net.workers.zygote_watch import Frames, ZygoteWatch
from mailserver.tls.changes.activation import Activation
from mailserver.tls.serving.context_builder import in_words
from mailserver.tls.serving.policy import Prepared, TlsPolicy
from mailserver.types import DirectoryId

RENEWAL = 7 * 24 * 3600.0
"""Seconds after which a new zygote makes new keys for TLS session tickets: who has the old ones reads no later session."""
SPARE_NUMBERS = 4
CHECK_EVERY = 1.0
PREPARE_TIME = 30.0
END_TIME = GRACE + 2.5
"""Seconds that workers have to end: their grace twice, and their store's."""
_PR_SET_CHILD_SUBREAPER = 36


class MasterService(ServiceProcess):
    """Master of a zygote and its workers."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        *,
        shards: int,
        make_policy: Callable[[], tuple[TlsPolicy, Activation]],
        check_reload: Callable[[Config, Any], ReloadCheck[Any]],
        relayed: bool,
        daemon: bool = False,
        log_file: LogFile | None = None,
        zygote: StartedZygote | None = None,
    ) -> None:
        """`make_policy()` reads the keys; `check_reload(configuration, policy)` of now the first half of a reload, in a thread.

        `relayed`: this process's log is not its standard output. `zygote`: one that has been started already.
        """
        super().__init__(config, reactor, daemon=daemon, log_file=log_file, shards=shards)
        self._make_policy = make_policy
        self._check_reload = check_reload
        self._relayed = relayed
        self._relay: LogRelay | None = None
        self._sockets = ListenerShards()
        self._policy: Any = None
        self._setting = ServedConfig(config, None)
        self._penalty_key = secrets.token_bytes(32)
        self._mail_root: DirectoryId | None = None
        self._poke_sockets: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._started_zygote = zygote
        self._forks: dict[int, WorkerProcess] = {}
        self._requests = itertools.count(1)
        self._places = 0
        self._ready_told = False
        self._all_ended: Deferred[None] | None = None
        self.supervisor = Supervisor(
            reactor, self._fork, shards=shards, numbers=range(2 * shards + SPARE_NUMBERS), wall=time.time
        )
        self.supervisor.on_ready = self._worker_ready
        self.supervisor.on_failed = self._worker_failed
        self.supervisor.on_empty = self._worker_none
        self.supervisor.status = AdminQueries(self.supervisor).numbers
        self._zygotes = ZygoteWatch(
            reactor, self._start_zygote, self._first_frames, self.supervisor.replace_all, self._reap
        )
        self._checks = LoopingCall(log_exceptions, self._check)
        self._renewals = LoopingCall(log_exceptions, self._zygotes.renew)
        for call in (self._checks, self._renewals):
            call.clock = reactor

    def worker_pool(self) -> WorkerPool:
        """All workers."""
        return self.supervisor

    # --- Start

    def begin(self) -> None:
        """Read the keys, start the zygote, have it fork."""
        self._sockets.add(self.bound)
        with contextlib.suppress(OSError):
            self._mail_root = DirectoryId.of(self.config.mail.root)
        self.find_account()
        self._policy, activation = self._make_policy()
        self.follow_certificates(self._policy, activation, self._serve_certificates)
        self._setting = ServedConfig(self.config, self._policy.material)
        self.exposures.load()
        self.supervisor.on_exposed = self.exposures.take
        self.supervisor.on_seen = self.ledger.take
        self.known.load()
        self.supervisor.on_known = self.known.take
        self.supervisor.exposures = self.exposures.__len__
        self.supervisor.renewals = self.renewals
        self.supervisor.memory_limit = self.config.limits.worker_memory
        # What a zygote or a worker leaves behind becomes our child, to be waited for.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for worker in range(2 * self.shards + SPARE_NUMBERS):
            receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            receive.setblocking(False)
            send.setblocking(False)
            self._poke_sockets[worker] = (receive, send)
        if self._relayed:
            self._relay = LogRelay(self.reactor)
        self._zygotes.begin()
        for bound in {bound.place: bound for bound in self.bound}.values():
            log.info(
                "{notice}",
                event="listening",
                notice=ready_line(bound.listener, bound.place),
                protocol=bound.listener.protocol,
                place=bound.place,
            )
        self._places = len(self._sockets.places)
        self.bound.clear()
        self.take_end_signals()
        signal.signal(signal.SIGUSR1, lambda _number, _frame: self.reactor.callFromThread(self._reopen_log))
        self.supervisor.start()
        self._checks.start(CHECK_EVERY, now=False)
        self._renewals.start(RENEWAL, now=False)

    def _start_zygote(self, ended: Callable[[ZygoteProcess], None]) -> ZygoteProcess:
        started, self._started_zygote = self._started_zygote, None
        return ZygoteProcess(
            self.reactor,
            started,
            output=self._relay.output if self._relay is not None else None,
            forked=self._forked,
            not_forked=self._not_forked,
            log_file=self._take_log_file,
            ended=ended,
        )

    def _first_frames(self) -> Frames:
        workers = list(self._poke_sockets)
        # Not those that a reload has opened and may give up again.
        served = {place for listener in self.config.listeners for place in places(listener)}
        frames: Frames = list(self._sockets.frames(served))
        for start in range(0, len(workers), 100):
            part = workers[start : start + 100]
            sockets = [each for worker in part for each in self._poke_sockets[worker]]
            frames.append((PokeSockets(tuple(part)), sockets))
        beginning = ZygoteInit(
            self._setting,
            self.shards,
            self._penalty_key,
            self._relayed,
            self._mail_root,
            self.known.known.key,
        )
        return [*frames, (beginning, [])]

    # --- Workers

    def _fork(self, shard: int, worker: int, living: tuple[int, ...]) -> WorkerProcess:
        ours, theirs = socket.socketpair()
        number = next(self._requests)
        process = self._forks[number] = WorkerProcess(
            self.reactor,
            ours,
            lambda body: self.supervisor.heard(worker, body),
            lambda: self._worker_ended(number, worker),
            self._owner[0] if self._owner is not None else None,
        )
        self._zygotes.fork(ForkRequest(number, shard, worker, living), theirs)
        # It waits on the line; what others tell meanwhile comes behind it.
        process.send(("known", self.known.known.to_bytes()))
        return process

    def _forked(self, number: int, pid: int, pidfd: int) -> None:
        process = self._forks.get(number)
        if process is None:
            # Given up meanwhile: it finds its line closed, and ends.
            os.close(pidfd)
            return
        process.watch(pidfd)
        self.supervisor.forked(process, pid)

    def _not_forked(self, number: int) -> None:
        if number in self._forks:
            self._forks[number].kill()

    def _worker_ended(self, number: int, worker: int) -> None:
        process = self._forks.pop(number)
        self._reap()
        self.supervisor.ended(worker, process)

    def _worker_ready(self) -> None:
        records = self.supervisor.records.values()
        serving = {record.shard for record in records if record.state != "starting"}
        if not self._ready_told and len(serving) == self.shards:
            self._ready_told = True
            self.is_ready(self._places)

    def _worker_failed(self, why: str) -> None:
        """Before all have begun once it is the configuration's fault, and the end."""
        if not self._ready_told and not self.ending:
            self.ending = True
            log.critical("cannot start: {reason}", event="start-failed", reason=why)
            # twistd has its own way to the end, and no status for this.
            atexit.register(os._exit, 1)
            self.reactor.callWhenRunning(self.reactor.stop)

    def _worker_none(self) -> None:
        if self._all_ended is not None and not self._all_ended.called:
            self._all_ended.callback(None)

    def _reap(self) -> None:
        """Wait for whoever has ended, children that others left behind too."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _check(self) -> None:
        self._reap()
        self.supervisor.check()
        self._zygotes.check()

    # --- Log files

    def _take_log_file(self, number: int) -> None:
        # Whoever opened it is not who this process is.
        if self.log_file is None or may_wait(number):
            close_passed((number,))
        else:
            self.log_file.take(number)

    def _reopen_log(self) -> None:
        if self.log_file is not None:
            self._zygotes.send("log file")
            self.supervisor.order(tuple(self.supervisor.records.values()), "log file", None, PREPARE_TIME)

    # --- Reload

    async def take_up(self) -> Answer:
        """Judge, have all workers prepare, then all take it up."""
        checked = await deferToThreadPool(
            self.reactor, self.reactor.getThreadPool(), self._check_reload, self.config, self._policy
        )
        lines = checked.lines
        if checked.prepared is None or not self.running:
            return False, [*lines, "nothing was taken up"]
        config, prepared = checked.prepared.config, checked.prepared.tls
        opened: list[Bound] = []
        faults = self.bind_new(config, self._sockets.places, opened)
        setting = ServedConfig(config, prepared.material)
        new = list(dict.fromkeys(bound.place for bound in opened))
        asked = tuple(self.supervisor.records.values())
        if not faults:
            self._sockets.add(opened)
            faults = await self._prepare(asked, setting, new)
        if faults or not self.running:
            self.supervisor.order(asked, "drop", None, PREPARE_TIME)
            self._sockets.close(set(new))
            for bound in opened:
                bound.socket.close()
                bound.remove_file()
            return False, [*lines, *faults, "nothing was taken up"]
        lines += self.settle_sockets(config)
        lines += await self._commit(asked, setting, new)
        lines += in_words(self._policy.commit(prepared))
        if prepared.bases:
            # The base contexts are the zygote's, the same for all its workers.
            self._zygotes.renew()
        return checked.whole, lines

    def _serve_certificates(self, prepared: Prepared) -> Deferred[list[str]]:
        """Have all workers, and the zygote for later ones, serve some other certificates."""
        change = self._policy.change(prepared)
        self._policy.commit(prepared)
        self._setting = ServedConfig(self.config, self._policy.material)
        self._zygotes.send(("certificates", change))
        # None can be begun between these: whoever comes later is forked from a zygote that has the change.
        told = tuple(self.supervisor.records.values())

        def taken(said: dict[int, Any]) -> list[str]:
            lines, behind = reload_results.outcome(said)
            for record in self.supervisor.living(told):
                if record.worker in behind:
                    self.supervisor.replace(record)
            return lines

        return self.supervisor.order(told, "certificates", change, PREPARE_TIME).addCallback(taken)

    async def _prepare(self, asked: tuple[Record, ...], setting: ServedConfig, new: list[str]) -> list[str]:
        """All workers' faults."""
        return reload_results.faults(
            await self.supervisor.order(
                asked,
                "prepare",
                (setting, tuple(new)),
                PREPARE_TIME,
                lambda record: self._sockets.of_shard(record.shard, new),
            )
        )

    async def _commit(self, asked: tuple[Record, ...], setting: ServedConfig, new: list[str]) -> list[str]:
        """What was done, in the words of the workers, each once."""
        config = setting.config
        self._setting, self.config = setting, config
        self.supervisor.memory_limit = config.limits.worker_memory
        gone = self._sockets.places - {place for listener in config.listeners for place in places(listener)}
        for body, passed in self._sockets.frames(set(new)):
            self._zygotes.send(body, passed)
        self._zygotes.send(("close", list(gone)))
        self._zygotes.send(setting)
        # Workers that were begun meanwhile have the setting of before.
        late = tuple(record for record in self.supervisor.records.values() if record not in asked)
        if late:
            await self._prepare(late, setting, new)
        told = self.supervisor.living((*asked, *late))
        lines, behind = reload_results.outcome(await self.supervisor.order(told, "commit", None, PREPARE_TIME))
        for bound in self._sockets.close(gone):
            bound.remove_file()
        for record in self.supervisor.living(told):
            if record.worker in behind:
                self.supervisor.replace(record)
        return lines

    # --- End

    def end(self) -> Deferred[Any]:
        """All workers say farewell; then the zygote ends, and nobody is left."""
        for call in (self._checks, self._renewals):
            if call.running:
                call.stop()
        for bound in self._sockets.close(self._sockets.places):
            bound.remove_file()
        self._zygotes.retire()
        ended = self._all_ended = Deferred()
        kill = self.reactor.callLater(END_TIME, self.supervisor.kill_all)
        self.supervisor.stop()

        def end(_none: None) -> None:
            if kill.active():
                kill.cancel()
            self._zygotes.kill()
            self._reap()
            if self._relay is not None:
                self._relay.close()

        return ended.addCallback(end)
