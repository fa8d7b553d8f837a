"""A worker: it serves every protocol on the sockets of its shard, in a process that the zygote forked.

It makes its services, listens, reports that it is ready, and sends heartbeats. A reload comes as two orders: "prepare",
which may fail, then "commit" or "drop". After "retire" it accepts no new connections and ends with its last session. After
"stop", or when the connection to the master ends, it says farewell to its clients and ends.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from mailserver.config.model import Config
from mailserver.net.connection.turn_limit import TurnLimit
from mailserver.net.ipc.master_messages import PrepareReload, WorkerInit
from mailserver.net.ipc.server_link import ServerLink
from mailserver.net.ipc.worker_link import CannotObey, WorkerLink
from mailserver.net.ipc.worker_messages import CommitResult, Heartbeat, PrepareResult, WorkerFailed, WorkerReady
from mailserver.net.listeners.binding import BoundSocket, places
from mailserver.net.log.events import log, log_exceptions
from mailserver.net.log.forwarding import forward_logging
from mailserver.net.serving.serving import ProcessServices, Serving
from mailserver.system.interpreter import tune_interpreter

HEARTBEAT = 2.0
"""Seconds between two signs of life."""


class WorkerServices(ProcessServices, Protocol):
    """Services of a process whose configuration and certificates come from the master."""

    def prepare(self, config: Config, tls: Any) -> Any:
        """Make the argument of `accept` and `commit` of a configuration and its certificates. In a thread. Raises: OSError."""

    def apply_certificates(self, change: Any) -> None:
        """Serve a `tls.serving.material.Change`. Raises: BadPair."""


MakeServices = Callable[[WorkerInit, Any, ServerLink], WorkerServices]


def run(init: WorkerInit, make_services: MakeServices) -> None:
    """Serve until the end. Called just after the fork, with no reactor installed. Raises: SystemExit."""
    from twisted.internet import epollreactor  # noqa: PLC0415 - a reactor must not be forked

    epollreactor.install()
    from twisted.internet import reactor  # noqa: PLC0415

    worker = Worker(init, make_services, reactor)
    running = cast("Any", reactor)
    running.callWhenRunning(worker.start)
    running.run()
    raise SystemExit(worker.status)


class Worker:
    """The objects of one worker, and its replies to the master's orders."""

    def __init__(self, init: WorkerInit, make_services: MakeServices, reactor: Any) -> None:
        self.status = 0
        self._init = init
        self._make_services = make_services
        self._reactor = reactor
        self._config = init.served.config
        self._link = WorkerLink(init, reactor, self._stop)
        self._serving: Serving | None = None
        self._services: WorkerServices | None = None
        self._preparing: object = None
        self._prepared: tuple[Config, Any, list[BoundSocket]] | None = None
        # Stays open: without a free descriptor a worker could not report its memory, and would seem dead.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._heartbeats = LoopingCall(log_exceptions, self._send_heartbeat)
        self._heartbeats.clock = reactor
        self._turn_limit = TurnLimit()
        self._stopping = False
        self._said_farewell = False
        self._ended = False

    def start(self) -> None:
        """Make the services and listen. A failure is reported to the master and ends the worker."""
        try:
            self._start()
        except SystemExit as error:
            self._fail(str(error))
        except Exception as error:
            log.failure("a worker cannot start", event="bug")
            self._fail(f"{type(error).__name__}: {error}")

    def _start(self) -> None:
        self._take_signals()
        services = self._services = self._make_services(self._init, self._reactor, self._link)
        forward_logging()
        services.start()
        tune_interpreter()
        services.set_status_query(self._link.query_status)
        serving = self._serving = Serving(services, self._reactor, shared=True, link=self._link)
        for bound in self._bound(self._config, self._init.listening):
            serving.listen(bound)
        for name, obey in (
            ("prepare", self._prepare),
            ("commit", self._commit),
            ("drop", self._drop),
            ("certificates", self._take_certificates),
            ("retire", self._retire),
            ("stop", self._obey_stop),
            ("reopen log", self._reopen_log),
        ):
            self._link.on_order(name, obey)
        self._turn_limit.start()
        self._heartbeats.start(HEARTBEAT)
        self._link.report(WorkerReady())

    def _fail(self, reason: str) -> None:
        self.status = 1
        self._link.report(WorkerFailed(reason))
        self._reactor.callLater(0, self._reactor.stop)

    def _take_signals(self) -> None:
        """Replace the reactor's handlers: the master ends all workers, SIGTERM one of them."""
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._reactor.callFromThread(self._stop))

    @staticmethod
    def _bound(config: Config, opened: dict[str, socket.socket]) -> list[BoundSocket]:
        wanted = [(place, listener) for listener in config.listeners for place in places(listener)]
        return [BoundSocket(listener, opened[place], place) for place, listener in wanted if place in opened]

    def _send_heartbeat(self) -> None:
        serving = self._serving
        sessions = serving.sessions if serving else 0
        event_counters = tuple(serving.event_counters.rows()) if serving else ()
        self._link.send_heartbeat(Heartbeat(sessions, memory(self._statm), event_counters))

    # --- Orders

    def _prepare(self, body: PrepareReload, descriptors: list[int]) -> Deferred[PrepareResult]:
        """Do the first half of a reload."""
        services = self._services
        assert services is not None
        served = body.served
        sockets = (socket.socket(fileno=number) for number in descriptors)
        opened = self._bound(served.config, dict(zip(body.new_places, sockets, strict=True)))

        self._drop_prepared()
        mine = self._preparing = object()

        def accept(prepared: Any) -> PrepareResult:
            # The master has given up where it has taken too long.
            faults = ["given up"] if self._preparing is not mine else list(services.accept(prepared))
            if faults:
                _close(opened)
            else:
                self._prepared = (served.config, prepared, opened)
            return PrepareResult(tuple(faults))

        def failed(failure: Failure) -> Failure:
            _close(opened)
            return failure

        pool = self._reactor.getThreadPool()
        preparing = deferToThreadPool(self._reactor, pool, services.prepare, served.config, served.material)
        return preparing.addCallback(accept).addErrback(failed)

    def _commit(self, _body: object, _descriptors: list[int]) -> Deferred[CommitResult]:
        """Do the second half of a reload. Raises: CannotObey."""
        prepared, self._prepared = self._prepared, None
        self._drop_prepared()
        if prepared is None or self._services is None or self._serving is None:
            raise CannotObey("it was not prepared in time")
        config, made, opened = prepared
        lines = self._services.commit(made)
        if self._stopping:
            # Nobody would answer clients that connect to them.
            _close(opened)
        else:
            lines += self._serving.change(config, opened)
        self._config = config
        return succeed(CommitResult(tuple(lines)))

    def _take_certificates(self, change: Any, _descriptors: list[int]) -> Deferred[CommitResult]:
        """Make contexts for the certificates that have changed, a fraction of a millisecond each."""
        assert self._services is not None
        self._services.apply_certificates(change)
        return succeed(CommitResult(()))

    def _drop(self, _body: object, _descriptors: list[int]) -> Deferred[None]:
        self._drop_prepared()
        return succeed(None)

    def _drop_prepared(self) -> None:
        """Drop the reload that is prepared or being prepared."""
        prepared, self._prepared, self._preparing = self._prepared, None, None
        if prepared is not None:
            _close(prepared[2])

    def _retire(self, _body: object, _descriptors: list[int]) -> Deferred[None]:
        assert self._serving is not None
        self._stopping = True
        # Clients in the queue of a socket are for the worker that has the same socket.
        self._serving.stop_listening()
        self._serving.when_empty().addCallback(lambda _none: self._end())
        return succeed(None)

    def _obey_stop(self, _body: object, _descriptors: list[int]) -> Deferred[None]:
        self._stop()
        return succeed(None)

    def _reopen_log(self, _body: object, _descriptors: list[int]) -> Deferred[None]:
        if self._config.server.log_file is not None:
            self._init.process_log.reopen(self._config.server.log_file)
        return succeed(None)

    # --- The end

    def _stop(self) -> None:
        """Say farewell to all clients, then end; a second call does nothing."""
        if self._said_farewell:
            return
        self._stopping = self._said_farewell = True
        if self._serving is None:
            self._end()
        else:
            self._serving.stop().addCallback(lambda _none: self._end())

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._turn_limit.stop()
        services = self._services
        ending = Deferred.fromCoroutine(services.stop()) if services is not None else succeed(None)

        def end(_result: object) -> None:
            # With the events since the last one.
            self._send_heartbeat()
            self._reactor.stop()

        ending.addErrback(lambda failure: log.failure("the stop of a worker has failed", failure, event="bug")).addBoth(
            end
        )


def _close(opened: list[BoundSocket]) -> None:
    for bound in opened:
        bound.socket.close()


def memory(statm: int) -> int:
    """Return the octets of memory of this process that no file backs; `statm` is open (proc(5))."""
    fields = os.pread(statm, 256, 0).split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
