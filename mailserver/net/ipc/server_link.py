"""Interfaces between the processes of one server: a worker's link to the others, and the master's view of all workers.

With `workers = 0` there is no link, and whatever takes a `ServerLink` takes None instead.

A worker's number is small, and no other living worker has it. A worker that replaces another begins before that one has
ended (its sessions go on), so it has another number. When a worker is gone, everything that it has sent is void. Its
number may be used again after `on_gone` was called.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred

from mailserver.net.ipc.event_counters import EventTotals
from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.open_mailbox_table import OpenMailboxTable
from mailserver.net.ipc.worker_messages import BroadcastBody, RequestFailed, WorkerMessage

B = TypeVar("B", bound=BroadcastBody)
QUERY_TIMEOUT = 2.0
"""Seconds for which a worker's reply to a query is waited for."""


class ServerLink(Protocol):
    """A worker's link to the master and to the other workers. All calls and callbacks are on the reactor's thread."""

    @property
    def number(self) -> int:
        """The number of this worker."""

    @property
    def poke_receive(self) -> socket.socket:
        """The socket on which other workers' datagrams arrive; non-blocking."""

    @property
    def poke_send(self) -> Mapping[int, socket.socket]:
        """Number of each other living worker -> the socket for datagrams to it; non-blocking.

        The mapping changes as workers come and go: keep no copy, and nothing about a worker after `on_gone`.
        """

    @property
    def open_mailboxes(self) -> OpenMailboxTable:
        """The mailboxes that workers have open, for pokes."""

    @property
    def penalty_key(self) -> bytes:
        """32 random octets, the same in all workers as long as the master lives."""

    @property
    def known_key(self) -> bytes:
        """Key of the digests of known networks, the same in all workers and after a restart."""

    def broadcast(self, message: BroadcastBody) -> None:
        """Send a message to every other living worker, through the master: in order, lost only where a worker dies."""

    def on_broadcast(self, message_class: type[B], receive: Callable[[int, B], None]) -> None:
        """Call `receive(number of the sender, message)` for other workers' messages of a class. One receiver a class."""

    def on_joined(self, call: Callable[[int], None]) -> None:
        """Call `call(number)` when another worker begins, to send it what it lacks: later broadcasts reach it.

        A worker that begins is not called for the others: they are called for it.
        """

    def on_gone(self, call: Callable[[int], None]) -> None:
        """Call `call(number)` when another worker has ended, for whatever reason: what it has sent is void."""

    def on_query(self, name: str, answer: Callable[[Json], Deferred[Json]]) -> None:
        """Answer the master's queries of that name. A failure is logged, and the master is told that there was one."""

    def report(self, message: WorkerMessage) -> None:
        """Send a message to the master."""

    def on_known_networks(self, load: Callable[[bytes], None]) -> None:
        """Call `load(table)` with the master's table of known networks, once when this worker begins."""

    def on_bans(self, apply: Callable[[Sequence[tuple[int, float]]], None]) -> None:
        """Call `apply(changes)` with the master's bans, all of them when this worker begins (`BannedClients.apply`)."""

    def query_status(self) -> Deferred[dict[str, Json]]:
        """Ask the master for the status of all workers, this one among them. Fails: MailError after a time limit."""


class WorkerPool(Protocol):
    """All processes that serve, for the administrator's queries: the master's workers, or the single process."""

    def ask(
        self, name: str, body: Json, seconds: float = QUERY_TIMEOUT
    ) -> Deferred[dict[int, Json | RequestFailed | None]]:
        """Send a query to every living worker, and collect the replies by worker number. Never fails.

        RequestFailed stands for a worker that fails, None for one that does not reply in time.
        """

    def workers(self) -> list[dict[str, Json]]:
        """Return {"worker": number, "pid": int, "since": Unix time, "state": "serving" or "retiring"} of each."""

    @property
    def totals(self) -> EventTotals:
        """The event counters of all workers."""

    @property
    def restarts(self) -> int:
        """Number of workers that ended without an order and were replaced."""

    @property
    def exposures(self) -> Callable[[], int]:
        """Return how many users are marked because their password came in clear text."""

    @property
    def bans(self) -> Callable[[], int]:
        """Return how many clients are banned."""

    @property
    def renewals(self) -> Callable[[], list[Json]]:
        """Return a row for each host whose certificate an ACME authority issues."""
