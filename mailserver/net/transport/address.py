"""A client's address, out of one of Twisted's."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from twisted.internet.address import IPv4Address, IPv6Address


def address_of(address: object) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address | None, int]:
    """Return address and port of an `IAddress`; None and 0 for a Unix socket."""
    if isinstance(address, IPv4Address | IPv6Address):
        return _parsed(address.host), address.port
    return None, 0


@lru_cache(maxsize=1024)
def _parsed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(host.partition("%")[0])
