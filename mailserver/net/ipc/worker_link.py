"""A worker's `ServerLink`: what passes over its line to the master, and who else is there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from mailserver.errors import MailError
from mailserver.net.ipc.frames import MAX_JSON, MAX_PICKLE, FrameSocket, from_pickle, to_json
from mailserver.net.ipc.ipc_messages import WorkerInit
from mailserver.net.ipc.message_schema import Json
from mailserver.net.log.events import log

STATUS_PATIENCE = 5.0
"""Seconds for which the master is waited for, which itself waits for the workers."""


class WorkerLink:
    """One worker's place among the others; implements `ServerLink`."""

    def __init__(self, init: WorkerInit, reactor: Any, lost: Callable[[], None]) -> None:
        """`lost()`: the master has gone."""
        self.number = init.worker
        self.poke_receive = init.poke_receive
        self.penalty_key = init.penalty_key
        self.known_key = init.known_key
        self._sending = init.poke_send
        self._peers = {worker: init.poke_send[worker] for worker in init.living}
        self._nonsense: set[int] = set()
        """Who has told what nobody could take."""
        self._takers: dict[str, Callable[[int, Json], None]] = {}
        self._joined: list[Callable[[int], None]] = []
        self._gone: list[Callable[[int], None]] = []
        self._answers: dict[str, Callable[[Json], Deferred[Json]]] = {}
        self._orders: dict[str, Callable[[Any, list[int]], Deferred[Json]]] = {}
        self._take_known: Callable[[bytes], None] = lambda _table: None
        self._asking: list[Deferred[dict[str, Json]]] = []
        self._reactor = reactor
        self._ahead: list[int] = []
        """Descriptors of the next order that came ahead of it."""
        self._line = FrameSocket(reactor, init.line, self._take, lost, longest=MAX_PICKLE)
        for one in (self.poke_receive, *self._sending.values()):
            one.setblocking(False)

    @property
    def poke_send(self) -> Mapping[int, socket.socket]:
        """The living others."""
        return self._peers

    def tell(self, kind: str, body: Json) -> None:
        """To the others, through the master."""
        if self._peers:
            self._line.send(to_json({"tell": kind, "body": body}))

    def on(self, kind: str, take: Callable[[int, Json], None]) -> None:
        """Take what others tell."""
        self._takers[kind] = take

    def on_joined(self, take: Callable[[int], None]) -> None:
        """Hear of others that begin."""
        self._joined.append(take)

    def on_gone(self, take: Callable[[int], None]) -> None:
        """Hear of others that have ended."""
        self._gone.append(take)

    def on_query(self, what: str, answer: Callable[[Json], Deferred[Json]]) -> None:
        """Answer the master."""
        self._answers[what] = answer

    def report_seen(self, rows: Json) -> None:
        """To the master's ledger."""
        self.report({"seen": rows})

    def report_known(self, rows: Json) -> None:
        """To the master's file."""
        self.report({"known": rows})

    def on_known(self, take: Callable[[bytes], None]) -> None:
        """Take the master's table."""
        self._take_known = take

    def report_exposed(self, mark: Json) -> None:
        """To the master's record."""
        self.report({"exposed": mark})

    def query_status(self) -> Deferred[dict[str, Json]]:
        """The master asks all workers; whoever asks while it does gets the same answer."""
        if not self._asking:
            self.report({"ask": "status"})
        asked: Deferred[dict[str, Json]] = Deferred()
        self._asking.append(asked)

        def give_up(_answer: object, _seconds: float) -> NoReturn:
            if asked in self._asking:
                self._asking.remove(asked)
            raise MailError("the numbers of the workers did not come in time")

        return asked.addTimeout(STATUS_PATIENCE, self._reactor, give_up)

    # --- Between worker and master alone

    def on_order(self, what: str, obey: Callable[[Any, list[int]], Deferred[Json]]) -> None:
        """Do what the master orders, `obey(body, descriptors)`; its result is told."""
        self._orders[what] = obey

    def report(self, body: Json) -> None:
        """Tell the master."""
        self._line.send(to_json(body))

    def beat(self, body: Json) -> None:
        """Tell the master unless it does not listen: one that stands still gets no pile of them."""
        if not self._line.waiting:
            self._line.send(to_json(body))

    def close(self) -> None:
        """Give up the line."""
        self._line.close()

    # --- Inside

    def _take(self, frame: bytes, descriptors: list[int]) -> None:
        match from_pickle(frame):
            case ("told", worker, kind, body):
                take = self._takers.get(kind)
                if take is not None and worker in self._peers and worker not in self._nonsense:
                    self._take_told(take, worker, body)
            case ("known", table):
                self._take_known(table)
            case ("joined", worker):
                self._peers[worker] = self._sending[worker]
                for hear in self._joined:
                    hear(worker)
            case ("gone", worker):
                self._peers.pop(worker, None)
                self._nonsense.discard(worker)
                for hear in self._gone:
                    hear(worker)
            case ("status", status):
                asking, self._asking = self._asking, []
                for asked in asking:
                    asked.callback(status)
            case ("ask", number, what, body):
                self._answer(number, what, body)
            case ("order", number, what, body):
                ahead, self._ahead = self._ahead, []
                self._finish(number, what, maybeDeferred(self._orders[what], body, [*ahead, *descriptors]))
            case "sockets":
                self._ahead += descriptors

    def _take_told(self, take: Callable[[int, Json], None], worker: int, body: Json) -> None:
        """The master passes on what it has not judged; a worker that was taken over is no reason for another to end."""
        try:
            take(worker, body)
        except Exception:
            log.failure(
                "worker {worker} has sent an invalid message and is ignored from now on",
                event="worker-ignored",
                worker=worker,
            )
            self._nonsense.add(worker)

    def _answer(self, number: int, what: str, body: Json) -> None:
        answer = self._answers.get(what)
        if answer is None:
            self.report({"answer": number, "error": "not known here"})
        else:
            self._finish(number, what, maybeDeferred(answer, body))

    def _finish(self, number: int, what: str, result: Deferred[Json]) -> None:
        def done(body: Json) -> None:
            frame = to_json({"answer": number, "body": body})
            if len(frame) > MAX_JSON:
                # The master would take it for the end of this worker.
                frame = to_json({"answer": number, "error": "the answer is too long, ask for less"})
            self._line.send(frame)

        def failed(failure: Failure) -> None:
            log.failure("the query {query} of the master has failed", failure, event="bug", query=what)
            self.report({"answer": number, "error": "internal error, see the log"})

        result.addCallback(done).addErrback(failed)
