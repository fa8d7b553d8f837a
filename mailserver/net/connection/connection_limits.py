"""Limits of connections: in all, of one address before login, of one user from one address.

One address, user or listener that misbehaves exhausts its own share, not that of others. A client with a great many addresses
could take all connections without ever logging in: then the oldest connection that has not logged in is evicted.

The numbers are those of all workers. They stand in a table of this process: it counts its own connections, and other workers
send it theirs (`net.serving.state_sync`). So a limit may be passed while that takes, 100
milliseconds and the way: no worker lets in more than the limit by itself, so that N workers let in at most N times the
limit, if as many clients come to each of them at once. No more are accepted until there are fewer than the limit again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, TypeAlias

from attrs import Factory, define

from mailserver.auth.throttling.banned_clients import BannedClients
from mailserver.config.model import Limits
from mailserver.errors import LimitReached
from mailserver.net.log.refusal_log import RefusalLog
from mailserver.types import client_of

REFUSAL_LOG_INTERVAL = 60.0
"""Seconds between two log lines about refused connections of one network."""
MAX_REFUSED_NETWORKS = 1000
"""Networks whose last line is remembered."""

Address = IPv4Address | IPv6Address | None

CountKey: TypeAlias = tuple[str, ...]
"""The key of a number: () all connections, (network,) those not logged in, (network, user) those of a user."""
ALL: CountKey = ()


class EvictableConnection(Protocol):
    """A connection that has not logged in."""

    @property
    def client(self) -> Address:
        """The address of the client; None while it is not known, and for a Unix socket."""

    def evict(self) -> bool:
        """Abort the connection and count it no more, so that another is accepted. False where it has only just come."""

    def end_banned(self) -> None:
        """Abort the connection and count it no more, as its client is banned."""


@define
class _Refusals:
    """What was logged of refused connections, by network."""

    logged_at: dict[str, float] = Factory(dict)
    unsaid: Counter[str] = Factory(Counter)


class ConnectionCounts:
    """The numbers of this process, and those that other workers have sent."""

    def __init__(self, limits: Limits, banned: BannedClients | None = None) -> None:
        """`banned`: clients that are refused; none if None."""
        self.limits = limits
        self.banned = BannedClients() if banned is None else banned
        self.on_change: Callable[[CountKey], None] = lambda _counted: None
        """Called for each number of this process that changes."""
        self._own: Counter[CountKey] = Counter()
        self._others: Counter[CountKey] = Counter()
        self._of_workers: dict[int, dict[CountKey, int]] = {}
        self._evictable: dict[EvictableConnection | None, None] = {}
        """The connections of this process that have not logged in, the oldest first."""
        self._refusals = _Refusals()
        self.refusal_log = RefusalLog()
        """Bounds the log lines of clients that are refused for another reason than their number."""

    @property
    def total(self) -> int:
        """The connections of this process."""
        return self._own[ALL]

    def own(self, key: CountKey) -> int:
        """A number of this process."""
        return self._own[key]

    def all_own(self) -> list[tuple[CountKey, int]]:
        """Every number of this process that is not 0."""
        return list(self._own.items())

    def update_worker(self, worker: int, numbers: Iterable[tuple[CountKey, int]]) -> None:
        """Apply some numbers that another worker has sent."""
        known = self._of_workers.setdefault(worker, {})
        for key, number in numbers:
            self._add(self._others, key, number - known.pop(key, 0))
            if number > 0:
                known[key] = number

    def remove_worker(self, worker: int) -> None:
        """Drop the numbers of a worker that has ended."""
        for key, number in self._of_workers.pop(worker, {}).items():
            self._add(self._others, key, -number)

    def open(self, address: Address, connection: EvictableConnection | None = None) -> bool:
        """Count a new connection; False if it must be refused (it is then not counted).

        Without an address (a Unix socket, a protocol without login) only the number of all counts. `connection`: where
        it may be evicted for others until it has logged in.
        """
        network = (client_of(address),)
        if address is not None and self._number(network) >= self.limits.unauthenticated_per_address:
            return False
        if self._number(ALL) >= self.limits.connections and not self._make_room():
            return False
        self._change(ALL, 1)
        self._change(network, 1)
        if connection is not None:
            self._evictable[connection] = None
        return True

    def end_banned(self) -> None:
        """End the connections of banned clients that have not logged in."""
        for connection in tuple(self._evictable):
            if connection is not None and self.banned.is_banned(connection.client):
                connection.end_banned()

    def _make_room(self) -> bool:
        oldest = next(iter(self._evictable), None)
        return oldest is not None and oldest.evict()

    def count_refused_connection(self, address: Address, now: float) -> int | None:
        """Return the number of refused connections that were not logged since the last line, if this one is to be logged."""
        network = client_of(address)
        refusals = self._refusals
        logged_at = refusals.logged_at.get(network)
        if logged_at is not None and now - logged_at < REFUSAL_LOG_INTERVAL:
            refusals.unsaid[network] += 1
            return None
        if len(refusals.logged_at) >= MAX_REFUSED_NETWORKS:
            refusals.logged_at.clear()
            refusals.unsaid.clear()
        refusals.logged_at[network] = now
        return refusals.unsaid.pop(network, 0)

    def count_refused_request(self, address: Address, event: str, now: float) -> int | None:
        """See `RefusalLog.count`."""
        return self.refusal_log.count(client_of(address), event, now)

    def logged_in(self, address: Address, user: str, connection: EvictableConnection | None = None) -> None:
        """Count a connection for its user. Raises: LimitReached."""
        network = client_of(address)
        if self._number((network, user)) >= self.limits.sessions_per_user:
            msg = "too many sessions of this user from this address"
            raise LimitReached(msg)
        self._change((network, user), 1)
        self._change((network,), -1)
        self._evictable.pop(connection, None)

    def logged_out(self, address: Address, user: str, connection: EvictableConnection) -> None:
        """Count a connection as one that has not logged in. Raises: LimitReached, and it is counted all the same."""
        network = client_of(address)
        full = address is not None and self._number((network,)) >= self.limits.unauthenticated_per_address
        self._change((network, user), -1)
        self._change((network,), 1)
        self._evictable[connection] = None
        if full:
            msg = "too many connections from this address that are not logged in"
            raise LimitReached(msg)

    def close(self, address: Address, user: str | None, connection: EvictableConnection | None = None) -> None:
        """Count a connection no more."""
        self._evictable.pop(connection, None)
        network = client_of(address)
        self._change(ALL, -1)
        self._change((network,) if user is None else (network, user), -1)

    def _number(self, key: CountKey) -> int:
        return self._own.get(key, 0) + self._others.get(key, 0)

    def _change(self, key: CountKey, by: int) -> None:
        self._add(self._own, key, by)
        self.on_change(key)

    @staticmethod
    def _add(counter: Counter[CountKey], key: CountKey, by: int) -> None:
        if (number := counter.get(key, 0) + by) > 0:
            counter[key] = number
        else:
            counter.pop(key, None)
