"""What joins the workers of a server: each one's line to the master, and the sockets on which they poke each other.

With `workers = 0` there is none, and whoever takes a `ServerLink` takes None for it.

A worker is known to the others by its worker, a small number that no other living worker has. A worker that replaces
another begins before that one has ended (its sessions go on), so it has another worker: whatever was told from a worker is
void once that worker is gone, and for that alone. Numbers are given again later, after `on_gone`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred

from mailserver.net.ipc.event_counters import EventTotals
from mailserver.net.ipc.message_schema import Json


class ServerLink(Protocol):
    """A worker's side. All calls, and all that are called back, are on the reactor's thread."""

    @property
    def number(self) -> int:
        """The worker of this worker."""

    @property
    def poke_receive(self) -> socket.socket:
        """Unix datagrams that other workers send to this one; non-blocking."""

    @property
    def poke_send(self) -> Mapping[int, socket.socket]:
        """WorkerLink of each other living worker -> where to send datagrams for it; non-blocking.

        The mapping changes as workers come and go: keep no copy, and nothing about a worker after `on_gone`.
        """

    @property
    def penalty_key(self) -> bytes:
        """32 random octets, the same in all workers as long as the master lives."""

    @property
    def known_key(self) -> bytes:
        """Of the digests of known networks, the same in all workers and after a restart."""

    def tell(self, kind: str, body: Json) -> None:
        """To every other living worker, through the master: in order, and dropped only where a worker dies."""

    def on(self, kind: str, take: Callable[[int, Json], None]) -> None:
        """Call `take(worker of the sender, body)` for what others tell of that kind. One taker a kind."""

    def on_joined(self, take: Callable[[int], None]) -> None:
        """Call `take(worker)` when another worker begins; what is told from then on reaches it. Tell it what it lacks.

        A worker that begins itself hears of no joining: the others hear of it, and tell.
        """

    def on_gone(self, take: Callable[[int], None]) -> None:
        """Call `take(worker)` when another worker has ended, however it did: all that it told is void."""

    def on_query(self, what: str, answer: Callable[[Json], Deferred[Json]]) -> None:
        """Answer the master's question of that name. A failure is logged, and told to the master as one."""

    def report_seen(self, rows: Json) -> None:
        """Tell the master what clients were seen (`ledger.entry.as_row` of each)."""

    def report_known(self, rows: Json) -> None:
        """Tell the master of known networks (`auth.throttling.known_networks.Row` of each)."""

    def on_known(self, take: Callable[[bytes], None]) -> None:
        """Call `take(table)` with what the master knew of them when this worker began (`KnownNetworks.to_bytes`)."""

    def report_exposed(self, mark: Json) -> None:
        """Tell the master whose password has come in clear text (`auth.exposure.checker.ExposureMark`)."""

    def query_status(self) -> Deferred[dict[str, Json]]:
        """What `mailserver status` would be told of all workers, this one among them. Fails: MailError, in time."""


class WorkerPool(Protocol):
    """The master's side, for what the control socket is asked."""

    def ask(self, what: str, body: Json, seconds: float = 2.0) -> Deferred[dict[int, Json]]:
        """Ask every living worker; the answers by worker. Never fails.

        {"error": sentence} stands for a worker that fails, None for one that does not answer in time.
        """

    def workers(self) -> list[dict[str, Json]]:
        """Of each worker {"worker": int, "pid": int, "since": Unix time, "state": "serving" or "retiring"}."""

    @property
    def totals(self) -> EventTotals:
        """What all workers have counted."""

    @property
    def restarts(self) -> int:
        """Workers that have ended unasked and were replaced."""

    @property
    def exposures(self) -> Callable[[], int]:
        """How many users are marked, as their password has come in clear text."""

    @property
    def renewals(self) -> Callable[[], list[Json]]:
        """A row for each host whose certificate an ACME authority gives."""
