"""The PROXY protocol, version 1 and 2, from the networks that a listener trusts.

A connection from a trusted network must begin with a header, which names the real client; from anywhere else it is
served as it is, so that nobody else can claim an address. The header comes before TLS. Once it is read, its reader
steps aside: the transport then belongs to the protocol behind, as if the client had connected itself, and STARTTLS
and half-closing work as ever. (Twisted's own wrapper stays between the two, and hides handshakes from the protocol.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, cast

from twisted.internet.address import IPv4Address as TCP4Address
from twisted.internet.address import IPv6Address as TCP6Address
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from mailserver.errors import ConnectionLost
from mailserver.net.log.events import log, plain_line

HEADER_TIME = 10.0
MAX_V1 = 107
"""Octets of a header of version 1, its CRLF included."""
MAX_V2 = 4096
"""Octets of a header of version 2 that are read; what may follow the addresses is not used here."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1 = re.compile(rb"PROXY (TCP[46]) ([0-9A-Fa-f.:]{2,39}) [0-9A-Fa-f.:]{2,39} ([0-9]{1,5}) [0-9]{1,5}\r\n")
_V2_ADDRESSES: dict[int, tuple[int, type[IPv4Address | IPv6Address]]] = {
    0x11: (4, IPv4Address),
    0x21: (16, IPv6Address),
}
"""Family and transport octet -> octets of an address, its class; TCP only."""


class BadHeader(Exception):
    """What a trusted proxy sent is no header."""


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


class HeaderReader(Protocol):
    """Reads one header, then gives its transport to the protocol behind."""

    def __init__(self, factory: Factory, address: IAddress | None, clock: IReactorTime) -> None:
        self._factory = factory
        self._address = address
        self._clock = clock
        self._data = b""
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """A header is due within HEADER_TIME."""
        self._timer = self._clock.callLater(HEADER_TIME, self._refuse, "no header in time")

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the proxy, the client's behind them."""
        self._data += data
        try:
            read = read_header(self._data)
        except BadHeader as error:
            self._refuse(str(error))
            return
        if read is None:
            return
        end, address = read
        rest, self._data = self._data[end:], b""
        self._forget_timer()
        transport = cast("Any", self.transport)
        protocol = self._factory.buildProtocol(address or self._address)
        assert protocol is not None
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest:
            protocol.dataReceived(rest)

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: ARG002, B008
        """Gone before its header was read."""
        self._forget_timer()

    def _refuse(self, why: str) -> None:
        self._data = b""
        log.info(
            "{line}",
            line=plain_line("proxy-header-refused", {"peer": getattr(self._address, "host", ""), "reason": why}),
        )
        cast("Any", self.transport).abortConnection()

    def _forget_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


class ProxyProtocolFactory(Factory):
    """Chooses by the peer whether a PROXY header is expected."""

    noisy = False

    def __init__(self, factory: Factory, trusted: Sequence[str], clock: IReactorTime) -> None:
        self._factory = factory
        self._clock = clock
        self._trusted: list[IPv4Network | IPv6Network] = [ip_network(network, strict=False) for network in trusted]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """With or without the header's reader in front."""
        host = getattr(addr, "host", None)
        if host is not None:
            peer = ip_address(host.partition("%")[0])
            if any(peer in network for network in self._trusted):
                return HeaderReader(self._factory, addr, self._clock)
        return self._factory.buildProtocol(addr)
