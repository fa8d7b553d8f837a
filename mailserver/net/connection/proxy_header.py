"""The header of the PROXY protocol, version 1 and 2: which client a proxy has connected for."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from twisted.internet.address import IPv4Address as TCP4Address
from twisted.internet.address import IPv6Address as TCP6Address
from twisted.internet.interfaces import IAddress

HEADER_TIME = 10.0
"""Seconds in which the header must come."""
MAX_V1 = 107
"""Octets of a header of version 1, its CRLF included."""
MAX_V2 = 4096
"""Octets of a header of version 2 that are read; the fields behind the addresses are not used here."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1 = re.compile(rb"PROXY (TCP[46]) ([0-9A-Fa-f.:]{2,39}) [0-9A-Fa-f.:]{2,39} ([0-9]{1,5}) [0-9]{1,5}\r\n")
_V2_ADDRESSES: dict[int, tuple[int, type[IPv4Address | IPv6Address]]] = {
    0x11: (4, IPv4Address),
    0x21: (16, IPv6Address),
}
"""Family and transport octet -> octets of an address, its class; TCP only."""


class BadHeader(Exception):
    """The octets of a trusted proxy are no header."""


def read_header(data: bytes) -> tuple[int, IAddress | None] | None:
    """Octets of the header and the client's address in it; None if more octets are needed.

    The address is None where the header names none: a health check of the proxy itself, or a client that did not come
    by TCP. Raises: BadHeader.
    """
    if data.startswith(_SIGNATURE):
        return _read_v2(data)
    if data.startswith(b"PROXY "):
        return _read_v1(data)
    if _SIGNATURE.startswith(data) or b"PROXY ".startswith(data):
        return None
    raise BadHeader("no PROXY header")


def _read_v1(data: bytes) -> tuple[int, IAddress | None] | None:
    end = data.find(b"\r\n", 0, MAX_V1) + 2
    if end < 2:
        if len(data) >= MAX_V1:
            raise BadHeader("the line is too long")
        return None
    line = data[:end]
    if line.startswith((b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ")):
        return end, None
    found = _V1.fullmatch(line)
    if found is None or int(found[3]) > 65535:
        raise BadHeader("not a line of version 1")
    try:
        address = ip_address(found[2].decode("ascii"))
    except ValueError:
        raise BadHeader("not an address") from None
    if address.version != int(found[1][3:]):
        raise BadHeader("an address of the other family")
    return end, _tcp(address, int(found[3]))


def _read_v2(data: bytes) -> tuple[int, IAddress | None] | None:
    if len(data) < 16:
        return None
    if data[12] not in {0x20, 0x21}:
        raise BadHeader("neither LOCAL nor PROXY of version 2")
    end = 16 + int.from_bytes(data[14:16])
    if end > MAX_V2:
        raise BadHeader("the header is too long")
    if len(data) < end:
        return None
    if data[12] == 0x20 or data[13] not in _V2_ADDRESSES:
        return end, None
    size, kind = _V2_ADDRESSES[data[13]]
    if end < 16 + 2 * size + 4:
        raise BadHeader("the addresses are cut short")
    return end, _tcp(kind(data[16 : 16 + size]), int.from_bytes(data[16 + 2 * size : 18 + 2 * size]))


def _tcp(address: IPv4Address | IPv6Address, port: int) -> IAddress:
    return (TCP4Address if address.version == 4 else TCP6Address)("TCP", str(address), port)
