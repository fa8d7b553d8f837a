"""How many connections there may be: in all, of one address before login, of one user from one address.

One address, user or listener that misbehaves exhausts its own share, not that of others. Who has a great many addresses
could have all connections there may be without ever logging in: then the one that has been there for longest makes room.

The numbers are those of all workers. They are looked up at once, in a table of this process: what its own connections
are it knows, what those of other workers are they tell it (`net.serving.state_sync`). So a limit may be passed while that takes, 100
milliseconds and the way: no worker lets in more than the limit by itself, so that N workers let in at most N times the
limit, where as many come to each of them at once; and nobody more until there are fewer than the limit again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, TypeAlias

from attrs import Factory, define

from mailserver.config.model import Limits
from mailserver.errors import LimitReached
from mailserver.net.log.refusal_log import RefusalLog
from mailserver.types import client_of

REFUSAL_LOG_INTERVAL = 60.0
"""Seconds between two log lines about refused connections of one network."""
MAX_REFUSED_NETWORKS = 1000
"""Networks remembered for that."""

Address = IPv4Address | IPv6Address | None

CountKey: TypeAlias = tuple[str, ...]
"""What a number is of: () all connections, (network,) those not logged in, (network, user) those of a user."""
ALL: CountKey = ()


class EvictableConnection(Protocol):
    """A connection that has not logged in."""

    def evict(self) -> bool:
        """Another needs its place: it ends and is counted no more. False where it has only just come."""


@define
class _Refusals:
    """What the log has said of refused connections, by network."""

    told: dict[str, float] = Factory(dict)
    unsaid: Counter[str] = Factory(Counter)


class ConnectionCounts:
    """The counts of this process, and of what others tell theirs are."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.on_change: Callable[[CountKey], None] = lambda _counted: None
        """Called for each number of this process that changes."""
        self._own: Counter[CountKey] = Counter()
        self._others: Counter[CountKey] = Counter()
        self._told: dict[int, dict[CountKey, int]] = {}
        self._early: dict[EvictableConnection | None, None] = {}
        """Those of this process, the oldest first."""
        self._refusals = _Refusals()
        self.refusal_log = RefusalLog()
        """How much is said of clients that are refused for something else than their number."""

    @property
    def total(self) -> int:
        """The connections of this process."""
        return self._own[ALL]

    def own(self, counted: CountKey) -> int:
        """A number of this process."""
        return self._own[counted]

    def all_own(self) -> list[tuple[CountKey, int]]:
        """Every number of this process that is not 0."""
        return list(self._own.items())

    def take(self, worker: int, numbers: Iterable[tuple[CountKey, int]]) -> None:
        """Another worker tells some of its numbers as they are now."""
        told = self._told.setdefault(worker, {})
        for counted, number in numbers:
            self._add(self._others, counted, number - told.pop(counted, 0))
            if number > 0:
                told[counted] = number

    def forget(self, worker: int) -> None:
        """That worker has gone, and its connections with it."""
        for counted, number in self._told.pop(worker, {}).items():
            self._add(self._others, counted, -number)

    def open(self, address: Address, early: EvictableConnection | None = None) -> bool:
        """Count a new connection; False if it must be refused (it is then not counted).

        Without an address (a Unix socket, a protocol without login) only the number of all counts. `early`: the
        connection, where it makes room for others until it has logged in.
        """
        network = (client_of(address),)
        if address is not None and self._number(network) >= self.limits.unauthenticated_per_address:
            return False
        if self._number(ALL) >= self.limits.connections and not self._make_room():
            return False
        self._change(ALL, 1)
        self._change(network, 1)
        if early is not None:
            self._early[early] = None
        return True

    def _make_room(self) -> bool:
        oldest = next(iter(self._early), None)
        return oldest is not None and oldest.evict()

    def count_refused_connection(self, address: Address, now: float) -> int | None:
        """Should the log say that this connection is refused? Then how many it did not mention since the last time."""
        network = client_of(address)
        refusals = self._refusals
        told = refusals.told.get(network)
        if told is not None and now - told < REFUSAL_LOG_INTERVAL:
            refusals.unsaid[network] += 1
            return None
        if len(refusals.told) >= MAX_REFUSED_NETWORKS:
            refusals.told.clear()
            refusals.unsaid.clear()
        refusals.told[network] = now
        return refusals.unsaid.pop(network, 0)

    def count_refused_request(self, address: Address, event: str, now: float) -> int | None:
        """See `RefusalLog.count`."""
        return self.refusal_log.count(client_of(address), event, now)

    def logged_in(self, address: Address, user: str, early: EvictableConnection | None = None) -> None:
        """The connection has logged in. Raises: LimitReached."""
        network = client_of(address)
        if self._number((network, user)) >= self.limits.sessions_per_user:
            msg = "too many sessions of this user from this address"
            raise LimitReached(msg)
        self._change((network, user), 1)
        self._change((network,), -1)
        self._early.pop(early, None)

    def close(self, address: Address, user: str | None, early: EvictableConnection | None = None) -> None:
        """The connection has ended."""
        self._early.pop(early, None)
        network = client_of(address)
        self._change(ALL, -1)
        self._change((network,) if user is None else (network, user), -1)

    def _number(self, counted: CountKey) -> int:
        return self._own.get(counted, 0) + self._others.get(counted, 0)

    def _change(self, counted: CountKey, by: int) -> None:
        self._add(self._own, counted, by)
        self.on_change(counted)

    @staticmethod
    def _add(counter: Counter[CountKey], counted: CountKey, by: int) -> None:
        if (number := counter.get(counted, 0) + by) > 0:
            counter[counted] = number
        else:
            counter.pop(counted, None)
