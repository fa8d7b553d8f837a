"""A worker's end of its connection to the master, and what it knows of the other workers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from mailserver.errors import MailError
from mailserver.net.ipc.frames import MAX_JSON, MAX_PICKLE, FrameSocket, from_pickle
from mailserver.net.ipc.master_messages import (
    BansChanged,
    KnownNetworksTable,
    Order,
    PeerBroadcast,
    Query,
    SocketsAhead,
    StatusReply,
    WorkerGone,
    WorkerInit,
    WorkerJoined,
)
from mailserver.net.ipc.message_schema import BadMessage, Json, structure_text, to_text
from mailserver.net.ipc.open_mailbox_table import OpenMailboxTable
from mailserver.net.ipc.server_link import B
from mailserver.net.ipc.worker_messages import (
    BROADCASTS,
    Broadcast,
    BroadcastBody,
    Heartbeat,
    Reply,
    ReplyPart,
    RequestFailed,
    StatusRequest,
    WorkerMessage,
    encode_worker_message,
)
from mailserver.net.log.events import log

ROWS_AT_ONCE = 1000
"""Rows of a result in one frame."""
STATUS_TIMEOUT = 5.0
"""Seconds for which the master's StatusReply is waited for; the master itself waits for the workers."""
_KINDS: dict[type[Any], str] = {message_class: kind for kind, message_class in BROADCASTS.items()}


class CannotObey(Exception):
    """An order cannot be carried out; the text says why."""


class WorkerLink:
    """A worker's link to the rest of the server; implements `ServerLink`."""

    def __init__(self, init: WorkerInit, reactor: Any, lost: Callable[[], None]) -> None:
        """`lost()` is called when the master has gone."""
        self.number = init.worker
        self.poke_receive = init.poke_receive
        self.penalty_key = init.penalty_key
        self.known_key = init.known_key
        self.open_mailboxes = OpenMailboxTable(init.open_mailboxes, init.worker)
        self.open_mailboxes.clear()
        self._poke_sockets = init.poke_send
        self._peers = {worker: init.poke_send[worker] for worker in init.living}
        self._muted: set[int] = set()
        """Peers muted after a malformed message."""
        self._receivers: dict[str, Callable[[int, Any], None]] = {}
        self._joined: list[Callable[[int], None]] = []
        self._gone: list[Callable[[int], None]] = []
        self._answers: dict[str, Callable[[Json], Deferred[Json]]] = {}
        self._orders: dict[str, Callable[[Any, list[int]], Deferred[Any]]] = {}
        self._load_known_networks: Callable[[bytes], None] = lambda _table: None
        self._change_bans: Callable[[Sequence[tuple[int, float]]], None] = lambda _changes: None
        self._status_requests: list[Deferred[dict[str, Json]]] = []
        self._reactor = reactor
        self._sockets_ahead: list[int] = []
        """Descriptors of the next order that came ahead of it."""
        self._master = FrameSocket(reactor, init.master, self._receive, lost, longest=MAX_PICKLE)
        for one in (self.poke_receive, *self._poke_sockets.values()):
            one.setblocking(False)

    @property
    def poke_send(self) -> Mapping[int, socket.socket]:
        """The sockets of the other living workers."""
        return self._peers

    def broadcast(self, message: BroadcastBody) -> None:
        """Send a message to the other workers, through the master."""
        if self._peers:
            self.report(Broadcast(_KINDS[type(message)], to_text(message)))

    def on_broadcast(self, message_class: type[B], receive: Callable[[int, B], None]) -> None:
        """Receive other workers' messages of a class."""
        self._receivers[_KINDS[message_class]] = receive

    def on_joined(self, call: Callable[[int], None]) -> None:
        """Call when another worker begins."""
        self._joined.append(call)

    def on_gone(self, call: Callable[[int], None]) -> None:
        """Call when another worker has ended."""
        self._gone.append(call)

    def on_query(self, name: str, answer: Callable[[Json], Deferred[Json]]) -> None:
        """Answer queries of the master."""
        self._answers[name] = answer

    def on_known_networks(self, load: Callable[[bytes], None]) -> None:
        """Load the master's table."""
        self._load_known_networks = load

    def on_bans(self, apply: Callable[[Sequence[tuple[int, float]]], None]) -> None:
        """Apply changes of the master's bans."""
        self._change_bans = apply

    def query_status(self) -> Deferred[dict[str, Json]]:
        """Ask the master for the status of all workers; requests that meet share one answer."""
        if not self._status_requests:
            self.report(StatusRequest())
        requested: Deferred[dict[str, Json]] = Deferred()
        self._status_requests.append(requested)

        def give_up(_answer: object, _seconds: float) -> NoReturn:
            if requested in self._status_requests:
                self._status_requests.remove(requested)
            raise MailError("the numbers of the workers did not come in time")

        return requested.addTimeout(STATUS_TIMEOUT, self._reactor, give_up)

    # --- For the worker alone

    def on_order(self, name: str, obey: Callable[[Any, list[int]], Deferred[Any]]) -> None:
        """Carry out orders of the master by `obey(body, descriptors)`, whose result is the reply. Raises: CannotObey."""
        self._orders[name] = obey

    def report(self, message: WorkerMessage) -> None:
        """Send a message to the master."""
        self._master.send(encode_worker_message(message))

    def send_heartbeat(self, message: Heartbeat) -> None:
        """Send a sign of life, unless the master has not yet read the last one: a stopped master gets no pile of them."""
        if not self._master.waiting:
            self.report(message)

    def close(self) -> None:
        """Close the connection."""
        self._master.close()

    # --- Inside

    def _receive(self, frame: bytes, descriptors: list[int]) -> None:
        match from_pickle(frame):
            case PeerBroadcast(worker, kind, body):
                if worker in self._peers and worker not in self._muted:
                    self._receive_broadcast(worker, kind, body)
            case KnownNetworksTable(table):
                self._load_known_networks(table)
            case BansChanged(changes):
                self._change_bans(changes)
            case WorkerJoined(worker):
                self._peers[worker] = self._poke_sockets[worker]
                for call in self._joined:
                    call(worker)
            case WorkerGone(worker):
                self._peers.pop(worker, None)
                self._muted.discard(worker)
                for call in self._gone:
                    call(worker)
            case StatusReply(status):
                requests, self._status_requests = self._status_requests, []
                for requested in requests:
                    requested.callback(status)
            case Query(request, name, body):
                self._answer(request, name, body)
            case Order(request, name, body):
                ahead, self._sockets_ahead = self._sockets_ahead, []
                self._reply(request, name, maybeDeferred(self._orders[name], body, [*ahead, *descriptors]))
            case SocketsAhead():
                self._sockets_ahead += descriptors

    def _receive_broadcast(self, worker: int, kind: str, body: str) -> None:
        """Validate and pass on. The master has parsed nothing of it; a peer that was taken over must not end others."""
        message_class = BROADCASTS.get(kind)
        if message_class is None:
            self._mute(worker, "a message of unknown kind")
            return
        try:
            message = structure_text(body, message_class)
            if kind in self._receivers:
                self._receivers[kind](worker, message)
        except (BadMessage, ValueError) as error:
            self._mute(worker, f"a malformed message ({kind}: {error})")
        except Exception:
            log.failure("a message of worker {worker} cannot be handled", event="bug", worker=worker, kind=kind)
            self._mute(worker, f"a message ({kind}) that cannot be handled")

    def _mute(self, worker: int, reason: str) -> None:
        self._muted.add(worker)
        log.error(
            "worker {worker} sent {reason}; it is ignored from now on",
            event="worker-ignored",
            worker=worker,
            reason=reason,
        )

    def _answer(self, request: int, name: str, body: Json) -> None:
        answer = self._answers.get(name)
        if answer is None:
            self.report(RequestFailed(request, "not known here"))
        else:
            self._reply(request, name, maybeDeferred(answer, body))

    def _reply(self, request: int, name: str, result: Deferred[Any]) -> None:
        def done(body: Any) -> None:
            if isinstance(body, list):
                while len(body) > ROWS_AT_ONCE:
                    self.report(ReplyPart(request, tuple(body[:ROWS_AT_ONCE])))
                    body = body[ROWS_AT_ONCE:]
            frame = encode_worker_message(Reply(request, body))
            if len(frame) > MAX_JSON:
                # The master would close the connection.
                frame = encode_worker_message(RequestFailed(request, "the answer is too long, ask for less"))
            self._master.send(frame)

        def failed(failure: Failure) -> None:
            if failure.check(CannotObey):
                self.report(RequestFailed(request, failure.getErrorMessage()))
                return
            log.failure("the request {query} of the master has failed", failure, event="bug", query=name)
            self.report(RequestFailed(request, "internal error, see the log"))

        result.addCallback(done).addErrback(failed)
