"""Which workers there are, and what becomes of them: the master's rules, without processes of its own.

A shard is a set of listening sockets, a worker a place among the living workers. Each shard has one worker that serves it,
and may have others that retire: those take no new connections and end with their last session.

- A worker that dies is forked again at once; only one that dies soon after its start waits, twice as long each time.
- One that gives no sign of life is killed, and replaced as it is then dead.
- One that is to be replaced (memory, a new zygote) serves until its successor is ready.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailserver.net.ipc.event_counters import EventTotals
from mailserver.net.ipc.message_schema import Json, are_numbers, one_line
from mailserver.net.log.events import log

SILENCE = 10.0
"""Seconds without a sign of life."""
STARTING = 60.0
"""Seconds that a worker may take to begin."""
EARLY = 1.0
"""Seconds of service before which a worker's death is a fault of more than the moment."""
FIRST_WAIT = 0.25
BLIND = 3.0
"""Seconds between two looks after which it is us who stood still."""
LONGEST_WAIT = 2.0
"""Seconds; meanwhile who is sent to the shard waits."""
RETIRE_TIME = 3600.0
"""Seconds after which the sessions of a retiring worker hear a farewell."""
MEMORY_TIME = 600.0
"""Seconds between two replacements of a shard's worker for its memory: a limit that is too low must not churn."""


class Process(Protocol):
    """A worker's process and line, as the supervisor uses them."""

    def send(self, body: object, passed: Sequence[Any] = ()) -> None:
        """A frame to it; lost if it is dead."""

    def kill(self) -> None:
        """SIGKILL; its end is told as any other."""


@define(eq=False)
class Record:
    """One worker."""

    shard: int
    worker: int
    process: Process
    begun: float
    heard: float
    since: float
    """Unix time of its start."""
    ready: float = 0.0
    pid: int = 0
    state: Literal["starting", "serving", "retiring"] = "starting"
    sessions: int = 0
    memory: int = 0
    replaces: Record | None = None
    """Retired once this one is ready."""
    retire_until: float = 0.0
    killed: bool = False
    asking: bool = False
    """It has asked for the status of all, and has no answer yet."""
    questions: dict[int, Deferred[Json]] = field(factory=dict)


class Supervisor:
    """All workers of a master. Implements `link.WorkerPool`."""

    def __init__(
        self,
        clock: IReactorTime,
        fork: Callable[[int, int, tuple[int, ...]], Process],
        *,
        shards: int,
        numbers: Sequence[int],
        wall: Callable[[], float],
    ) -> None:
        """`fork(shard, worker, workers of the living)` begins a worker; its end is told by `ended`, also of one never made."""
        self.records: dict[int, Record] = {}
        self.memory_limit = 0
        self.on_ready: Callable[[], None] = lambda: None
        """Called each time a worker serves."""
        self.on_failed: Callable[[str], None] = lambda _why: None
        """Called with what a worker says that cannot start."""
        self.on_empty: Callable[[], None] = lambda: None
        self.on_exposed: Callable[[Json], None] = lambda _mark: None
        self.on_seen: Callable[[Json], None] = lambda _rows: None
        self.on_known: Callable[[Json], None] = lambda _rows: None
        """Called with reports of a worker about exposed passwords, clients and known networks; it may be nonsense."""
        self.exposures: Callable[[], int] = lambda: 0
        self.renewals: Callable[[], list[Json]] = list
        self.status: Callable[[], Deferred[Json]] = lambda: succeed(None)
        """What a worker is told that asks for the status of all."""
        self.totals = EventTotals()
        self.restarts = 0
        self._clock = clock
        self._fork = fork
        self._shards = shards
        self._numbers = numbers
        self._wall = wall
        self._requests = itertools.count(1)
        self._waits = dict.fromkeys(range(shards), 0.0)
        self._timers: dict[int, IDelayedCall] = {}
        self._memory_told = dict.fromkeys(range(shards), float("-inf"))
        self._stopping = False
        self._looked = clock.seconds()

    # --- Life

    def start(self) -> None:
        """Begin a worker on every shard that has none."""
        for shard in range(self._shards):
            if not any(record.shard == shard and record.state != "retiring" for record in self.records.values()):
                self._begin(shard)

    def replace_all(self) -> None:
        """A new worker for each shard; those of now retire when it is ready."""
        for record in tuple(self.records.values()):
            if record.state == "starting":
                # Begun by the old zygote, and not ready yet: what follows its end begins anew.
                record.process.kill()
        for shard in {record.shard for record in self.records.values() if record.state == "serving"}:
            self._begin(shard)

    def stop(self) -> None:
        """Farewell in all; `on_empty` is called when the last has ended."""
        self._stopping = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for record in self.records.values():
            self._order(record, "stop", None)
        if not self.records:
            self.on_empty()

    def kill_all(self) -> None:
        """For those that do not end."""
        for record in tuple(self.records.values()):
            record.process.kill()

    def living(self, records: Sequence[Record]) -> tuple[Record, ...]:
        """Those that have not ended."""
        return tuple(record for record in records if self.records.get(record.worker) is record)

    def replace(self, record: Record) -> None:
        """A new worker in place of one that serves or begins; the sessions of one that serves go on."""
        if record.state == "starting":
            record.process.kill()
        elif record.state == "serving" and not any(other.replaces is record for other in self.records.values()):
            self._begin(record.shard)

    def forked(self, process: Process, pid: int) -> None:
        """The zygote has made it."""
        for record in self.records.values():
            if record.process is process:
                record.pid = pid

    def ended(self, worker: int, process: Process) -> None:
        """A worker is dead, or its zygote before it could be made. Called once for each process."""
        record = self.records.get(worker)
        if record is None or record.process is not process:
            return
        del self.records[worker]
        self.totals.end(worker)
        for question in tuple(record.questions.values()):
            question.callback(None)
        for other in self.records.values():
            other.process.send(("gone", worker))
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
            return  # its successor is on the way
        if record.state == "starting" or self._clock.seconds() - record.ready < EARLY:
            self._waits[record.shard] = min(LONGEST_WAIT, max(FIRST_WAIT, 2 * self._waits[record.shard]))
        else:
            self._waits[record.shard] = 0.0
        self._begin_later(record.shard, self._waits[record.shard])

    def check(self) -> None:
        """Look for those that are silent or have retired long enough; every second or so."""
        now = self._clock.seconds()
        looked, self._looked = self._looked, now
        if now - looked > BLIND:
            # Who stood still has not read what they said meanwhile.
            for record in self.records.values():
                record.heard = max(record.heard, now - BLIND)
        for record in tuple(self.records.values()):
            patience = STARTING if record.state == "starting" else SILENCE
            if now - record.heard > patience and not record.killed:
                log.error(
                    "worker {worker} (process {pid}) gives no sign of life: killed",
                    event="worker-killed",
                    worker=record.shard,
                    pid=record.pid,
                )
                record.killed = True
                record.process.kill()
            elif record.state == "retiring" and record.retire_until and now > record.retire_until:
                record.retire_until = 0.0
                self._order(record, "stop", None)

    # --- What a worker says

    def heard(self, worker: int, body: Json) -> None:
        """One frame of a worker; nonsense is its end."""
        record = self.records.get(worker)
        if record is None or record.killed:
            return
        record.heard = self._clock.seconds()
        match body:
            case {"beat": int(sessions), "memory": int(memory), "event_counters": event_counters} if are_numbers(
                sessions, memory
            ):
                record.sessions, record.memory = sessions, memory
                self.totals.take(worker, event_counters)
                self._look_at_memory(record)
            case {"seen": rows}:
                self.on_seen(rows)
            case {"known": rows}:
                self.on_known(rows)
            case {"exposed": mark}:
                self.on_exposed(mark)
            case {"ask": "status"}:
                self._tell_status(record)
            case {"tell": str(kind), "body": told}:
                for other in self.records.values():
                    if other is not record:
                        other.process.send(("told", worker, kind, told))
            case {"answer": int(number), "error": str(error)}:
                self._settle(record, number, {"error": error})
            case {"answer": int(number), "body": answer}:
                self._settle(record, number, answer)
            case {"ready": True} if record.state == "starting":
                self._is_ready(record)
            case {"failed": str(why)}:
                log.error(
                    "worker {worker} cannot start: {reason}",
                    event="worker-start-failed",
                    worker=record.shard,
                    reason=one_line(why),
                )
                self.on_failed(one_line(why))
            case _:
                log.error(
                    "worker {worker} has sent an invalid message: killed",
                    event="worker-killed",
                    worker=record.shard,
                    pid=record.pid,
                )
                record.killed = True
                record.process.kill()

    # --- Queries and orders

    def ask(self, what: str, body: Json, seconds: float = 2.0) -> Deferred[dict[int, Json]]:
        """Ask every worker that has begun."""
        asked = {
            worker: self._question(record, ("ask", what, body), seconds) for worker, record in self.records.items()
        }
        return self._gather(asked)

    def order(
        self,
        records: Sequence[Record],
        what: str,
        body: object,
        seconds: float,
        sockets: Callable[[Record], Sequence[Any]] = lambda _record: (),
    ) -> Deferred[dict[int, Json]]:
        """Have these workers obey; `sockets(record)` go beside it."""
        return self._gather(
            {record.worker: self._order(record, what, body, seconds, sockets(record)) for record in records}
        )

    def workers(self) -> list[dict[str, Json]]:
        """Each as `link.WorkerPool` says."""
        return [
            {
                "worker": record.worker,
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

    def _tell_status(self, record: Record) -> None:
        """One question of a worker at a time: one that was taken over must not keep the master busy."""
        if record.asking:
            return
        record.asking = True

        def tell(status: Json) -> None:
            record.asking = False
            record.process.send(("status", status))

        self.status().addCallback(tell)

    @staticmethod
    def _settle(record: Record, number: int, answer: Json) -> None:
        question = record.questions.pop(number, None)
        if question is not None:
            question.callback(answer)

    def _begin_later(self, shard: int, seconds: float) -> None:
        if seconds == 0:
            self._begin(shard)
        elif shard not in self._timers:

            def begin() -> None:
                del self._timers[shard]
                self._begin(shard)

            self._timers[shard] = self._clock.callLater(seconds, begin)

    def _begin(self, shard: int) -> None:
        """A new worker for a shard; the one that serves it now retires when the new one is ready."""
        if self._stopping:
            return
        serving = [record for record in self.records.values() if record.shard == shard and record.state == "serving"]
        replaces = serving[0] if serving else None
        worker = next((worker for worker in self._numbers if worker not in self.records), None)
        if worker is None:
            # Whoever has retired longest makes room, and then this is tried again.
            retiring = [record for record in self.records.values() if record.state == "retiring"]
            if retiring:
                self._order(min(retiring, key=lambda record: record.begun), "stop", None)
            self._begin_later(shard, 1.0)
            return
        living = tuple(self.records)
        now = self._clock.seconds()
        process = self._fork(shard, worker, living)
        for other in self.records.values():
            other.process.send(("joined", worker))
        self.records[worker] = Record(shard, worker, process, now, now, self._wall(), replaces=replaces)

    def _is_ready(self, record: Record) -> None:
        record.state = "serving"
        record.ready = self._clock.seconds()
        before, record.replaces = record.replaces, None
        if before is not None and before.worker in self.records:
            before.state = "retiring"
            before.retire_until = self._clock.seconds() + RETIRE_TIME
            self._order(before, "retire", None)
        self.on_ready()

    def _look_at_memory(self, record: Record) -> None:
        now = self._clock.seconds()
        if (
            self.memory_limit
            and record.memory > self.memory_limit
            and record.state == "serving"
            and now - self._memory_told[record.shard] >= MEMORY_TIME
        ):
            self._memory_told[record.shard] = now
            mib = record.memory >> 20
            log.warn(
                "worker {worker} (process {pid}) has {mebibytes} MiB of memory: replaced",
                event="worker-replaced",
                worker=record.shard,
                pid=record.pid,
                mebibytes=mib,
            )
            self.replace(record)

    def _order(
        self, record: Record, what: str, body: object, seconds: float = 30.0, sockets: Sequence[Any] = ()
    ) -> Deferred[Json]:
        return self._question(record, ("order", what, body), seconds, sockets)

    def _question(
        self, record: Record, words: tuple[str, str, object], seconds: float, sockets: Sequence[Any] = ()
    ) -> Deferred[Json]:
        """None for an answer that does not come."""
        number = next(self._requests)
        answer: Deferred[Json] = Deferred()
        record.questions[number] = answer

        def give_up() -> None:
            record.questions.pop(number, None)
            answer.callback(None)

        timer = self._clock.callLater(seconds, give_up)

        def in_time(result: Json) -> Json:
            record.questions.pop(number, None)
            if timer.active():
                timer.cancel()
            return result

        answer.addCallback(in_time)
        kind, what, body = words
        record.process.send((kind, number, what, body), sockets)
        return answer

    @staticmethod
    def _gather(answers: dict[int, Deferred[Json]]) -> Deferred[dict[int, Json]]:
        workers = list(answers)
        all_of_them = DeferredList(list(answers.values()))
        return all_of_them.addCallback(
            lambda results: dict(zip(workers, [result for _ok, result in results], strict=True))
        )
