"""PROXY headers (the specification's versions 1 and 2), read in any pieces, believed from trusted networks only."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs

from mailserver.config.model import Limits
from mailserver.net.connection.acceptance import MIN_LOGIN_TIME
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.net.connection.proxy_header import HEADER_TIME, MAX_V2, BadHeader, read_header
from mailserver.net.listeners.proxy_protocol import ProxyProtocolFactory
from mailserver.net.log.refusal_log import MOST

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(source: str, port: int, *, command: int = 0x21, extra: bytes = b"", family: int | None = None) -> bytes:
    address = ip_address(source)
    body = address.packed + address.packed + struct.pack("!HH", port, 993) + extra
    kind = family if family is not None else (0x11 if address.version == 4 else 0x21)
    return SIGNATURE + bytes([command, kind]) + struct.pack("!H", len(body)) + body


GOOD = {
    b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 993\r\n": IPv4Address("TCP", "192.0.2.7", 4711),
    b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 993\r\n": IPv6Address("TCP", "2001:db8::7", 4711),
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n": None,
    v2("192.0.2.7", 4711): IPv4Address("TCP", "192.0.2.7", 4711),
    v2("2001:db8::7", 65535): IPv6Address("TCP", "2001:db8::7", 65535),
    v2("192.0.2.7", 4711, extra=b"\x03\x00\x04abcd"): IPv4Address("TCP", "192.0.2.7", 4711),
    v2("192.0.2.7", 4711, command=0x20): None,
    v2("192.0.2.7", 4711, family=0x00): None,
    SIGNATURE + b"\x20\x00\x00\x00": None,
}

BAD = [
    b"a LOGIN anna secret\r\n",
    b"\x16\x03\x01\x02\x00",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 4711\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 70000 993\r\n",
    b"PROXY TCP4 192.0.2.700 192.0.2.1 1 993\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 1 993\r\n",
    b"PROXY TCP6 192.0.2.7 192.0.2.1 1 993\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1 993\n" + b"x" * 100,
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UDP4 192.0.2.7 192.0.2.1 1 993\r\n",
    b"PROXY " + b"x" * 200,
    SIGNATURE + b"\x11\x11\x00\x0c" + b"x" * 12,
    SIGNATURE + b"\x22\x11\x00\x0c" + b"x" * 12,
    SIGNATURE + b"\x21\x11\x00\x04" + b"x" * 4,
    SIGNATURE + b"\x21\x11" + struct.pack("!H", MAX_V2) + b"x" * 12,
    b"\r\n\r\n\0\r\nQUIX\n",
]


@pytest.mark.parametrize("header", GOOD)
def test_a_header_names_the_client(header: bytes) -> None:
    assert read_header(header + b"behind") == (len(header), GOOD[header])


@pytest.mark.parametrize("header", GOOD)
def test_every_part_of_a_header_asks_for_more(header: bytes) -> None:
    for end in range(1, len(header)):
        assert read_header(header[:end]) is None


@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(BadHeader):
        read_header(header)


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=200), st.sampled_from([b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_anything_is_read_or_refused(data: bytes, start: bytes) -> None:
    try:
        read = read_header(start + data)
    except BadHeader:
        return
    assert read is None or 0 < read[0] <= len(start + data)


class Inner(Protocol):
    """What stands behind."""

    def __init__(self, address: Any) -> None:
        self.address = address
        self.said = b""

    def dataReceived(self, data: bytes) -> None:
        self.said += data


class World:
    def __init__(self, peer: str, before: World | None = None, **limits: Any) -> None:
        """`before`: another client of the same port."""
        self.made: list[Inner] = []
        self.clock = Clock() if before is None else before.clock
        self.counts = ConnectionCounts(Limits(**limits)) if before is None else before.counts
        trusted = ("198.51.100.0/24", "2001:db8:1::/48")
        world = self

        class Inners(Factory):
            def buildProtocol(self, addr: Any) -> Inner:
                world.made.append(Inner(addr))
                return world.made[-1]

        address: Any = (IPv6Address if ":" in peer else IPv4Address)("TCP", peer, 1000)
        self.transport: Any = StringTransport(peerAddress=address)
        self.transport.aborted = False
        self.transport.abortConnection = lambda: setattr(self.transport, "aborted", True)
        factory = ProxyProtocolFactory(Inners(), trusted, self.clock, self.counts)
        self.transport.protocol = factory.buildProtocol(address)
        self.transport.protocol.makeConnection(self.transport)

    def receive(self, data: bytes) -> None:
        self.transport.protocol.dataReceived(data)


@pytest.mark.parametrize("peer", ["198.51.100.9", "2001:db8:1::9"])
@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_a_trusted_proxys_header_is_taken_off(peer: str, pieces: int) -> None:
    world = World(peer)
    stream = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 993\r\na NOOP\r\n"
    for at in range(0, len(stream), pieces):
        world.receive(stream[at : at + pieces])
    (inner,) = world.made
    assert inner.address == IPv4Address("TCP", "192.0.2.7", 4711)
    assert inner.said == b"a NOOP\r\n"
    assert inner.transport is world.transport, "nothing stays between them"
    assert world.clock.getDelayedCalls() == []
    assert world.counts.total == 0, "the protocol behind counts itself"


def test_a_health_check_keeps_the_proxys_own_address() -> None:
    world = World("198.51.100.9")
    world.receive(SIGNATURE + b"\x20\x00\x00\x00")
    assert world.made[0].address == IPv4Address("TCP", "198.51.100.9", 1000)


def test_a_stranger_is_not_believed() -> None:
    world = World("203.0.113.5")
    world.receive(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 993\r\n")
    (inner,) = world.made
    assert inner.address == IPv4Address("TCP", "203.0.113.5", 1000)
    assert inner.said.startswith(b"PROXY")


@pytest.mark.parametrize("header", BAD)
def test_a_trusted_proxy_without_a_good_header_is_closed(header: bytes) -> None:
    world = World("198.51.100.9")
    world.receive(header)
    assert world.transport.aborted
    assert world.made == []


def test_a_header_that_does_not_come_in_time_ends_it() -> None:
    world = World("198.51.100.9")
    world.receive(b"PROXY TCP4 ")
    world.clock.advance(HEADER_TIME - 1)
    assert not world.transport.aborted
    world.clock.advance(2)
    assert world.transport.aborted


def test_a_connection_counts_until_its_header_has_come_and_is_evicted_for_others() -> None:
    """Those of a trusted network that send nothing must not take all descriptors."""
    first = World("198.51.100.9", connections=2)
    second = World("198.51.100.9", first)
    assert first.counts.total == 2
    assert World("198.51.100.9", first).transport.aborted, "none is old enough to be evicted"
    first.clock.advance(MIN_LOGIN_TIME)
    third = World("198.51.100.9", first)
    assert [each.transport.aborted for each in (first, second, third)] == [True, False, False]
    for each in (first, second, third):
        each.transport.protocol.connectionLost()
    assert first.counts.all_own() == []
    assert first.clock.getDelayedCalls() == []


def test_bad_headers_do_not_fill_the_log() -> None:
    world = World("198.51.100.9")
    with capturedLogs() as events:
        for _ in range(2 * MOST):
            World("198.51.100.9", world).receive(b"nonsense\r\n")
    assert len(events) == MOST
