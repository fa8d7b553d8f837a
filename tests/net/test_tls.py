"""The TLS layer, against a client of OpenSSL in memory."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from mailserver.net.tls import PIECE, TlsFactory

CONTEXT = SSL.Context(SSL.TLS_SERVER_METHOD)
trustme.CA().issue_cert("localhost").configure_cert(CONTEXT)


@implementer(IOpenSSLServerConnectionCreator)
class Creator:
    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: N803 - Twisted's name
        return SSL.Connection(CONTEXT, None)


@implementer(IHandshakeListener)
class Inner(Protocol):
    def __init__(self) -> None:
        self.said = b""
        self.secured = 0

    def handshakeCompleted(self) -> None:
        self.secured += 1

    def dataReceived(self, data: bytes) -> None:
        self.said += data


class World:
    """A protocol on a transport, in clear text until `wrap`."""

    def __init__(self) -> None:
        self.inner = Inner()
        self.transport: Any = StringTransport()
        self.transport.protocol = self.inner
        self.inner.makeConnection(self.transport)
        self.client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        self.client.set_connect_state()

    def wrap(self) -> Any:
        self.layer = TlsFactory(Creator(), Clock()).wrap(self.inner, self.transport)
        return self.layer

    def exchange(self) -> bytes:
        """Carry bytes between the two until nothing moves; what the client then has read."""
        read = b""
        while True:
            with contextlib.suppress(SSL.WantReadError):
                self.client.do_handshake()
            moved = self.transport.value()
            self.transport.clear()
            if moved:
                self.client.bio_write(moved)
            try:
                while True:
                    read += self.client.recv(65536)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                pass
            try:
                self.transport.protocol.dataReceived(self.client.bio_read(65536))
            except SSL.WantReadError:
                if not moved:
                    return read


def test_the_protocol_hears_of_the_handshake_and_of_what_follows() -> None:
    world = World()
    world.wrap()
    world.exchange()
    assert world.inner.secured == 1
    world.client.send(b"a NOOP\r\n")
    world.exchange()
    assert world.inner.said == b"a NOOP\r\n"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(0, 300),
            st.sampled_from([PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, PIECE + 4096, 5 * PIECE + 7, 300_000]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 6),
)
def test_writes_arrive_whole_and_in_order_before_and_after_the_handshake(sizes: list[int], early: int) -> None:
    world = World()
    layer = world.wrap()
    pieces = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    for piece in pieces[:early]:
        layer.write(piece)
    read = world.exchange()
    for piece in pieces[early:]:
        layer.write(piece)
    assert read + world.exchange() == b"".join(pieces)


@pytest.mark.parametrize("size", [1, 100_000])
def test_what_was_written_goes_out_before_the_end(size: int) -> None:
    world = World()
    layer = world.wrap()
    world.exchange()
    layer.write(b"x" * size)
    layer.loseConnection()
    assert world.exchange() == b"x" * size
    assert world.client.get_shutdown() & SSL.RECEIVED_SHUTDOWN


def test_writes_are_sealed_at_once() -> None:
    world = World()
    layer = world.wrap()
    world.exchange()
    layer.write(b"* OK\r\n")
    assert world.transport.value() != b""
    assert b"OK" not in world.transport.value()
