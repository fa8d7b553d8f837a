"""Addresses of clients and ports: from Twisted's form, and to it."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from socket import AF_UNIX
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress


def address_of(address: object) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address | None, int]:
    """Return address and port of an `IAddress`; None and 0 for a Unix socket."""
    if isinstance(address, IPv4Address | IPv6Address):
        return _parsed(address.host), address.port
    return None, 0


def twisted_address(family: int, name: Any) -> IAddress:
    """Convert a socket's own address, or its peer's, to Twisted's."""
    if family == AF_UNIX:
        return UNIXAddress(name or None)
    return (IPv4Address if len(name) == 2 else IPv6Address)("TCP", *name)


@lru_cache(maxsize=1024)
def _parsed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(host.partition("%")[0])
