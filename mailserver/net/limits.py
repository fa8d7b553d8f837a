"""How many connections there may be: in all, of one address before login, of one user from one address.

One address, user or listener that misbehaves exhausts its own share, not that of others.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from mailserver.config.model import Limits
from mailserver.errors import LimitReached

TELL_INTERVAL = 60.0
"""Seconds between two log lines about refused connections of one network."""
MAX_TOLD = 1000
"""Networks remembered for that."""

Address = IPv4Address | IPv6Address | None


def network_of(address: Address) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    if address is None:
        return "local"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
    return str(address)


class ConnectionCounts:
    """The counts of this process."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.total = 0
        self._before_login: Counter[str] = Counter()
        self._sessions: Counter[tuple[str, str]] = Counter()
        self._told: dict[str, float] = {}
        self._unsaid: Counter[str] = Counter()

    def open(self, address: Address) -> bool:
        """Count a new connection; False if it must be refused (it is then not counted).

        Without an address (a Unix socket, a protocol without login) only the number of all counts.
        """
        network = network_of(address)
        if self.total >= self.limits.connections:
            return False
        if address is not None and self._before_login[network] >= self.limits.unauthenticated_per_address:
            return False
        self.total += 1
        self._before_login[network] += 1
        return True

    def tell_refusal(self, address: Address, now: float) -> int | None:
        """Should the log say that this connection is refused? Then how many it did not mention since the last time."""
        network = network_of(address)
        told = self._told.get(network)
        if told is not None and now - told < TELL_INTERVAL:
            self._unsaid[network] += 1
            return None
        if len(self._told) >= MAX_TOLD:
            self._told.clear()
            self._unsaid.clear()
        self._told[network] = now
        return self._unsaid.pop(network, 0)

    def logged_in(self, address: Address, user: str) -> None:
        """The connection has logged in. Raises: LimitReached."""
        share = (user, network_of(address))
        if self._sessions[share] >= self.limits.sessions_per_user:
            msg = "too many sessions of this user from this address"
            raise LimitReached(msg)
        self._sessions[share] += 1
        _drop(self._before_login, network_of(address))

    def close(self, address: Address, user: str | None) -> None:
        """The connection has ended."""
        self.total -= 1
        if user is None:
            _drop(self._before_login, network_of(address))
        else:
            _drop(self._sessions, (user, network_of(address)))


def _drop(counter: Counter[Any], key: object) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
