"""A worker's end of its line to the master."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from mailserver.config.model import Limits
from mailserver.errors import MailError
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.net.ipc.frames import MAX_JSON, MAX_PASSED, Decoder, read_some, send_blocking, to_pickle
from mailserver.net.ipc.ipc_messages import WorkerInit
from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.worker_link import STATUS_PATIENCE, WorkerLink
from mailserver.net.serving.state_sync import ConnectionCountSync
from mailserver.net.workers.zygote_process import WorkerProcess, from_json


class Reactor:
    """Nothing happens by itself."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments: None


class Turned(Clock):
    """A clock that tests turn; else as above."""

    def addReader(self, _reader: Any) -> None:
        """Nobody reads by itself."""

    removeReader = addWriter = removeWriter = addReader  # noqa: N815


def init(line: socket.socket, receive: socket.socket) -> WorkerInit:
    return WorkerInit(
        setting=None,  # type: ignore[arg-type]
        shards=1,
        shard=0,
        worker=0,
        living=(),
        penalty_key=b"k" * 32,
        tls=None,
        lines=None,  # type: ignore[arg-type]
        line=line,
        listening={},
        mail_root=None,
        known_key=b"n" * 32,
        poke_receive=receive,
        poke_send={},
    )


def test_an_answer_that_the_master_would_not_take_is_an_error_and_not_the_end() -> None:
    ours, theirs = socket.socketpair()
    receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    worker = WorkerLink(init(theirs, receive), Reactor(), lambda: None)
    long: Json = ["x" * 1000] * (MAX_JSON // 1000)
    worker.on_query("long", lambda _body: succeed(long))
    worker.on_query("short", lambda _body: succeed(["x"]))
    decoder = Decoder(MAX_JSON)
    try:
        for number, what in ((1, "long"), (2, "short")):
            send_blocking(ours, to_pickle(("ask", number, what, None)))
            worker._line.doRead()
        told = []
        ours.settimeout(10)
        while len(told) < 2:
            decoder.receive(*read_some(ours))
            while (frame := decoder.next_frame()) is not None:
                told.append(from_json(frame[0]))
        assert told == [
            {"answer": 1, "error": "the answer is too long, ask for less"},
            {"answer": 2, "body": ["x"]},
        ]
    finally:
        worker.close()
        for one in (ours, receive, send):
            one.close()


def test_nonsense_of_another_worker_is_heard_once_and_ends_nobody() -> None:
    ours, theirs = socket.socketpair()
    receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ended: list[None] = []
    worker = WorkerLink(init(theirs, receive), Reactor(), lambda: ended.append(None))
    worker._sending = {1: send, 2: send}  # type: ignore[assignment]
    counts = ConnectionCounts(Limits())
    ConnectionCountSync(worker, Clock(), counts)
    told: list[tuple[int, Json]] = []
    worker.on("noted", lambda who, body: told.append((who, body)))
    with capturedLogs() as logged:
        for body in (
            ("joined", 1),
            ("joined", 2),
            ("told", 1, "counts", 5),
            ("told", 1, "counts", [[[], "many"]]),
            ("told", 1, "noted", "lost"),
            ("told", 2, "noted", "heard"),
            ("gone", 1),
            ("joined", 1),
            ("told", 1, "noted", "another now"),
        ):
            send_blocking(ours, to_pickle(body))
            worker._line.doRead()
    assert told == [(2, "heard"), (1, "another now")]
    assert len(logged) == 1
    assert ended == []
    worker.close()
    for one in (ours, receive, send):
        one.close()


def test_an_order_has_more_sockets_than_fit_beside_one_frame() -> None:
    ours, theirs = socket.socketpair()
    receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    worker = WorkerLink(init(theirs, receive), Reactor(), lambda: None)
    process = WorkerProcess(Reactor(), ours, lambda _body: None, lambda: None)
    got: list[list[int]] = []

    def obey(_body: object, descriptors: list[int]) -> Deferred[Json]:
        got.append([os.fstat(number).st_ino for number in descriptors])
        for number in descriptors:
            os.close(number)
        return succeed(None)

    worker.on_order("prepare", obey)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2 * MAX_PASSED + 50)]
        try:
            for number, passed in ((1, sockets), (2, sockets[:1]), (3, [])):
                process.send(("order", number, "prepare", None), passed)
            for _ in range(20):
                process._line.doWrite()
                worker._line.doRead()
        finally:
            worker.close()
            process._line.close()
            receive.close()
            send.close()
        names = [os.fstat(each.fileno()).st_ino for each in sockets]
        assert got == [names, names[:1], []]


def test_who_asks_for_the_status_while_it_is_asked_for_gets_the_same_answer() -> None:
    ours, theirs = socket.socketpair()
    receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    clock = Turned()
    worker = WorkerLink(init(theirs, receive), clock, lambda: None)
    told: list[Any] = []
    try:
        for _ in range(2):
            worker.query_status().addBoth(told.append)
        ours.settimeout(10)
        decoder = Decoder(MAX_JSON)
        decoder.receive(*read_some(ours))
        frame = decoder.next_frame()
        assert frame is not None
        assert from_json(frame[0]) == {"ask": "status"}
        assert decoder.next_frame() is None, "once"
        send_blocking(ours, to_pickle(("status", {"workers": []})))
        worker._line.doRead()
        assert told == [{"workers": []}, {"workers": []}]

        worker.query_status().addBoth(told.append)
        clock.advance(STATUS_PATIENCE)
        assert isinstance(told[2].value, MailError)
        # What comes too late is nobody's, and the next question is asked anew.
        send_blocking(ours, to_pickle(("status", {"late": True})))
        worker._line.doRead()
        assert len(told) == 3
    finally:
        worker.close()
        for one in (ours, receive, send):
            one.close()
