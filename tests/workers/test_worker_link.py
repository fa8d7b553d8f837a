"""A worker's end of its line to the master."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from mailserver.auth.throttling.known_networks import KnownNetworks
from mailserver.auth.throttling.penalties import Penalties
from mailserver.config.model import Limits
from mailserver.errors import MailError
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.net.ipc.frames import MAX_DESCRIPTORS, MAX_JSON, Decoder, read_some, send_blocking, to_pickle
from mailserver.net.ipc.master_messages import (
    Order,
    PeerBroadcast,
    Query,
    StatusReply,
    WorkerGone,
    WorkerInit,
    WorkerJoined,
)
from mailserver.net.ipc.message_schema import MAX_ITEMS, Json
from mailserver.net.ipc.open_mailbox_table import ROW
from mailserver.net.ipc.worker_link import ROWS_AT_ONCE, STATUS_TIMEOUT, WorkerLink
from mailserver.net.ipc.worker_messages import (
    ExposureTaken,
    Reply,
    ReplyPart,
    RequestFailed,
    StatusRequest,
    WorkerMessage,
    decode_worker_message,
)
from mailserver.net.serving.state_sync import ConnectionCountSync, KnownNetworkSync, PenaltySync
from mailserver.net.workers.worker_record import PendingRequests, Result
from mailserver.net.workers.zygote_process import WorkerProcess


class Reactor:
    """Nothing happens by itself."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments: None


class Turned(Clock):
    """A clock that tests turn; else as above."""

    def addReader(self, _reader: Any) -> None:
        """Nobody reads by itself."""

    removeReader = addWriter = removeWriter = addReader  # noqa: N815


def init(master: socket.socket, receive: socket.socket) -> WorkerInit:
    return WorkerInit(
        served=None,  # type: ignore[arg-type]
        shards=1,
        shard=0,
        worker=0,
        living=(),
        penalty_key=b"k" * 32,
        tls=None,
        process_log=None,  # type: ignore[arg-type]
        master=master,
        listening={},
        mail_root=None,
        known_key=b"n" * 32,
        poke_receive=receive,
        poke_send={},
        open_mailboxes=bytearray(4 * ROW),
    )


def test_an_answer_that_the_master_would_not_take_is_an_error_and_not_the_end() -> None:
    ours, theirs = socket.socketpair()
    receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    link = WorkerLink(init(theirs, receive), Reactor(), lambda: None)
    long: Json = ["x" * MAX_JSON]
    link.on_query("long", lambda _body: succeed(long))
    link.on_query("short", lambda _body: succeed(["x"]))
    decoder = Decoder(MAX_JSON)
    try:
        for number, what in ((1, "long"), (2, "short")):
            send_blocking(ours, to_pickle(Query(number, what, None)))
            link._master.doRead()
        told = []
        ours.settimeout(10)
        while len(told) < 2:
            decoder.receive(*read_some(ours))
            while (frame := decoder.next_frame()) is not None:
                told.append(decode_worker_message(frame[0]))
        assert told == [
            RequestFailed(1, "the answer is too long, ask for less"),
            Reply(2, ["x"]),
        ]
    finally:
        link.close()
        for one in (ours, receive, send):
            one.close()


@pytest.mark.parametrize(
    "nonsense",
    [
        ("connection counts", "5"),
        ("connection counts", '{"counts": 5}'),
        ("connection counts", '{"counts": ['),
        ("connection counts", "[" * 10_000),
        ("no such kind", "null"),
        ("penalties", '{"news": [["failed"]]}'),
        ("networks known", '{"rows": [["x", 1]]}'),
    ],
)
def test_a_peer_is_muted_after_a_malformed_message_and_ends_no_worker(nonsense: tuple[str, str]) -> None:
    ours, theirs = socket.socketpair()
    receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ended: list[None] = []
    link = WorkerLink(init(theirs, receive), Reactor(), lambda: ended.append(None))
    link._poke_sockets = {1: send, 2: send}  # type: ignore[assignment]
    counts = ConnectionCounts(Limits())
    ConnectionCountSync(link, Clock(), counts)
    PenaltySync(link, Penalties(lambda: 0.0))
    KnownNetworkSync(link, KnownNetworks())
    received: list[tuple[int, str]] = []
    link.on_broadcast(ExposureTaken, lambda worker, message: received.append((worker, message.key[0])))
    with capturedLogs() as logged:
        for body in (
            WorkerJoined(1),
            WorkerJoined(2),
            PeerBroadcast(1, *nonsense),
            PeerBroadcast(1, "connection counts", '{"counts": [[[], "many"]]}'),
            PeerBroadcast(1, "exposure taken", '{"key": ["lost", "", ""]}'),
            PeerBroadcast(2, "exposure taken", '{"key": ["heard", "", ""]}'),
            WorkerGone(1),
            WorkerJoined(1),
            PeerBroadcast(1, "exposure taken", '{"key": ["another now", "", ""]}'),
        ):
            send_blocking(ours, to_pickle(body))
            link._master.doRead()
    assert received == [(2, "heard"), (1, "another now")]
    assert len(logged) == 1
    assert ended == []
    link.close()
    for one in (ours, receive, send):
        one.close()


def test_a_long_list_comes_in_parts() -> None:
    """So that no frame takes the master long."""
    ours, theirs = socket.socketpair()
    receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    clock = Clock()
    link = WorkerLink(init(theirs, receive), Reactor(), lambda: None)
    pending = PendingRequests(clock, itertools.count(1))
    parts: list[int] = []

    def take(message: WorkerMessage) -> None:
        if isinstance(message, ReplyPart):
            parts.append(len(message.rows))
            pending.add_part(message)
        else:
            assert isinstance(message, Reply)
            pending.settle(message)

    process = WorkerProcess(Reactor(), ours, take, lambda _reason: None, lambda: None)
    replies: list[Any] = []
    rows: Json = list(range(2 * ROWS_AT_ONCE + 5))
    link.on_query("who", lambda _body: succeed(rows))
    try:
        pending.add(lambda request: process.send(Query(request, "who", None)), 5.0).addCallback(replies.append)
        while not replies:
            link._master.doRead()
            link._master.doWrite()
            process._socket.doRead()
        assert replies == [rows]
        assert parts == [ROWS_AT_ONCE, ROWS_AT_ONCE]
    finally:
        link.close()
        process._socket.close()
        for one in (receive, send):
            one.close()


def test_the_parts_of_a_list_are_bounded_and_forgotten() -> None:
    clock = Clock()
    pending = PendingRequests(clock, itertools.count(1))
    results: list[Result] = []
    for _ in range(3):
        pending.add(lambda _request: None, 5.0).addCallback(results.append)
    part = tuple(range(5000))
    for _ in range(MAX_ITEMS // len(part) + 1):
        pending.add_part(ReplyPart(1, part))
    assert results == [RequestFailed(1, "the answer has more than 100000 rows")]
    pending.add_part(ReplyPart(2, part))
    pending.settle(RequestFailed(2, "no"))
    assert results[1:] == [RequestFailed(2, "no")]
    pending.add_part(ReplyPart(3, part))
    clock.advance(5.0)
    assert results[2:] == [None]
    pending.add_part(ReplyPart(3, part))
    pending.settle(Reply(3, []))
    assert pending._parts == {}


def test_an_order_has_more_sockets_than_fit_beside_one_frame() -> None:
    ours, theirs = socket.socketpair()
    receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    link = WorkerLink(init(theirs, receive), Reactor(), lambda: None)
    process = WorkerProcess(Reactor(), ours, lambda _message: None, lambda _reason: None, lambda: None)
    got: list[list[int]] = []

    def obey(_body: object, descriptors: list[int]) -> Deferred[Json]:
        got.append([os.fstat(number).st_ino for number in descriptors])
        for number in descriptors:
            os.close(number)
        return succeed(None)

    link.on_order("prepare", obey)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2 * MAX_DESCRIPTORS + 50)]
        try:
            for number, passed in ((1, sockets), (2, sockets[:1]), (3, [])):
                process.send(Order(number, "prepare", None), passed)
            for _ in range(20):
                process._socket.doWrite()
                link._master.doRead()
        finally:
            link.close()
            process._socket.close()
            receive.close()
            send.close()
        names = [os.fstat(each.fileno()).st_ino for each in sockets]
        assert got == [names, names[:1], []]


def test_who_asks_for_the_status_while_it_is_asked_for_gets_the_same_answer() -> None:
    ours, theirs = socket.socketpair()
    receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    clock = Turned()
    link = WorkerLink(init(theirs, receive), clock, lambda: None)
    told: list[Any] = []
    try:
        for _ in range(2):
            link.query_status().addBoth(told.append)
        ours.settimeout(10)
        decoder = Decoder(MAX_JSON)
        decoder.receive(*read_some(ours))
        frame = decoder.next_frame()
        assert frame is not None
        assert decode_worker_message(frame[0]) == StatusRequest()
        assert decoder.next_frame() is None, "once"
        send_blocking(ours, to_pickle(StatusReply({"workers": []})))
        link._master.doRead()
        assert told == [{"workers": []}, {"workers": []}]

        link.query_status().addBoth(told.append)
        clock.advance(STATUS_TIMEOUT)
        assert isinstance(told[2].value, MailError)
        # What comes too late is nobody's, and the next question is asked anew.
        send_blocking(ours, to_pickle(StatusReply({"late": True})))
        link._master.doRead()
        assert len(told) == 3
    finally:
        link.close()
        for one in (ours, receive, send):
            one.close()
