"""The administrator's questions to all processes that serve: who, kick, users, status. Their answers are made one.

A process that does not answer in time is shown as such; nobody waits for it longer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mailserver.net.admin.control_socket import Arguments, BadRequest, Command, DataAnswer
from mailserver.net.admin.sessions import Sessions
from mailserver.net.admin.status import Status
from mailserver.net.ipc.event_counters import EventCounters, EventTotals
from mailserver.net.ipc.message_schema import Json, are_sessions, is_status
from mailserver.net.ipc.server_link import WorkerPool
from mailserver.net.listeners.binding import Port
from mailserver.net.log.events import log

PATIENCE = 2.0
"""Seconds for which a process is waited for."""
USERS_PATIENCE = 15.0
"""Seconds for which a process is waited for that reads a users file, which may be large."""
LONGEST_REASON = 200
DEFAULT_REASON = "the administrator has ended this session"

OLD_KEYS: Final = {"seat": "worker", "slot": "shard"}
"""Keys of a worker in `status`: the one of the release before, which stays for one release -> the present one."""

Answering = Callable[[Json], Deferred[Json]]


def answers(
    ports: Callable[[], Iterable[Port]],
    parts: Callable[[], dict[str, Json]],
    take_up_users: Callable[[], Deferred[None]],
    event_counters: EventCounters,
    clock: IReactorTime,
) -> dict[str, Answering]:
    """What each process that serves answers: for `ServerLink.on_query`, or for `SingleProcess`. `parts`: what those tell of themselves."""
    sessions = Sessions(ports, clock)

    def users(asked: Json) -> Deferred[Json]:
        """Read the users again, then end sessions as `kick` does, if {"target", "reason"} are asked for."""
        reading = take_up_users()
        # Behind the reading: who is ended could log in once more with what was changed.
        return reading.addCallback(lambda _none: [] if asked is None else sessions.kick(asked))

    return {
        "who": sessions.who,
        "kick": sessions.kick,
        "users": users,
        "status": Status(ports, parts, event_counters).status,
    }


class SingleProcess:
    """A `WorkerPool` where one process does everything: it asks itself."""

    def __init__(self, answers: Mapping[str, Answering]) -> None:
        self._answers = answers
        self._since = time.time()
        self.totals = EventTotals()
        self.restarts = 0
        self.exposures: Callable[[], int] = lambda: 0
        self.renewals: Callable[[], list[Json]] = list

    def ask(self, what: str, body: Json, seconds: float = PATIENCE) -> Deferred[dict[int, Json]]:  # noqa: ARG002
        """The answer of worker 0."""

        def fail(failure: Failure) -> Json:
            log.failure("the query {query} has failed", failure, event="bug", query=what)
            return {"error": "internal error, see the log"}

        answer: Deferred[Any] = maybeDeferred(self._answers[what], body)
        return answer.addErrback(fail).addCallback(lambda told: {0: told})

    def workers(self) -> list[dict[str, Json]]:
        """Itself."""
        return [{"worker": 0, "pid": os.getpid(), "since": self._since, "state": "serving"}]


class AdminQueries:
    """The commands, for the control socket."""

    def __init__(self, worker_pool: WorkerPool) -> None:
        self._worker_pool = worker_pool

    def commands(self) -> dict[str, Command]:
        """By name."""
        return {"who": self.who, "kick": self.kick, "users": self.users, "status": self.status}

    def who(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """{"user": str, "protocol": str}, each may be left out -> the sessions of all, each with its "worker"."""
        _check(arguments, {"user", "protocol"})
        asked: Json = {"user": arguments.get("user"), "protocol": arguments.get("protocol")}

        def merge(answers: dict[int, Json]) -> DataAnswer:
            rows = [
                {**row, "worker": worker}
                for worker, answer in sorted(answers.items())
                if are_sessions(answer)
                for row in answer
            ]
            rows.sort(key=lambda row: cast("int", row["since"]))
            silent = self._silent(answers, are_sessions)
            return DataAnswer(cast("Json", rows), ok=not silent, lines=silent)

        return self._worker_pool.ask("who", asked, PATIENCE).addCallback(merge)

    def kick(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """{"target": user or session id, "reason": str, may be left out} -> the sessions that go. Raises: BadRequest."""
        _check(arguments, {"target", "reason"})
        target, reason = arguments.get("target"), arguments.get("reason", DEFAULT_REASON)
        if not target:
            raise BadRequest("kick takes a target: a user or a session id")
        if not is_reason(reason):
            raise BadRequest(f"a reason has 1 to {LONGEST_REASON} printable ASCII characters and begins with no [")

        asked: Json = {"target": target, "reason": reason}
        return self._worker_pool.ask("kick", asked, PATIENCE).addCallback(self._ended_sessions)

    def users(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """Have all read the users again; {"user": str, "reason": str}, may be left out: and end that user's sessions.

        Returns the sessions that go. Raises: BadRequest.
        """
        _check(arguments, {"user", "reason"})
        user, reason = arguments.get("user"), arguments.get("reason", DEFAULT_REASON)
        if not is_reason(reason):
            raise BadRequest(f"a reason has 1 to {LONGEST_REASON} printable ASCII characters and begins with no [")
        asked: Json = {"target": user, "reason": reason} if user else None
        return self._worker_pool.ask("users", asked, USERS_PATIENCE).addCallback(self._ended_sessions)

    def _ended_sessions(self, answers: dict[int, Json]) -> DataAnswer:
        ended = [each for answer in answers.values() if are_sessions(answer) for each in answer]
        silent = self._silent(answers, are_sessions)
        return DataAnswer(cast("Json", ended), ok=not silent, lines=silent)

    def status(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """Listeners, certificates and counts, which all have in common, and each worker's numbers."""
        _check(arguments, set())

        def merge(answers: dict[int, Json]) -> DataAnswer:
            listeners: dict[str, dict[str, Any]] = {}
            certificates: Json = []
            workers = []
            known = {cast("int", each["worker"]): each for each in self._worker_pool.workers()}
            for worker in sorted(known.keys() | answers.keys()):
                answer = answers.get(worker)
                told: dict[str, Any] = dict(answer) if is_status(answer) else {}
                for listener in cast("list[dict[str, Any]]", told.pop("listeners", [])):
                    before = listeners.get(listener["place"], {"connections": 0})
                    connections = before["connections"] + listener["connections"]
                    listeners[listener["place"]] = {**listener, "connections": connections}
                certificates = told.pop("certificates", None) or certificates
                self._worker_pool.totals.take(worker, told.pop("event_counters", None))
                known_of_it: dict[str, Json] = known.get(worker, {"worker": worker})
                own: dict[str, Json] = {
                    key: known_of_it[key] for key in ("worker", "shard", "state") if key in known_of_it
                }
                for old, new in OLD_KEYS.items():
                    if new in known_of_it:
                        own[old] = known_of_it[new]
                workers.append({**known_of_it, **told, **own, "answers": bool(told)})
            counted = cast("Json", self._worker_pool.totals.rows())
            return DataAnswer(
                {
                    "pid": os.getpid(),
                    "listeners": cast("Json", list(listeners.values())),
                    "certificates": certificates,
                    "workers": cast("Json", workers),
                    "restarts": self._worker_pool.restarts,
                    "exposures": self._worker_pool.exposures(),
                    "acme": self._worker_pool.renewals(),
                    "event_counters": counted,
                    "tally": counted,
                },
                ok=not (silent := self._silent(answers, is_status)),
                lines=silent,
            )

        return self._worker_pool.ask("status", None, PATIENCE).addCallback(merge)

    def numbers(self) -> Deferred[Any]:
        """`status`, for a process that asks: the data alone."""
        return self.status({}).addCallback(lambda told: told.data)

    def _silent(self, answers: Mapping[int, Json], is_good: Callable[[Json], bool]) -> tuple[str, ...]:
        """One line for each that did not answer, or not with what is expected."""
        pids = {each["worker"]: each["pid"] for each in self._worker_pool.workers()}
        lines = []
        for worker, answer in sorted(answers.items()):
            who = f"worker {worker} (pid {pids.get(worker, 'unknown')})"
            if answer is None:
                lines.append(f"{who} does not answer")
            elif isinstance(answer, dict) and isinstance(answer.get("error"), str):
                lines.append(f"{who}: {answer['error']}")
            elif not is_good(answer):
                lines.append(f"{who} answers nonsense")
        return tuple(lines)


def is_reason(reason: str) -> bool:
    """Can it stand in a farewell of every protocol?"""
    fits = 0 < len(reason) <= LONGEST_REASON and reason.isascii() and reason.isprintable()
    return fits and bool(reason.strip()) and not reason.lstrip().startswith("[")


def _check(arguments: Arguments, known: set[str]) -> None:
    """Raises: BadRequest for an argument that is not known, or no text."""
    for name, value in arguments.items():
        if name not in known:
            raise BadRequest(f"no such argument: {name[:40]}; known: {', '.join(sorted(known)) or 'none'}")
        if not isinstance(value, str):
            raise BadRequest(f"{name} must be a text")
