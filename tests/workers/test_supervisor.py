"""The master's rules, on a clock of the test's own and without processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from mailserver.net.ipc.master_messages import Order, PeerBroadcast, Query, StatusReply, WorkerGone, WorkerJoined
from mailserver.net.ipc.worker_messages import (
    Broadcast,
    Heartbeat,
    Reply,
    RequestFailed,
    StatusRequest,
    WorkerFailed,
    WorkerReady,
)
from mailserver.net.log.format import body_of
from mailserver.net.workers.supervisor import (
    EARLY,
    LONGEST_WAIT,
    MEMORY_TIME,
    RETIRE_TIME,
    SILENCE,
    STARTING,
    Supervisor,
)

M = TypeVar("M")


class Process:
    def __init__(self, shard: int, worker: int, living: tuple[int, ...]) -> None:
        self.shard, self.worker, self.living = shard, worker, living
        self.sent: list[Any] = []
        self.killed = False

    def send(self, body: object, passed: Sequence[Any] = ()) -> None:
        self.sent.append(body)

    def kill(self) -> None:
        self.killed = True

    def orders(self) -> list[str]:
        return [message.name for message in self.of(Order)]

    def of(self, message_class: type[M]) -> list[M]:
        return [message for message in self.sent if isinstance(message, message_class)]


class Master:
    """Two shards, five workers."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.made: list[Process] = []
        self.empty = 0
        self.supervisor = Supervisor(self.clock, self.fork, shards=2, numbers=range(5), wall=lambda: 1000.0)
        self.supervisor.on_empty = self.emptied
        self.supervisor.start()
        for process in self.made:
            self.ready(process)

    def emptied(self) -> None:
        self.empty += 1

    def fork(self, shard: int, worker: int, living: tuple[int, ...]) -> Process:
        self.made.append(Process(shard, worker, living))
        return self.made[-1]

    def ready(self, process: Process) -> None:
        self.supervisor.handle_message(process.worker, WorkerReady())

    def end(self, process: Process) -> None:
        self.supervisor.worker_ended(process.worker, process)

    def beat(self, *processes: Process, memory: int = 0) -> None:
        for process in processes:
            self.supervisor.handle_message(process.worker, Heartbeat(0, memory, ()))

    def live(self, seconds: float, *processes: Process) -> None:
        """Time in which these beat."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.beat(*processes)
            self.supervisor.check()

    def states(self) -> dict[int, str]:
        return {worker: record.state for worker, record in self.supervisor.records.items()}


@pytest.fixture
def master() -> Master:
    return Master()


def test_each_slot_has_a_worker_that_knows_the_others(master: Master) -> None:
    one, two = master.made
    assert (one.shard, one.worker, one.living) == (0, 0, ())
    assert (two.shard, two.worker, two.living) == (1, 1, (0,))
    assert one.sent == [WorkerJoined(1)]
    assert two.sent == []


def test_what_one_tells_reaches_the_others_in_order(master: Master) -> None:
    one, two = master.made
    for number in range(3):
        master.supervisor.handle_message(0, Broadcast("penalties", f"[{number}]"))
    assert two.of(PeerBroadcast) == [PeerBroadcast(0, "penalties", f"[{number}]") for number in range(3)]
    assert not one.of(PeerBroadcast)


def test_a_dead_one_is_replaced_at_once_and_only_one_that_dies_soon_waits(master: Master) -> None:
    one, two = master.made
    master.live(EARLY + 1, one, two)
    master.end(one)
    assert two.of(WorkerGone) == [WorkerGone(0)]
    again = master.made[2]
    assert again.shard == 0
    waited = []
    for _ in range(6):
        master.end(master.made[-1])
        made, passed = len(master.made), 0.0
        while len(master.made) == made:
            master.clock.advance(0.125)
            passed += 0.125
        waited.append(passed)
    assert waited == [0.25, 0.5, 1, 2, 2, 2]
    assert LONGEST_WAIT == 2
    master.ready(master.made[-1])
    master.live(EARLY + 1, master.made[-1], two)
    made = len(master.made)
    master.end(master.made[-1])
    assert len(master.made) == made + 1, "it has served for long enough"


def test_the_end_of_a_process_of_the_same_number_before_is_no_end(master: Master) -> None:
    one, two = master.made
    master.live(EARLY + 1, one, two)
    master.end(one)
    assert master.made[2].worker == one.worker
    master.end(one)
    assert len(master.made) == 3


def test_a_silent_one_is_killed_once(master: Master) -> None:
    one, two = master.made
    master.live(SILENCE, two)
    assert not one.killed
    master.live(2, two)
    assert one.killed
    assert not two.killed
    one.killed = False
    master.live(2, two)
    assert not one.killed


def test_a_master_that_stood_still_kills_nobody_for_what_it_has_not_read(master: Master) -> None:
    one, two = master.made
    master.live(5, one, two)
    master.clock.advance(10 * SILENCE)
    master.supervisor.check()
    assert not one.killed
    assert not two.killed
    # Who is really silent has not long to live all the same.
    master.live(SILENCE, two)
    assert one.killed
    assert not two.killed


def test_one_that_begins_has_more_time(master: Master) -> None:
    one, two = master.made
    master.live(EARLY + 1, one, two)
    master.end(one)
    new = master.made[2]
    master.live(STARTING, two)
    assert not new.killed
    master.live(2, two)
    assert new.killed


def test_who_is_replaced_serves_until_the_other_is_ready(master: Master) -> None:
    one, two = master.made
    master.supervisor.replace_all()
    three, four = master.made[2:]
    assert {three.shard, four.shard} == {0, 1}
    assert one.orders() == two.orders() == []
    master.ready(three)
    assert [len(process.orders()) for process in (one, two)] in ([1, 0], [0, 1])
    master.ready(four)
    assert one.orders() == two.orders() == ["retire"]
    assert sorted(master.states().values()) == ["retiring", "retiring", "serving", "serving"]
    master.live(RETIRE_TIME, *master.made)
    assert one.orders() == ["retire"]
    master.live(3, *master.made)
    assert one.orders() == two.orders() == ["retire", "stop"]
    master.end(one)
    master.end(two)
    assert len(master.made) == 4, "a retired one has its successor"


def test_a_successor_that_dies_is_made_again_and_the_old_one_serves(master: Master) -> None:
    one, _two = master.made
    master.supervisor.replace_all()
    successor = next(process for process in master.made[2:] if process.shard == 0)
    master.end(successor)
    master.clock.advance(LONGEST_WAIT)
    again = master.made[-1]
    assert again.shard == 0
    assert one.orders() == []
    master.ready(again)
    assert one.orders() == ["retire"]


def test_when_there_is_no_number_the_longest_retired_makes_room(master: Master) -> None:
    one, two = master.made
    for round_ in range(2):
        master.clock.advance(1)
        master.supervisor.replace_all()
        if round_ == 0:
            for process in master.made[2:]:
                master.ready(process)
    assert len(master.made) == 5
    assert [one.orders(), two.orders()].count(["retire", "stop"]) == 1
    gone = one if "stop" in one.orders() else two
    master.end(gone)
    master.clock.advance(1)
    assert len(master.made) == 6


def test_memory_replaces_a_worker_but_not_again_and_again(master: Master) -> None:
    one, two = master.made
    master.supervisor.memory_limit = 100
    master.beat(one, two, memory=100)
    assert len(master.made) == 2
    master.beat(one, memory=101)
    master.beat(one, memory=101)
    assert [process.shard for process in master.made[2:]] == [0]
    new = master.made[2]
    master.ready(new)
    assert one.orders() == ["retire"]
    master.beat(new, memory=101)
    assert len(master.made) == 3
    master.live(MEMORY_TIME, one, two, new)
    master.beat(new, memory=101)
    assert len(master.made) == 4


def test_a_malformed_message_is_the_end_of_its_worker(master: Master) -> None:
    """What is malformed: tests/net/test_message_schema.py."""
    one, two = master.made
    with capturedLogs() as logged:
        master.supervisor.reject(0, "extra fields found (x) @ $")
    assert one.killed
    assert not two.killed
    [event] = logged
    assert (event["event"], event["worker"], event["reason"]) == ("worker-killed", 0, "extra fields found (x) @ $")
    two.killed = False
    master.ready(two)
    assert two.killed, "it is ready already"


def test_why_a_worker_cannot_start_is_told_in_one_line(master: Master) -> None:
    failed: list[str] = []
    master.supervisor.on_failed = failed.append
    with capturedLogs() as logged:
        master.supervisor.handle_message(0, WorkerFailed("no \x1b[2Jroom\nready: \ud800" + "x" * 100_000))
    [line] = [str(body_of(event)) for event in logged]
    assert line == f"worker 0 cannot start: {failed[0]} event=worker-start-failed"
    assert failed[0].startswith("no \\x1b[2Jroom; ready: \\ud800xxx")
    assert len(failed[0]) < 3000


def test_a_worker_that_was_killed_for_a_message_is_ignored(master: Master) -> None:
    one, two = master.made
    with capturedLogs() as logged:
        for _ in range(100):
            master.supervisor.reject(one.worker, "it is not JSON")
    assert len(logged) == 1
    master.supervisor.handle_message(one.worker, Broadcast("penalties", "[]"))
    assert two.of(PeerBroadcast) == []


def test_one_that_retires_does_not_serve_again_because_it_says_so(master: Master) -> None:
    one, _two = master.made
    master.supervisor.replace(master.supervisor.records[one.worker])
    master.ready(master.made[-1])
    assert master.states()[one.worker] == "retiring"
    master.ready(one)
    assert master.states()[one.worker] == "retiring"
    assert one.killed


def test_questions_are_merged_and_who_does_not_answer_is_not_waited_for(master: Master) -> None:
    one, two = master.made
    found: list[Any] = []
    master.supervisor.ask("who", {"user": None}).addCallback(found.append)
    [query] = one.of(Query)
    assert (query.name, query.body) == ("who", {"user": None})
    master.supervisor.handle_message(0, Reply(query.request, ["anna"]))
    assert found == []
    master.clock.advance(3)
    assert found == [{0: ["anna"], 1: None}]
    [late] = two.of(Query)
    master.supervisor.handle_message(1, Reply(late.request, []))
    assert not two.killed
    master.supervisor.ask("who", None).addCallback(found.append)
    failed = RequestFailed(one.of(Query)[1].request, "internal")
    master.supervisor.handle_message(0, failed)
    master.end(two)
    assert found[1] == {0: failed, 1: None}


def test_the_end_is_told_when_the_last_has_ended(master: Master) -> None:
    one, two = master.made
    master.supervisor.stop()
    assert one.orders() == two.orders() == ["stop"]
    master.end(one)
    assert master.empty == 0
    master.end(two)
    assert master.empty == 1
    master.clock.advance(100)
    assert len(master.made) == 2


def test_one_that_is_replaced_serves_until_its_successor_does(master: Master) -> None:
    one, two = master.made
    record = master.supervisor.records[0]
    master.supervisor.replace(record)
    master.supervisor.replace(record)
    (successor,) = master.made[2:]
    assert (successor.shard, one.orders()) == (0, [])
    master.ready(successor)
    assert one.orders() == ["retire"]
    master.supervisor.replace(record)
    assert len(master.made) == 3, "one that retires serves nobody new"
    assert not one.killed
    assert not two.orders()


def test_one_that_begins_is_replaced_by_its_end(master: Master) -> None:
    one, _two = master.made
    master.end(one)
    master.clock.advance(LONGEST_WAIT)
    begun = master.made[2]
    record = master.supervisor.records[begun.worker]
    master.supervisor.replace(record)
    assert begun.killed
    master.end(begun)
    assert master.supervisor.living((record,)) == ()


def test_all_are_killed_though_each_end_is_told_at_once(master: Master) -> None:
    master.supervisor.stop()
    for process in master.made:
        process.kill = lambda process=process: master.end(process)  # type: ignore[method-assign,misc]
    master.supervisor.kill_all()
    assert master.empty == 1


def test_a_worker_is_told_the_status_of_all_one_question_at_a_time() -> None:
    master = Master()
    asked: list[Deferred[Any]] = []

    def status() -> Deferred[Any]:
        asked.append(Deferred())
        return asked[-1]

    master.supervisor.status = status
    first = master.made[0]
    for _ in range(3):
        master.supervisor.handle_message(first.worker, StatusRequest())
    assert len(asked) == 1
    asked[0].callback({"workers": []})
    assert first.of(StatusReply) == [StatusReply({"workers": []})]
    master.supervisor.handle_message(first.worker, StatusRequest())
    assert len(asked) == 2
    master.end(first)
    asked[1].callback({"workers": []})


def test_a_status_that_fails_is_not_the_last_one() -> None:
    master = Master()
    first = master.made[0]
    master.supervisor.status = lambda: fail(ValueError("not to be merged"))
    with capturedLogs() as logged:
        for _ in range(2):
            master.supervisor.handle_message(first.worker, StatusRequest())
    assert [event["event"] for event in logged] == ["bug", "bug"]
    master.supervisor.status = lambda: succeed({"workers": []})
    master.supervisor.handle_message(first.worker, StatusRequest())
    assert first.of(StatusReply) == [StatusReply({"workers": []})]


def test_what_an_ended_worker_has_counted_stays_and_its_replacement_is_counted() -> None:
    master = Master()
    first = master.made[0]
    master.supervisor.handle_message(first.worker, Heartbeat(0, 0, (("login", "imaps", "none", 3),)))
    assert master.supervisor.restarts == 0
    master.clock.advance(EARLY + 1)
    master.end(first)
    assert master.supervisor.restarts == 1
    assert master.supervisor.totals.rows() == [("login", "imaps", "none", 3)]
