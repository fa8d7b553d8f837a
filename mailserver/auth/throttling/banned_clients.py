"""The banned clients of this process: each accepted connection is looked up here, and costs microseconds.

A client is an IPv4 address or the /64 network of IPv6, kept as a number: an IPv4 address as it is, a /64 as its upper 64
bits. No global address of IPv6 has a number as small as one of IPv4. Two sorted arrays of 16 octets a ban, which 100,000
bans fill with 1.6 MB, hold it and the monotonic time of its end: changes of the system's clock move no ban.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from mailserver.types import embedded_ipv4

BanChange = tuple[int, float]
"""The number of a client, and the seconds for which it is banned from now on; 0 lifts its ban."""

MAX_BANS: Final = 100_000
"""Bans in a table."""
FIRST_OF_IPV6: Final = 1 << 32
"""Numbers below are IPv4's."""
_LINK_LOCAL: Final = 0xFE80 >> 6
"""The first ten bits of fe80::/10."""
_FEW: Final = 100
"""Changes that are inserted one by one; more are merged in one pass."""


def client_number(address: IPv4Address | IPv6Address) -> int:
    """The number of the client at an address; one made of an IPv4 address counts as that (`embedded_ipv4`).

    0, which is nobody's, for the /64 of ::1 and the reserved ones next to it, and for the local link, where one /64 has all.
    """
    if isinstance(address, IPv6Address):
        embedded = embedded_ipv4(address)
        if embedded is None:
            number = int(address) >> 64
            return number if number >= FIRST_OF_IPV6 and number >> 54 != _LINK_LOCAL else 0
        address = embedded
    return int(address)


def client_name(number: int) -> str:
    """The client of a number, as `types.client_of` has it."""
    if number >= FIRST_OF_IPV6:
        return f"{IPv6Address(number << 64)}/64"
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


class BannedClients:
    """The table of a process. Not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._clients = array("Q")
        self._ends = array("d")
        self.on_banned: Callable[[], None] = lambda: None
        """Called after clients were banned: their connections that have not logged in are to end."""

    def __len__(self) -> int:
        return len(self._clients)

    def is_banned(self, address: IPv4Address | IPv6Address | None) -> bool:
        """Is the client banned? None, a Unix socket, never is."""
        if address is None or not self._clients:
            return False
        client = client_number(address)
        at = bisect_left(self._clients, client)
        return at < len(self._clients) and self._clients[at] == client and self._ends[at] > self._clock()

    def apply(self, changes: Sequence[BanChange]) -> None:
        """Apply changes of the master's table."""
        now = self._clock()
        if len(changes) > _FEW or len(self._clients) + len(changes) > MAX_BANS:
            self._merge(changes, now)
        else:
            for client, seconds in changes:
                self._set(client, now + seconds if seconds > 0 else 0.0)
        if any(seconds > 0 for _client, seconds in changes):
            self.on_banned()

    def _set(self, client: int, end: float) -> None:
        """Set the end of one ban; 0 removes it."""
        at = bisect_left(self._clients, client)
        is_there = at < len(self._clients) and self._clients[at] == client
        if is_there and end:
            self._ends[at] = end
        elif is_there:
            del self._clients[at], self._ends[at]
        elif end:
            self._clients.insert(at, client)
            self._ends.insert(at, end)

    def _merge(self, changes: Sequence[BanChange], now: float) -> None:
        """Make both arrays anew without bans that have ended; if they are too many, without those that end first."""
        ends = dict(zip(self._clients, self._ends, strict=True))
        ends.update((client, now + seconds) for client, seconds in changes)
        rows = [(client, end) for client, end in ends.items() if end > now]
        if len(rows) > MAX_BANS:
            # A hundredth more goes, so that not each further ban takes some tens of milliseconds.
            rows = sorted(rows, key=lambda row: row[1])[-MAX_BANS * 99 // 100 :]
        rows.sort()
        self._clients = array("Q", [client for client, _end in rows])
        self._ends = array("d", [end for _client, end in rows])
