"""A worker's halves of a reload, whichever way they cross with each other: no socket stays open that nobody serves."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from twisted.internet.task import Clock

from mailserver.config.model import Config, Listener
from mailserver.net.ipc.frames import MAX_JSON, Decoder, read_some, send_blocking, to_pickle
from mailserver.net.ipc.master_messages import Order, PrepareReload, ServedConfig, WorkerInit
from mailserver.net.ipc.open_mailbox_table import ROW
from mailserver.net.ipc.worker_messages import Heartbeat, Reply, RequestFailed, WorkerMessage, decode_worker_message
from mailserver.net.workers.worker import HEARTBEAT, Worker
from tests.auth.test_plugins import config
from tests.workers.test_frames import Reactor as Lines

PLACE = "127.0.0.1:9993"
BEFORE = config("file:/users")
CHANGED = attrs.evolve(BEFORE, listeners=(Listener(protocol="imaps", port=9993, addresses=("127.0.0.1",)),))


class Reactor(Lines):
    """Calls in threads are made when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.in_threads: list[Callable[[], None]] = []

    def getThreadPool(self) -> Any:
        return SimpleNamespace(
            callInThreadWithCallback=lambda done, call, *arguments: self.in_threads.append(
                lambda: done(True, call(*arguments))
            )
        )

    def callFromThread(self, call: Callable[..., None], *arguments: Any) -> None:
        call(*arguments)


class FakeServices:
    def __init__(self) -> None:
        self.refused: list[str] = []
        self.committed: list[Any] = []

    def prepare(self, config: Config, material: Any) -> Any:
        return (config, material)

    def accept(self, _prepared: Any) -> list[str]:
        return self.refused

    def commit(self, prepared: Any) -> list[str]:
        self.committed.append(prepared)
        return ["taken up"]


class Serving:
    sessions = 1

    def __init__(self) -> None:
        self.places: list[str] = []
        self.event_counters: Any = None

    def change(self, _config: Config, opened: list[Any]) -> list[str]:
        self.places += [bound.place for bound in opened]
        return [f"serving {bound.place}" for bound in opened]

    def stop_listening(self) -> None:
        self.places.clear()

    def when_empty(self) -> Any:
        return SimpleNamespace(addCallback=lambda _end: None)


class Bench:
    """A worker that has begun, and the master's end of its line."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        ours, theirs = socket.socketpair()
        self.ours, self.poke = ours, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.decoder = Decoder(MAX_JSON)
        process_log: Any = None
        init = WorkerInit(
            served=ServedConfig(BEFORE, None),
            shards=1,
            shard=0,
            worker=0,
            living=(),
            penalty_key=b"secret",
            tls=None,
            process_log=process_log,
            master=theirs,
            listening={},
            mail_root=None,
            known_key=b"n" * 32,
            poke_receive=self.poke,
            poke_send={},
            open_mailboxes=bytearray(4 * ROW),
        )
        assert "secret" not in repr(init)
        make: Any = None
        self.worker = Worker(init, make, self.reactor)
        self.services, self.serving = FakeServices(), Serving()
        inside: Any = self.worker
        inside._services, inside._serving = self.services, self.serving
        inside._link.on_order("prepare", inside._prepare)
        inside._link.on_order("commit", inside._commit)
        inside._link.on_order("drop", inside._drop)
        inside._link.on_order("retire", inside._retire)
        self.link = inside._link

    def order(self, number: int, what: str, body: object = None, passed: list[int] | None = None) -> None:
        send_blocking(self.ours, to_pickle(Order(number, what, body)), passed or ())
        (line,) = self.reactor.readers
        line.doRead()  # type: ignore[attr-defined]

    def prepare(self, number: int) -> socket.socket:
        """The listening socket of which the worker has a duplicate."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.order(number, "prepare", PrepareReload(ServedConfig(CHANGED, "material"), (PLACE,)), [listening.fileno()])
        return listening

    def run(self) -> None:
        waiting, self.reactor.in_threads = self.reactor.in_threads, []
        for call in waiting:
            call()

    def answer(self) -> WorkerMessage:
        while (frame := self.decoder.next_frame()) is None:
            self.decoder.receive(*read_some(self.ours))
        return decode_worker_message(frame[0])

    def close(self) -> None:
        self.link.close()
        self.ours.close()
        self.poke.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.ours.settimeout(20)
    yield bench
    bench.close()


def is_closed(listening: socket.socket) -> bool:
    """Does nobody else have it? Then it refuses as soon as it is closed here."""
    address = listening.getsockname()
    listening.close()
    with socket.socket() as client:
        return client.connect_ex(address) != 0


def test_what_was_prepared_is_taken_up(bench: Bench) -> None:
    with bench.prepare(1):
        bench.run()
        assert bench.answer() == Reply(1, {"faults": []})
        bench.order(2, "commit")
        assert bench.answer() == Reply(2, {"lines": ["taken up", f"serving {PLACE}"]})
    assert bench.services.committed == [(CHANGED, "material")]


def test_a_commit_that_overtakes_the_preparation_is_no_success(bench: Bench) -> None:
    listening = bench.prepare(1)
    bench.order(2, "commit")
    assert isinstance(bench.answer(), RequestFailed)
    bench.run()
    assert bench.answer() == Reply(1, {"faults": ["given up"]})
    bench.order(3, "commit")
    assert isinstance(bench.answer(), RequestFailed), "what was given up is not taken up by a later reload"
    assert not bench.services.committed
    assert is_closed(listening)


@pytest.mark.parametrize("late", [False, True])
def test_what_is_dropped_is_closed(bench: Bench, late: bool) -> None:
    listening = bench.prepare(1)
    if not late:
        bench.run()
    bench.order(2, "drop")
    bench.run()
    assert is_closed(listening)
    assert not bench.services.committed


def test_what_is_refused_is_closed_and_cannot_be_taken_up(bench: Bench) -> None:
    bench.services.refused = ["no such back end"]
    listening = bench.prepare(1)
    bench.run()
    assert bench.answer() == Reply(1, {"faults": ["no such back end"]})
    bench.order(2, "commit")
    assert isinstance(bench.answer(), RequestFailed)
    assert is_closed(listening)


def test_one_that_retires_takes_up_settings_and_serves_no_new_place(bench: Bench) -> None:
    listening = bench.prepare(1)
    bench.run()
    bench.answer()
    bench.order(2, "retire")
    bench.answer()
    bench.order(3, "commit")
    assert bench.answer() == Reply(3, {"lines": ["taken up"]})
    assert is_closed(listening)


def test_a_sign_of_life_that_fails_is_not_the_last(bench: Bench) -> None:
    clock = Clock()
    inside: Any = bench.worker
    inside._heartbeats.clock = clock
    inside._heartbeats.start(HEARTBEAT)  # as yet there is nothing to tell of events: it fails
    bench.serving.event_counters = SimpleNamespace(rows=list)
    clock.advance(HEARTBEAT)
    heartbeat = bench.answer()
    assert isinstance(heartbeat, Heartbeat)
    assert heartbeat.sessions == bench.serving.sessions
    inside._heartbeats.stop()
