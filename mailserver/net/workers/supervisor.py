"""The master's rules for workers, without processes of its own: which of them are started, replaced and killed.

A shard is a set of listening sockets. Each shard has one worker that serves it, and may have others that retire: those
accept no new connections and end with their last session. Every living worker has a number that no other has.

- A worker that dies is forked again at once; one that dies soon after its start waits, twice as long each time.
- A worker without a sign of life is killed, and replaced once it is dead.
- A worker that is to be replaced (memory, a new zygote) serves until its successor is ready.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from mailserver.net.ipc.event_counters import EventTotals
from mailserver.net.ipc.master_messages import Order, PeerBroadcast, Query, StatusReply, WorkerGone, WorkerJoined
from mailserver.net.ipc.message_schema import Json, one_line
from mailserver.net.ipc.server_link import QUERY_TIMEOUT
from mailserver.net.ipc.worker_messages import (
    Broadcast,
    ClientsSeen,
    CredentialsUsed,
    GuessMade,
    Heartbeat,
    NetworksKnown,
    PasswordExposed,
    Reply,
    ReplyPart,
    RequestFailed,
    StatusRequest,
    WorkerFailed,
    WorkerMessage,
    WorkerReady,
)
from mailserver.net.log.events import log
from mailserver.net.workers.worker_record import PendingRequests, Process, Result, WorkerRecord, gather

SILENCE = 10.0
"""Seconds without a sign of life until a worker is killed."""
STARTING = 60.0
"""Seconds that a worker may take to start."""
EARLY = 1.0
"""A worker that dies within so many seconds of service is not forked again at once."""
FIRST_WAIT = 0.25
LONGEST_WAIT = 2.0
"""Seconds; meanwhile clients wait in the queues of the shard's sockets."""
STALLED = 3.0
"""Seconds between two checks after which the master itself must have stood still."""
RETIRE_TIME = 3600.0
"""Seconds after which the sessions of a retiring worker get their farewell."""
MEMORY_TIME = 600.0
"""Least seconds between two replacements of a shard's worker because of memory: a limit that is too low must not churn."""
ORDER_TIMEOUT = 30.0


class Supervisor:
    """All workers of a master. Implements `server_link.WorkerPool`."""

    def __init__(
        self,
        clock: IReactorTime,
        fork: Callable[[int, int, tuple[int, ...]], Process],
        *,
        shards: int,
        numbers: Sequence[int],
        wall: Callable[[], float],
    ) -> None:
        """`fork(shard, number, numbers of the living)` starts a worker; `worker_ended` follows, also of one never made."""
        self.records: dict[int, WorkerRecord] = {}
        self.memory_limit = 0
        self.on_ready: Callable[[], None] = lambda: None
        """Called each time a worker serves."""
        self.on_failed: Callable[[str], None] = lambda _reason: None
        """Called with the reason of a worker that cannot start."""
        self.on_empty: Callable[[], None] = lambda: None
        """Called when the last worker has ended after `stop`."""
        self.on_exposed: Callable[[object], None] = lambda _mark: None
        self.on_clients_seen: Callable[[Sequence[Any]], None] = lambda _rows: None
        self.on_credentials_used: Callable[[Sequence[Any]], None] = lambda _rows: None
        self.on_networks_known: Callable[[Sequence[Any]], None] = lambda _rows: None
        """Called with a worker's report of exposed passwords, clients and known networks, whose rows are not validated."""
        self.on_guess: Callable[[GuessMade], None] = lambda _guess: None
        self.bans: Callable[[], int] = lambda: 0
        self.exposures: Callable[[], int] = lambda: 0
        self.renewals: Callable[[], list[Json]] = list
        self.status: Callable[[], Deferred[Any]] = lambda: succeed(None)
        """Returns the status of all workers, for a worker's StatusRequest."""
        self.totals = EventTotals()
        self.restarts = 0
        self._clock = clock
        self._fork = fork
        self._shards = shards
        self._numbers = numbers
        self._wall = wall
        self._request_numbers = itertools.count(1)
        self._waits = dict.fromkeys(range(shards), 0.0)
        self._timers: dict[int, IDelayedCall] = {}
        self._memory_replaced = dict.fromkeys(range(shards), float("-inf"))
        self._stopping = False
        self._checked = clock.seconds()

    # --- Life of the workers

    def start(self) -> None:
        """Start a worker for every shard that has none."""
        for shard in range(self._shards):
            if not any(record.shard == shard and record.state != "retiring" for record in self.records.values()):
                self._start_worker(shard)

    def replace_all(self) -> None:
        """Start a new worker for each shard; the present ones retire when it is ready."""
        for record in tuple(self.records.values()):
            if record.state == "starting":
                # The old zygote forked it, and it is not ready: its end starts another.
                record.process.kill()
        for shard in {record.shard for record in self.records.values() if record.state == "serving"}:
            self._start_worker(shard)

    def stop(self) -> None:
        """Order all workers to stop; `on_empty` is called when the last has ended."""
        self._stopping = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for record in self.records.values():
            self._order(record, "stop")
        if not self.records:
            self.on_empty()

    def kill_all(self) -> None:
        """Kill the workers that do not end."""
        for record in tuple(self.records.values()):
            record.process.kill()

    def living(self, records: Sequence[WorkerRecord]) -> tuple[WorkerRecord, ...]:
        """Return those that have not ended."""
        return tuple(record for record in records if self.records.get(record.number) is record)

    def replace(self, record: WorkerRecord) -> None:
        """Start a new worker in place of one that serves or starts; the sessions of one that serves go on."""
        if record.state == "starting":
            record.process.kill()
        elif record.state == "serving" and not any(other.replaces is record for other in self.records.values()):
            self._start_worker(record.shard)

    def worker_forked(self, process: Process, pid: int) -> None:
        """Note the process number of a worker that the zygote has forked."""
        for record in self.records.values():
            if record.process is process:
                record.pid = pid

    def worker_ended(self, number: int, process: Process) -> None:
        """Handle the end of a worker, or of its zygote before it was made. Called once for each process."""
        record = self.records.get(number)
        if record is None or record.process is not process:
            return
        del self.records[number]
        self.totals.end(number)
        record.requests.cancel_all()
        for other in self.records.values():
            other.process.send(WorkerGone(number))
            if other.replaces is record:
                other.replaces = None
        if self._stopping:
            if not self.records:
                self.on_empty()
            return
        if record.state == "retiring":
            return
        log.warn(
            "worker {worker} (process {pid}) has ended; it is replaced",
            event="worker-ended",
            worker=record.shard,
            pid=record.pid,
        )
        self.restarts += 1
        if any(other.shard == record.shard and other.state == "starting" for other in self.records.values()):
            return  # its successor starts already
        if record.state == "starting" or self._clock.seconds() - record.ready < EARLY:
            self._waits[record.shard] = min(LONGEST_WAIT, max(FIRST_WAIT, 2 * self._waits[record.shard]))
        else:
            self._waits[record.shard] = 0.0
        self._start_worker_later(record.shard, self._waits[record.shard])

    def check(self) -> None:
        """Find workers that are silent or have retired long enough; called every second or so."""
        now = self._clock.seconds()
        checked, self._checked = self._checked, now
        if now - checked > STALLED:
            # The master stood still, and has not read what workers sent meanwhile.
            for record in self.records.values():
                record.heard = max(record.heard, now - STALLED)
        for record in tuple(self.records.values()):
            patience = STARTING if record.state == "starting" else SILENCE
            if now - record.heard > patience and not record.killed:
                log.error(
                    "worker {worker} (process {pid}) gives no sign of life: killed",
                    event="worker-killed",
                    worker=record.shard,
                    pid=record.pid,
                )
                self._kill(record)
            elif record.state == "retiring" and record.retire_until and now > record.retire_until:
                record.retire_until = 0.0
                self._order(record, "stop")

    # --- Messages of a worker

    def handle_message(self, number: int, message: WorkerMessage) -> None:
        """Handle one message of a worker."""
        record = self.records.get(number)
        if record is None or record.killed:
            return
        record.heard = self._clock.seconds()
        match message:
            case Heartbeat():
                record.sessions, record.memory = message.sessions, message.memory
                self.totals.update(number, message.event_counters)
                self._check_memory(record)
            case ClientsSeen(rows):
                self.on_clients_seen(rows)
            case CredentialsUsed(rows):
                self.on_credentials_used(rows)
            case NetworksKnown(rows):
                self.on_networks_known(rows)
            case GuessMade():
                self.on_guess(message)
            case PasswordExposed(mark):
                self.on_exposed(mark)
            case StatusRequest():
                self._send_status(record)
            case Broadcast(kind, body):
                for other in self.records.values():
                    if other is not record:
                        other.process.send(PeerBroadcast(number, kind, body))
            case ReplyPart():
                record.requests.add_part(message)
            case Reply() | RequestFailed():
                record.requests.settle(message)
            case WorkerReady():
                self._worker_ready(record)
            case WorkerFailed(reason):
                log.error(
                    "worker {worker} cannot start: {reason}",
                    event="worker-start-failed",
                    worker=record.shard,
                    reason=one_line(reason),
                )
                self.on_failed(one_line(reason))

    def reject(self, number: int, reason: str) -> None:
        """Kill a worker that sent a malformed message."""
        record = self.records.get(number)
        if record is None or record.killed:
            return
        log.error(
            "worker {worker} has sent an invalid message: killed ({reason})",
            event="worker-killed",
            worker=record.shard,
            pid=record.pid,
            reason=reason,
        )
        self._kill(record)

    # --- Queries and orders

    def ask(self, name: str, body: Json, seconds: float = QUERY_TIMEOUT) -> Deferred[dict[int, Result]]:
        """Send a query to every worker, and collect the replies by worker number."""
        return gather({number: _query(record, name, body, seconds) for number, record in self.records.items()})

    def order(
        self,
        records: Sequence[WorkerRecord],
        name: str,
        body: object,
        seconds: float,
        sockets: Callable[[WorkerRecord], Sequence[Any]] = lambda _record: (),
    ) -> Deferred[dict[int, Result]]:
        """Send an order to these workers, with `sockets(record)` beside it, and collect the replies by worker number."""
        return gather({record.number: self._order(record, name, body, seconds, sockets(record)) for record in records})

    def workers(self) -> list[dict[str, Json]]:
        """Return each worker as `server_link.WorkerPool` says."""
        return [
            {
                "worker": record.number,
                "shard": record.shard,
                "pid": record.pid,
                "since": record.since,
                "state": record.state,
                "sessions": record.sessions,
                "memory": record.memory,
            }
            for record in self.records.values()
        ]

    # --- Inside

    def _order(
        self,
        record: WorkerRecord,
        name: str,
        body: object = None,
        seconds: float = ORDER_TIMEOUT,
        sockets: Sequence[Any] = (),
    ) -> Deferred[Result]:
        return record.requests.add(lambda request: record.process.send(Order(request, name, body), sockets), seconds)

    def _send_status(self, record: WorkerRecord) -> None:
        """Answer one StatusRequest of a worker at a time: one that was taken over must not keep the master busy."""
        if record.status_requested:
            return
        record.status_requested = True

        def send(status: Any) -> None:
            record.process.send(StatusReply(status))

        def end(result: Any) -> None:
            record.status_requested = False
            if isinstance(result, Failure):
                log.failure("the status of all workers has failed", result, event="bug")

        self.status().addCallback(send).addBoth(end)

    def _kill(self, record: WorkerRecord) -> None:
        record.killed = True
        record.process.kill()

    def _start_worker_later(self, shard: int, seconds: float) -> None:
        if seconds == 0:
            self._start_worker(shard)
        elif shard not in self._timers:

            def start() -> None:
                del self._timers[shard]
                self._start_worker(shard)

            self._timers[shard] = self._clock.callLater(seconds, start)

    def _start_worker(self, shard: int) -> None:
        """Start a worker for a shard; the one that serves it now retires when the new one is ready."""
        if self._stopping:
            return
        serving = [record for record in self.records.values() if record.shard == shard and record.state == "serving"]
        replaces = serving[0] if serving else None
        number = next((number for number in self._numbers if number not in self.records), None)
        if number is None:
            # Order the worker that has retired for longest to stop, then try again.
            retiring = [record for record in self.records.values() if record.state == "retiring"]
            if retiring:
                self._order(min(retiring, key=lambda record: record.begun), "stop")
            self._start_worker_later(shard, 1.0)
            return
        living = tuple(self.records)
        now = self._clock.seconds()
        process = self._fork(shard, number, living)
        for other in self.records.values():
            other.process.send(WorkerJoined(number))
        requests = PendingRequests(self._clock, self._request_numbers)
        self.records[number] = WorkerRecord(shard, number, process, requests, now, now, self._wall(), replaces=replaces)

    def _worker_ready(self, record: WorkerRecord) -> None:
        if record.state != "starting":
            self.reject(record.number, "it says a second time that it is ready")
            return
        record.state = "serving"
        record.ready = self._clock.seconds()
        before, record.replaces = record.replaces, None
        if before is not None and before.number in self.records:
            before.state = "retiring"
            before.retire_until = self._clock.seconds() + RETIRE_TIME
            self._order(before, "retire")
        self.on_ready()

    def _check_memory(self, record: WorkerRecord) -> None:
        now = self._clock.seconds()
        if (
            self.memory_limit
            and record.memory > self.memory_limit
            and record.state == "serving"
            and now - self._memory_replaced[record.shard] >= MEMORY_TIME
        ):
            self._memory_replaced[record.shard] = now
            mib = record.memory >> 20
            log.warn(
                "worker {worker} (process {pid}) has {mebibytes} MiB of memory: replaced",
                event="worker-replaced",
                worker=record.shard,
                pid=record.pid,
                mebibytes=mib,
            )
            self.replace(record)


def _query(record: WorkerRecord, name: str, body: Json, seconds: float) -> Deferred[Result]:
    return record.requests.add(lambda request: record.process.send(Query(request, name, body)), seconds)
