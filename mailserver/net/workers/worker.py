"""A worker: serves every protocol on the sockets of its shard, in a process forked by the zygote.

Its life: it makes its parts, listens, says that it is ready, and beats. A reload comes in two orders, as its halves:
"prepare", which may refuse, then "commit" or "drop". "retire" has it take no new connections and end with its last
session; "stop", or the end of the line to the master, has it say farewell and end.
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
from mailserver.net.ipc.ipc_messages import ServedConfig, WorkerInit
from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.server_link import ServerLink
from mailserver.net.ipc.worker_link import WorkerLink
from mailserver.net.listeners.binding import Bound, places
from mailserver.net.log.events import log, log_exceptions
from mailserver.net.log.forwarding import forward_logging
from mailserver.net.serving.serving import ProcessServices, Serving
from mailserver.system.interpreter import tune_interpreter

BEAT = 2.0
"""Seconds between two signs of life."""


class WorkerServices(ProcessServices, Protocol):
    """Services that take up what another process has judged."""

    def prepare(self, config: Config, tls: Any) -> Any:
        """What `accept` and `commit` take, of a configuration and a policy's material. In a thread. Raises: OSError."""

    def take_certificates(self, change: Any) -> None:
        """Serve a `tls.serving.material.Change`. Raises: BadPair."""


MakeServices = Callable[[WorkerInit, Any, ServerLink], WorkerServices]


def run(init: WorkerInit, make_services: MakeServices) -> None:
    """Serve until the end; called just after the fork, with no reactor installed. Raises: SystemExit."""
    from twisted.internet import epollreactor  # noqa: PLC0415 - a reactor must not be forked

    epollreactor.install()
    from twisted.internet import reactor  # noqa: PLC0415

    worker = Worker(init, make_services, reactor)
    running = cast("Any", reactor)
    running.callWhenRunning(worker.start)
    running.run()
    raise SystemExit(worker.status)


class Worker:
    """One worker's objects and the master's orders."""

    def __init__(self, init: WorkerInit, make_services: MakeServices, reactor: Any) -> None:
        self.status = 0
        self._init = init
        self._make_services = make_services
        self._reactor = reactor
        self._config = init.setting.config
        self._link = WorkerLink(init, reactor, self._stop)
        self._serving: Serving | None = None
        self._services: WorkerServices | None = None
        self._preparing: object = None
        self._prepared: tuple[Config, Any, list[Bound]] | None = None
        # Kept: where no descriptor is left, a worker that could not tell its memory would seem dead.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._beats = LoopingCall(log_exceptions, self._beat)
        self._beats.clock = reactor
        self._turn_limit = TurnLimit()
        self._stopping = False
        self._said_farewell = False
        self._ended = False

    def start(self) -> None:
        """Make the parts and listen; a failure is told to the master, and is the end."""
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
        for what, obey in (
            ("prepare", self._prepare),
            ("commit", self._commit),
            ("drop", self._drop),
            ("certificates", self._take_certificates),
            ("retire", self._retire),
            ("stop", self._obey_stop),
            ("log file", self._reopen_log),
        ):
            self._link.on_order(what, obey)
        self._turn_limit.start()
        self._beats.start(BEAT)
        self._link.report({"ready": True})

    def _fail(self, why: str) -> None:
        self.status = 1
        self._link.report({"failed": why})
        self._reactor.callLater(0, self._reactor.stop)

    def _take_signals(self) -> None:
        """Now that the reactor has set its own: the end of all comes from the master, of one worker from SIGTERM."""
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._reactor.callFromThread(self._stop))

    @staticmethod
    def _bound(config: Config, opened: dict[str, socket.socket]) -> list[Bound]:
        wanted = [(place, listener) for listener in config.listeners for place in places(listener)]
        return [Bound(listener, opened[place], place) for place, listener in wanted if place in opened]

    def _beat(self) -> None:
        serving = self._serving
        event_counters = serving.event_counters.rows() if serving else []
        self._link.beat(
            {
                "beat": serving.sessions if serving else 0,
                "memory": memory(self._statm),
                "event_counters": event_counters,
            }
        )

    # --- Orders

    def _prepare(self, body: tuple[ServedConfig, tuple[str, ...]], descriptors: list[int]) -> Deferred[Json]:
        """A reload's first half: the faults."""
        services = self._services
        assert services is not None
        setting, new_places = body
        sockets = (socket.socket(fileno=number) for number in descriptors)
        opened = self._bound(setting.config, dict(zip(new_places, sockets, strict=True)))

        self._forget()
        mine = self._preparing = object()

        def accept(prepared: Any) -> Json:
            # Nobody waits any more where it has taken too long.
            faults = ["given up"] if self._preparing is not mine else list(services.accept(prepared))
            if faults:
                _close(opened)
            else:
                self._prepared = (setting.config, prepared, opened)
            return {"faults": list(faults)}

        def failed(failure: Failure) -> Failure:
            _close(opened)
            return failure

        pool = self._reactor.getThreadPool()
        preparing = deferToThreadPool(self._reactor, pool, services.prepare, setting.config, setting.material)
        return preparing.addCallback(accept).addErrback(failed)

    def _commit(self, _body: object, _descriptors: list[int]) -> Deferred[Json]:
        """Its second half: what was done."""
        prepared, self._prepared = self._prepared, None
        self._forget()
        if prepared is None or self._services is None or self._serving is None:
            return succeed({"error": "it was not prepared in time"})
        config, made, opened = prepared
        lines = self._services.commit(made)
        if self._stopping:
            # Nobody would answer who connects to them.
            _close(opened)
        else:
            lines += self._serving.change(config, opened)
        self._config = config
        return succeed({"lines": list(lines)})

    def _take_certificates(self, change: Any, _descriptors: list[int]) -> Deferred[Json]:
        """Contexts are made for what has changed, a fraction of a millisecond each."""
        assert self._services is not None
        self._services.take_certificates(change)
        return succeed({"lines": []})

    def _drop(self, _body: object, _descriptors: list[int]) -> Deferred[Json]:
        self._forget()
        return succeed(None)

    def _forget(self) -> None:
        """What is prepared, or is being prepared, will not be taken up."""
        prepared, self._prepared, self._preparing = self._prepared, None, None
        if prepared is not None:
            _close(prepared[2])

    def _retire(self, _body: object, _descriptors: list[int]) -> Deferred[Json]:
        assert self._serving is not None
        self._stopping = True
        # What waits in the queue of a socket is for the worker that has it too.
        self._serving.stop_listening()
        self._serving.when_empty().addCallback(lambda _none: self._end())
        return succeed(None)

    def _obey_stop(self, _body: object, _descriptors: list[int]) -> Deferred[Json]:
        self._stop()
        return succeed(None)

    def _reopen_log(self, _body: object, _descriptors: list[int]) -> Deferred[Json]:
        if self._config.server.log_file is not None:
            self._init.lines.reopen(self._config.server.log_file)
        return succeed(None)

    # --- The end

    def _stop(self) -> None:
        """Farewell to all; whoever orders it once more changes nothing."""
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
            # What was counted since the last sign of life.
            self._beat()
            self._reactor.stop()

        ending.addErrback(lambda failure: log.failure("the stop of a worker has failed", failure, event="bug")).addBoth(
            end
        )


def _close(opened: list[Bound]) -> None:
    for bound in opened:
        bound.socket.close()


def memory(statm: int) -> int:
    """Octets of memory of this process that are not those of a file; `statm` is open (proc(5))."""
    fields = os.pread(statm, 256, 0).split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
