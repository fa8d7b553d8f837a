"""The service that twistd runs with workers, the master: it binds, reads keys, supervises and reloads; it serves no client.

The master keeps its user, often root, so it reads little: the configuration and the files named there, the control
socket, and messages of its workers (JSON, validated). All listening sockets stay open in the master, so that clients in
their queues survive the end of a worker. `reload.py` has the steps of a reload.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import io
import itertools
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from attrs import astuple
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool

from mailserver.auth.throttling.guess_counts import Guess
from mailserver.config.model import Config
from mailserver.net.admin.admin_queries import AdminQueries
from mailserver.net.admin.control_socket import Answer
from mailserver.net.connection.open_connections import GRACE
from mailserver.net.ipc.master_messages import (
    BansChanged,
    ForkRequest,
    KnownNetworksTable,
    OpenMailboxMemory,
    PokeSockets,
    ReopenLog,
    ServedConfig,
    ZygoteInit,
)
from mailserver.net.ipc.open_mailbox_table import make_memory
from mailserver.net.ipc.received_fds import close_descriptors
from mailserver.net.ipc.server_link import WorkerPool
from mailserver.net.ipc.worker_messages import GuessMade
from mailserver.net.listeners.binding import BoundSocket, places, ready_line
from mailserver.net.listeners.listener_shards import ListenerShards
from mailserver.net.log.events import log, log_exceptions
from mailserver.net.log.log_file import LogFile
from mailserver.net.log.relay import LogRelay
from mailserver.net.log.writer import may_wait
from mailserver.net.service.service import ServiceProcess
from mailserver.net.serving.serving import ReloadCheck
from mailserver.net.workers.reload import PREPARE_TIMEOUT, WorkerReload
from mailserver.net.workers.supervisor import Supervisor
from mailserver.net.workers.zygote_process import WorkerProcess, ZygoteProcess
from mailserver.net.workers.zygote_start import StartedZygote
from mailserver.net.workers.zygote_watch import Frames, ZygoteWatch
from mailserver.tls.changes.activation import Activation
from mailserver.tls.serving.context_builder import in_words
from mailserver.tls.serving.policy import Prepared, TlsPolicy
from mailserver.types import DirectoryId

RENEWAL = 7 * 24 * 3600.0
"""Seconds after which a new zygote makes new keys for TLS session tickets: old keys decrypt no later session."""
SPARE_NUMBERS = 4
"""Worker numbers beyond two for each shard."""
CHECK_EVERY = 1.0
END_TIME = GRACE + 2.5
"""Seconds that workers have to end: for their sessions, and for their store."""
_PR_SET_CHILD_SUBREAPER = 36


class MasterService(ServiceProcess):
    """The master of a zygote and its workers."""

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
        """`make_policy()` reads the keys; `check_reload(present configuration, policy)` is the first step of a reload, in a thread.

        `relayed`: this process's log is not its standard output. `zygote`: one that was started already.
        """
        super().__init__(config, reactor, daemon=daemon, log_file=log_file, shards=shards)
        self._make_policy = make_policy
        self._check_reload = check_reload
        self._relayed = relayed
        self._relay: LogRelay | None = None
        self._listener_shards = ListenerShards()
        self._policy: Any = None
        self._served = ServedConfig(config, None)
        self._penalty_key = secrets.token_bytes(32)
        self._mail_root: DirectoryId | None = None
        self._poke_sockets: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._open_mailboxes: io.FileIO | None = None
        """The memory that the workers share."""
        self._started_zygote = zygote
        self._forks: dict[int, WorkerProcess] = {}
        self._requests = itertools.count(1)
        self._places = 0
        self._is_reported_ready = False
        self._all_ended: Deferred[None] | None = None
        self.supervisor = Supervisor(
            reactor, self._fork, shards=shards, numbers=range(2 * shards + SPARE_NUMBERS), wall=time.time
        )
        self.supervisor.on_ready = self._worker_ready
        self.supervisor.on_failed = self._worker_failed
        self.supervisor.on_empty = self._worker_none
        self.supervisor.status = AdminQueries(self.supervisor).numbers
        self._zygotes = ZygoteWatch(reactor, self._start_zygote, self._first_frames, self.supervisor.replace_all)
        self._reload = WorkerReload(self.supervisor, self._zygotes, self._listener_shards)
        self._checks = LoopingCall(log_exceptions, self._check)
        self._renewals = LoopingCall(log_exceptions, self._zygotes.renew)
        for call in (self._checks, self._renewals):
            call.clock = reactor

    def worker_pool(self) -> WorkerPool:
        """Return the workers, for the administrator's queries."""
        return self.supervisor

    # --- Start

    def begin(self) -> None:
        """Read the keys, start the zygote, and have it fork workers."""
        self._listener_shards.add(self.bound)
        with contextlib.suppress(OSError):
            self._mail_root = DirectoryId.of(self.config.mail.root)
        self.load_acme_account()
        self.load_dkim_keys()
        self._policy, activation = self._make_policy()
        self.follow_certificates(self._policy, activation, self._serve_certificates)
        self._served = ServedConfig(self.config, self._policy.material)
        self.exposures.load()
        self.supervisor.on_exposed = self.exposures.take
        self.supervisor.on_clients_seen = self.ledger.take
        self.supervisor.on_credentials_used = self.ledger.take_uses
        self.known_networks.load()
        self.bans.load(self.config)
        self.bans.send = self._send_bans
        self.supervisor.on_networks_known = self._take_networks
        self.supervisor.on_guess = self._take_guess
        self.supervisor.bans = self.bans.__len__
        self.supervisor.exposures = self.exposures.__len__
        self.supervisor.renewals = self.renewals
        self.supervisor.memory_limit = self.config.limits.worker_memory
        # Children that a zygote or a worker leaves behind become this process's, which waits for them.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._open_mailboxes = make_memory(2 * self.shards + SPARE_NUMBERS)
        for number in range(2 * self.shards + SPARE_NUMBERS):
            receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            receive.setblocking(False)
            send.setblocking(False)
            self._poke_sockets[number] = (receive, send)
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
        self._places = len(self._listener_shards.places)
        self.bound.clear()
        self.take_end_signals()
        signal.signal(signal.SIGUSR1, lambda _number, _frame: self.reactor.callFromThread(self._reopen_log))
        self.supervisor.start()
        self._checks.start(CHECK_EVERY, now=False)
        self._renewals.start(RENEWAL, now=False)

    def _take_networks(self, rows: Sequence[Any]) -> None:
        self.bans.users_came(self.known_networks.take(rows))

    def _take_guess(self, guess: GuessMade) -> None:
        self.bans.take(Guess(*astuple(guess)))

    def _send_bans(self, changes: Sequence[tuple[int, float]]) -> None:
        message = BansChanged(tuple(changes))
        for record in self.supervisor.records.values():
            record.process.send(message)

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
        numbers = list(self._poke_sockets)
        # Without the places that a reload in progress has opened and may close again.
        served = {place for listener in self.config.listeners for place in places(listener)}
        frames: Frames = list(self._listener_shards.frames(served))
        for start in range(0, len(numbers), 100):
            part = numbers[start : start + 100]
            sockets = [each for number in part for each in self._poke_sockets[number]]
            frames.append((PokeSockets(tuple(part)), sockets))
        assert self._open_mailboxes is not None
        frames.append((OpenMailboxMemory(), [self._open_mailboxes]))
        init = ZygoteInit(
            self._served,
            self.shards,
            self._penalty_key,
            self._relayed,
            self._mail_root,
            self.known_networks.known.key,
        )
        return [*frames, (init, [])]

    # --- Workers

    def _fork(self, shard: int, worker: int, living: tuple[int, ...]) -> WorkerProcess:
        ours, theirs = socket.socketpair()
        request = next(self._requests)
        process = self._forks[request] = WorkerProcess(
            self.reactor,
            ours,
            lambda message: self.supervisor.handle_message(worker, message),
            lambda reason: self.supervisor.reject(worker, reason),
            lambda: self._worker_ended(request, worker),
            user=self._owner[0] if self._owner is not None else None,
        )
        self._zygotes.fork(ForkRequest(request, shard, worker, living), theirs)
        # Queued until the worker reads; broadcasts of other workers come behind it.
        process.send(KnownNetworksTable(self.known_networks.known.to_bytes()))
        process.send(BansChanged(tuple(self.bans.bans.changes())))
        return process

    def _forked(self, request: int, pid: int, pidfd: int) -> None:
        process = self._forks.get(request)
        if process is None:
            # The request was given up meanwhile: the worker finds its connection closed, and ends.
            os.close(pidfd)
            return
        process.watch(pidfd)
        self.supervisor.worker_forked(process, pid)

    def _not_forked(self, request: int) -> None:
        if request in self._forks:
            self._forks[request].kill()

    def _worker_ended(self, request: int, worker: int) -> None:
        process = self._forks.pop(request)
        self._zygotes.reap()
        self.supervisor.worker_ended(worker, process)

    def _worker_ready(self) -> None:
        records = self.supervisor.records.values()
        serving = {record.shard for record in records if record.state != "starting"}
        if not self._is_reported_ready and len(serving) == self.shards:
            self._is_reported_ready = True
            self.report_ready(self._places)

    def _worker_failed(self, reason: str) -> None:
        """Stop if a worker cannot start before all have served once: the configuration is at fault."""
        if not self._is_reported_ready and not self.ending:
            self.ending = True
            log.critical("cannot start: {reason}", event="start-failed", reason=reason)
            # twistd ends in its own way, and has no exit status for this.
            atexit.register(os._exit, 1)
            self.reactor.callWhenRunning(self.reactor.stop)

    def _worker_none(self) -> None:
        if self._all_ended is not None and not self._all_ended.called:
            self._all_ended.callback(None)

    def _check(self) -> None:
        self._zygotes.reap()
        self.supervisor.check()
        self._zygotes.check()

    # --- Log files

    def _take_log_file(self, number: int) -> None:
        # The process that opened it may run as another user.
        if self.log_file is None or may_wait(number):
            close_descriptors((number,))
        else:
            self.log_file.take(number)

    def _reopen_log(self) -> None:
        if self.log_file is not None:
            self._zygotes.send(ReopenLog())
            self.supervisor.order(tuple(self.supervisor.records.values()), "reopen log", None, PREPARE_TIMEOUT)

    # --- Reload

    async def take_up(self) -> Answer:
        """Check the configuration, have all workers prepare it, then commit it."""
        checked = await deferToThreadPool(
            self.reactor, self.reactor.getThreadPool(), self._check_reload, self.config, self._policy
        )
        lines = checked.lines
        if checked.prepared is None or not self.running:
            return False, [*lines, "nothing was taken up"]
        config, prepared = checked.prepared.config, checked.prepared.tls
        opened: list[BoundSocket] = []
        faults = self.bind_new(config, self._listener_shards.places, opened)
        served = ServedConfig(config, prepared.material)
        new_places = list(dict.fromkeys(bound.place for bound in opened))
        workers = tuple(self.supervisor.records.values())
        if not faults:
            self._listener_shards.add(opened)
            faults = await self._reload.prepare(workers, served, new_places)
        if faults or not self.running:
            self._reload.drop(workers)
            self._listener_shards.close(set(new_places))
            for bound in opened:
                bound.socket.close()
                bound.remove_file()
            return False, [*lines, *faults, "nothing was taken up"]
        lines += self.set_socket_rights(config)
        self._served, self.config = served, config
        self.supervisor.memory_limit = config.limits.worker_memory
        self.bans.configure(config)
        lines += await self._reload.commit(workers, served, new_places)
        lines += in_words(self._policy.commit(prepared))
        if prepared.bases:
            # The base contexts are the zygote's, the same for all its workers.
            self._zygotes.renew()
        return checked.whole, lines

    def _serve_certificates(self, prepared: Prepared) -> Deferred[list[str]]:
        change = self._policy.change(prepared)
        self._policy.commit(prepared)
        self._served = ServedConfig(self.config, self._policy.material)
        return self._reload.change_certificates(change)

    # --- End

    def end(self) -> Deferred[Any]:
        """Stop all workers, then the zygote."""
        for call in (self._checks, self._renewals):
            if call.running:
                call.stop()
        for bound in self._listener_shards.close(self._listener_shards.places):
            bound.remove_file()
        self._zygotes.retire()
        ended = self._all_ended = Deferred()
        kill = self.reactor.callLater(END_TIME, self.supervisor.kill_all)
        self.supervisor.stop()

        def end(_none: None) -> None:
            if kill.active():
                kill.cancel()
            self._zygotes.kill()
            self._zygotes.reap()
            if self._relay is not None:
                self._relay.close()

        return ended.addCallback(end)
