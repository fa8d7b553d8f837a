"""A reload, and a change of certificates, with workers: the master's steps, and its reading of the workers' replies.

1. The master checks the configuration (`wiring.reload_check`) and binds what is new.
2. Every worker prepares it, and any of them may refuse: then nothing changes.
3. The zygote takes it, for later workers; every worker commits it. A worker that does not say so is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from mailserver.net.ipc.master_messages import CertificatesChanged, CloseListeners, PrepareReload, ServedConfig
from mailserver.net.ipc.message_schema import BadMessage, one_line, structure
from mailserver.net.ipc.worker_messages import CommitResult, PrepareResult, RequestFailed
from mailserver.net.listeners.binding import places
from mailserver.net.listeners.listener_shards import ListenerShards
from mailserver.net.workers.supervisor import Supervisor
from mailserver.net.workers.worker_record import Result, WorkerRecord

PREPARE_TIMEOUT = 30.0
"""Seconds for which a worker's reply to an order of a reload is waited for."""


class Zygotes(Protocol):
    """The present zygote."""

    def send(self, body: object, sockets: Sequence[Any] = ()) -> None:
        """Send it a message."""


class WorkerReload:
    """The orders of reloads to all workers and to the zygote."""

    def __init__(self, supervisor: Supervisor, zygotes: Zygotes, shards: ListenerShards) -> None:
        self._supervisor = supervisor
        self._zygotes = zygotes
        self._shards = shards

    async def prepare(
        self, workers: Sequence[WorkerRecord], served: ServedConfig, new_places: Sequence[str]
    ) -> list[str]:
        """Have these workers prepare a configuration; return the reasons of those that refuse it."""
        replies = self._supervisor.order(
            workers,
            "prepare",
            PrepareReload(served, tuple(new_places)),
            PREPARE_TIMEOUT,
            lambda record: self._shards.of_shard(record.shard, new_places),
        )
        return faults_of(await replies)

    def drop(self, workers: Sequence[WorkerRecord]) -> None:
        """Have these workers drop what they have prepared."""
        self._supervisor.order(workers, "drop", None, PREPARE_TIMEOUT)

    async def commit(
        self, prepared: Sequence[WorkerRecord], served: ServedConfig, new_places: Sequence[str]
    ) -> list[str]:
        """Have the zygote and all workers serve what these workers have prepared; return what was done, in sentences."""
        gone = self._shards.places - {place for listener in served.config.listeners for place in places(listener)}
        for body, sockets in self._shards.frames(set(new_places)):
            self._zygotes.send(body, sockets)
        self._zygotes.send(CloseListeners(tuple(gone)))
        self._zygotes.send(served)
        # Workers that were started meanwhile serve the previous configuration.
        late = tuple(record for record in self._supervisor.records.values() if record not in prepared)
        if late:
            await self.prepare(late, served, new_places)
        workers = self._supervisor.living((*prepared, *late))
        replies = await self._supervisor.order(workers, "commit", None, PREPARE_TIMEOUT)
        for bound in self._shards.close(gone):
            bound.remove_file()
        return self._replace_failed(workers, replies)

    def change_certificates(self, change: Any) -> Deferred[list[str]]:
        """Have the zygote and all workers serve some other certificates."""
        self._zygotes.send(CertificatesChanged(change))
        # No worker can start in between: a later one is forked by a zygote that has the change.
        workers = tuple(self._supervisor.records.values())
        replies = self._supervisor.order(workers, "certificates", change, PREPARE_TIMEOUT)
        return replies.addCallback(lambda found: self._replace_failed(workers, found))

    def _replace_failed(self, workers: Sequence[WorkerRecord], replies: Mapping[int, Result]) -> list[str]:
        lines, failed = lines_of(replies)
        for record in self._supervisor.living(workers):
            if record.number in failed:
                self._supervisor.replace(record)
        return lines


def faults_of(prepared: Mapping[int, Result]) -> list[str]:
    """Return why some workers refuse to prepare, each reason once. A worker that has died or does not reply refuses nothing."""
    faults: list[str] = []
    for reply in prepared.values():
        if isinstance(reply, RequestFailed):
            faults.append(f"a worker cannot take it up: {one_line(reply.reason)}")
        elif reply is not None:
            try:
                faults += map(one_line, structure(reply, PrepareResult).faults)
            except BadMessage as error:
                faults.append(f"a worker cannot take it up: its reply is malformed: {error}")
    return list(dict.fromkeys(faults))


def lines_of(committed: Mapping[int, Result]) -> tuple[list[str], list[int]]:
    """Return what was done, each line once, and the numbers of workers that may still serve what they did before."""
    lines: list[str] = []
    failed = []
    for number, reply in committed.items():
        if isinstance(reply, RequestFailed):
            lines.append(f"a worker did not take it up, and is replaced: {one_line(reply.reason)}")
            failed.append(number)
            continue
        try:
            lines += map(one_line, structure(reply, CommitResult).lines)
        except BadMessage:
            failed.append(number)
    return list(dict.fromkeys(lines)), failed
