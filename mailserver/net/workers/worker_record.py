"""One worker as the master knows it: its record, and the requests to it, each with a number and a time limit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from attrs import define
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from mailserver.net.ipc.message_schema import MAX_ITEMS, Json
from mailserver.net.ipc.worker_messages import Reply, ReplyPart, RequestFailed

Result: TypeAlias = Json | RequestFailed
"""The body of a reply; RequestFailed where the worker says so; None where it does not reply in time, or has ended."""


class PendingRequests:
    """The requests to one worker that have no reply yet."""

    def __init__(self, clock: IReactorTime, numbers: itertools.count[int]) -> None:
        self._clock = clock
        self._numbers = numbers
        self._pending: dict[int, Deferred[Result]] = {}
        self._parts: dict[int, list[Json]] = {}
        """Rows that have come of a result, by the number of the request."""

    def add(self, send: Callable[[int], None], seconds: float) -> Deferred[Result]:
        """Call `send(number of the request)`, and wait for its reply so long. Never fails."""
        number = next(self._numbers)
        result: Deferred[Result] = Deferred()
        self._pending[number] = result

        def give_up() -> None:
            self._pending.pop(number, None)
            result.callback(None)

        timer = self._clock.callLater(seconds, give_up)

        def settle(reply: Result) -> Result:
            self._pending.pop(number, None)
            self._parts.pop(number, None)
            if timer.active():
                timer.cancel()
            return reply

        result.addCallback(settle)
        send(number)
        return result

    def add_part(self, part: ReplyPart) -> None:
        """Keep the first rows of a result; those that come too late are dropped."""
        if part.request not in self._pending:
            return
        rows = self._parts.setdefault(part.request, [])
        if len(rows) + len(part.rows) > MAX_ITEMS:
            self.settle(RequestFailed(part.request, f"the answer has more than {MAX_ITEMS} rows"))
        else:
            rows += part.rows

    def settle(self, reply: Reply | RequestFailed) -> None:
        """Take a reply; one that comes too late is dropped."""
        rows = self._parts.pop(reply.request, [])
        pending = self._pending.pop(reply.request, None)
        if pending is None:
            return
        if isinstance(reply, RequestFailed):
            pending.callback(reply)
        else:
            pending.callback([*rows, *reply.body] if rows and isinstance(reply.body, list) else reply.body)

    def cancel_all(self) -> None:
        """The worker has ended: no reply comes."""
        for pending in tuple(self._pending.values()):
            pending.callback(None)


class Process(Protocol):
    """A worker's process and the connection to it, as the supervisor uses them."""

    def send(self, body: object, sockets: Sequence[Any] = ()) -> None:
        """Send a message; it is dropped if the process is dead."""

    def kill(self) -> None:
        """Send SIGKILL; `Supervisor.worker_ended` is called as for any other end."""


@define(eq=False)
class WorkerRecord:
    """The supervisor's record of one worker."""

    shard: int
    number: int
    process: Process
    requests: PendingRequests
    begun: float
    heard: float
    """When its last message came."""
    since: float
    """Unix time of its start."""
    ready: float = 0.0
    pid: int = 0
    state: Literal["starting", "serving", "retiring"] = "starting"
    sessions: int = 0
    memory: int = 0
    replaces: WorkerRecord | None = None
    """Retires when this one is ready."""
    retire_until: float = 0.0
    killed: bool = False
    status_requested: bool = False
    """It has asked for the status of all workers, and has no answer yet."""


def gather(results: Mapping[int, Deferred[Any]]) -> Deferred[dict[int, Any]]:
    """Wait for the results of several workers, by worker number."""
    workers = list(results)
    return DeferredList(list(results.values())).addCallback(
        lambda replies: dict(zip(workers, [reply for _ok, reply in replies], strict=True))
    )
