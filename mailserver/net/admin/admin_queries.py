"""The administrator's queries to all processes that serve: who, kick, users, status; their replies are merged into one.

A process that does not reply in time is shown as such.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from mailserver.net.admin.control_socket import Arguments, BadRequest, Command, DataAnswer
from mailserver.net.admin.sessions import Sessions
from mailserver.net.admin.status import Status
from mailserver.net.ipc.event_counters import EventCounters, EventTotals
from mailserver.net.ipc.message_schema import BadMessage, Json, one_line, structure, unstructure
from mailserver.net.ipc.server_link import QUERY_TIMEOUT, WorkerPool
from mailserver.net.ipc.worker_messages import RequestFailed, SessionRow, WorkerStatus
from mailserver.net.listeners.binding import Port
from mailserver.net.log.events import log

USERS_TIMEOUT = 15.0
"""Seconds for which the reply of a process that reads a users file is waited for; the file may be large."""
LONGEST_REASON = 200
DEFAULT_REASON = "the administrator has ended this session"

OLD_KEYS: Final = {"seat": "worker", "slot": "shard"}
"""Keys of a worker in `status`: the name of the previous release, which stays for one release -> the present name."""

Answering = Callable[[Json], Deferred[Json]]
Replies = Mapping[int, Json | RequestFailed]
T = TypeVar("T")


def answers(
    sessions: Sessions,
    ports: Callable[[], Iterable[Port]],
    service_status: Callable[[], dict[str, Json]],
    reload_users: Callable[[], Deferred[None]],
    event_counters: EventCounters,
) -> dict[str, Answering]:
    """Return the answers of a process that serves, by query, for `ServerLink.on_query` or `SingleProcess`."""

    def users(asked: Json) -> Deferred[Json]:
        """Read the users again, then end sessions as `kick` does, if {"target", "reason"} are given."""
        # In this order: a user whose session ends first could log in once more with the old password.
        return reload_users().addCallback(lambda _none: [] if asked is None else sessions.kick(asked))

    return {
        "who": sessions.who,
        "kick": sessions.kick,
        "users": users,
        "status": Status(ports, service_status, event_counters).status,
    }


class SingleProcess:
    """The `WorkerPool` of a server without workers: this process answers the queries itself."""

    def __init__(self, answers: Mapping[str, Answering]) -> None:
        self._answers = answers
        self._since = time.time()
        self.totals = EventTotals()
        self.restarts = 0
        self.exposures: Callable[[], int] = lambda: 0
        self.bans: Callable[[], int] = lambda: 0
        self.renewals: Callable[[], list[Json]] = list

    def ask(self, name: str, body: Json, seconds: float = QUERY_TIMEOUT) -> Deferred[dict[int, Any]]:  # noqa: ARG002
        """Return the reply of this process, as worker 0."""

        def fail(failure: Failure) -> RequestFailed:
            log.failure("the query {query} has failed", failure, event="bug", query=name)
            return RequestFailed(0, "internal error, see the log")

        reply: Deferred[Any] = maybeDeferred(self._answers[name], body)
        return reply.addErrback(fail).addCallback(lambda found: {0: found})

    def workers(self) -> list[dict[str, Json]]:
        """Return this process as the only worker."""
        return [{"worker": 0, "pid": os.getpid(), "since": self._since, "state": "serving"}]


class AdminQueries:
    """The commands of the control socket that concern all processes which serve."""

    def __init__(self, worker_pool: WorkerPool) -> None:
        self._worker_pool = worker_pool

    def commands(self) -> dict[str, Command]:
        """Return the commands, by name."""
        return {"who": self.who, "kick": self.kick, "users": self.users, "status": self.status}

    def who(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """List the sessions of all workers, each with its "worker". {"user": str, "protocol": str}, both optional."""
        _check(arguments, {"user", "protocol"})
        asked: Json = {"user": arguments.get("user"), "protocol": arguments.get("protocol")}

        def merge(replies: Replies) -> DataAnswer:
            valid, faults = self._validate(replies, tuple[SessionRow, ...])
            rows = [(row, worker) for worker, of_worker in valid.items() for row in of_worker]
            rows.sort(key=lambda row: row[0].since)
            sessions = unstructure([row for row, _worker in rows])
            data: list[Json] = [{**row, "worker": worker} for row, (_row, worker) in zip(sessions, rows, strict=True)]
            return DataAnswer(data, ok=not faults, lines=faults)

        return self._worker_pool.ask("who", asked).addCallback(merge)

    def kick(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """End sessions and list them. {"target": user or session id, "reason": str, optional}. Raises: BadRequest."""
        _check(arguments, {"target", "reason"})
        target, reason = arguments.get("target"), arguments.get("reason", DEFAULT_REASON)
        if not target:
            raise BadRequest("kick takes a target: a user or a session id")
        if not is_reason(reason):
            raise BadRequest(f"a reason has 1 to {LONGEST_REASON} printable ASCII characters and begins with no [")
        return self._worker_pool.ask("kick", {"target": target, "reason": reason}).addCallback(self._ended_sessions)

    def users(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """Read the users again in all processes, and end the sessions of {"user": str, "reason": str}, both optional.

        List the sessions that end. Raises: BadRequest.
        """
        _check(arguments, {"user", "reason"})
        user, reason = arguments.get("user"), arguments.get("reason", DEFAULT_REASON)
        if not is_reason(reason):
            raise BadRequest(f"a reason has 1 to {LONGEST_REASON} printable ASCII characters and begins with no [")
        asked: Json = {"target": user, "reason": reason} if user else None
        return self._worker_pool.ask("users", asked, USERS_TIMEOUT).addCallback(self._ended_sessions)

    def _ended_sessions(self, replies: Replies) -> DataAnswer:
        valid, faults = self._validate(replies, tuple[SessionRow, ...])
        return DataAnswer(unstructure([row for rows in valid.values() for row in rows]), ok=not faults, lines=faults)

    def status(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """Return what all workers have in common (listeners, certificates, counters), and the numbers of each."""
        _check(arguments, set())
        return self._worker_pool.ask("status", None).addCallback(self._merge_status)

    def _merge_status(self, replies: Replies) -> DataAnswer:
        valid, faults = self._validate(replies, WorkerStatus)
        listeners: dict[str, dict[str, Any]] = {}
        certificates: list[Any] = []
        for worker, status in valid.items():
            for listener in status.listeners:
                row = listeners.setdefault(listener.place, {**unstructure(listener), "connections": 0})
                row["connections"] += listener.connections
            certificates = unstructure(status.certificates) or certificates
            self._worker_pool.totals.update(worker, status.event_counters)
        records = {int(str(record["worker"])): record for record in self._worker_pool.workers()}
        event_counters = unstructure(self._worker_pool.totals.rows())
        return DataAnswer(
            {
                "pid": os.getpid(),
                "listeners": list(listeners.values()),
                "certificates": certificates,
                "workers": [
                    _worker_row(records.get(worker, {"worker": worker}), valid.get(worker))
                    for worker in sorted(records.keys() | replies.keys())
                ],
                "restarts": self._worker_pool.restarts,
                "exposures": self._worker_pool.exposures(),
                "bans": self._worker_pool.bans(),
                "acme": self._worker_pool.renewals(),
                "event_counters": event_counters,
                "tally": event_counters,
            },
            ok=not faults,
            lines=faults,
        )

    def numbers(self) -> Deferred[Any]:
        """Return the data of `status`."""
        return self.status({}).addCallback(lambda answer: answer.data)

    def _validate(self, replies: Replies, message_class: type[T]) -> tuple[dict[int, T], tuple[str, ...]]:
        """Return the valid replies by worker number, and a line for each worker without one."""
        pids = {record["worker"]: record["pid"] for record in self._worker_pool.workers()}
        valid, faults = {}, []
        for worker, reply in sorted(replies.items()):
            name = f"worker {worker} (pid {pids.get(worker, 'unknown')})"
            if reply is None:
                faults.append(f"{name} does not answer")
            elif isinstance(reply, RequestFailed):
                faults.append(f"{name}: {one_line(reply.reason)}")
            else:
                try:
                    valid[worker] = structure(reply, message_class)
                except BadMessage as error:
                    faults.append(f"{name} sent a malformed answer: {error}")
        return valid, tuple(faults)


def _worker_row(record: Mapping[str, Json], status: WorkerStatus | None) -> dict[str, Json]:
    """Merge what the master knows of a worker with the worker's status, which may not change its number or state."""
    row = dict(record)
    if status is not None:
        row |= status.measures  # type: ignore[arg-type]  # a tuple becomes a JSON array
        row |= {
            "pid": status.pid,
            "since": status.since,
            "memory": status.memory,
            "descriptors": status.descriptors,
            "descriptors_most": status.descriptors_most,
            "sessions": unstructure(status.sessions),
        }
    row |= {key: record[key] for key in ("worker", "shard", "state") if key in record}
    row |= {old: record[new] for old, new in OLD_KEYS.items() if new in record}
    return {**row, "answers": status is not None}


def is_reason(reason: str) -> bool:
    """Return whether a text is valid in the farewell of every protocol."""
    fits = 0 < len(reason) <= LONGEST_REASON and reason.isascii() and reason.isprintable()
    return fits and bool(reason.strip()) and not reason.lstrip().startswith("[")


def _check(arguments: Arguments, known: set[str]) -> None:
    """Check the arguments. Raises: BadRequest for one that is unknown or not a string."""
    for name, value in arguments.items():
        if name not in known:
            raise BadRequest(f"no such argument: {name[:40]}; known: {', '.join(sorted(known)) or 'none'}")
        if not isinstance(value, str):
            raise BadRequest(f"{name} must be a text")
