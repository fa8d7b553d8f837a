"""Both TLS layers, against a client of OpenSSL in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.net.fast.tls import FastTlsFactory
from mailserver.net.transport.tls import (
    MAX_UNSOLICITED,
    RECORD_SIZE,
    StockTlsFactory,
    TlsFactory,
    TooManyAnswers,
    tls_info,
)
from tests.net.key_updates import KeyUpdater, needs_library

CONTEXT = SSL.Context(SSL.TLS_SERVER_METHOD)
trustme.CA().issue_cert("localhost").configure_cert(CONTEXT)
CONTEXT.set_alpn_select_callback(
    lambda _connection, offered: b"imap" if b"imap" in offered else SSL.NO_OVERLAPPING_PROTOCOLS
)


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

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.lost = reason


class World:
    """A protocol on a transport, in clear text until `wrap`."""

    make_factory: Callable[..., TlsFactory]

    def __init__(self, inner: Any = None) -> None:
        self.inner: Any = inner or Inner()
        self.transport: Any = StringTransport()
        self.transport.protocol = self.inner
        self.inner.makeConnection(self.transport)
        self.client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        self.client.set_connect_state()

    def wrap(self) -> Any:
        self.layer = World.make_factory(Creator(), Clock()).wrap(self.inner, self.transport)
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


@pytest.fixture(autouse=True, scope="module", params=[FastTlsFactory, StockTlsFactory], ids=["fast", "stock"])
def factory(request: pytest.FixtureRequest) -> None:
    World.make_factory = request.param


def test_the_protocol_hears_of_the_handshake_and_of_what_follows() -> None:
    world = World()
    world.wrap()
    world.exchange()
    assert world.inner.secured == 1
    world.client.send(b"a NOOP\r\n")
    world.exchange()
    assert world.inner.said == b"a NOOP\r\n"


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (b"Mail.Example.test.", "mail.example.test"),
        (b"mail.example.org", "mail.example.org"),
        (b"a b\xff", None),
        (None, None),
    ],
)
def test_the_server_name_is_the_one_the_certificate_was_chosen_by(sent: bytes | None, name: str | None) -> None:
    """RFC 6066 3: a final dot is no part of it; a user name without a domain is completed by it."""
    world = World()
    if sent is not None:
        world.client.set_tlsext_host_name(sent)
    world.wrap()
    world.exchange()
    assert tls_info(world.layer.getHandle()).server_name == name


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("offered", [[], [b"imap"], [b"h2", b"imap"]])
def test_what_is_told_of_the_handshake_is_what_the_client_has_agreed_to(version: int, offered: list[bytes]) -> None:
    world = World()
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(version)
    world.client = SSL.Connection(context, None)
    world.client.set_connect_state()
    if offered:
        world.client.set_alpn_protos(offered)
    world.wrap()
    world.exchange()
    told = tls_info(world.layer.getHandle())
    assert told.version == world.client.get_protocol_version_name()
    assert told.cipher == world.client.get_cipher_name()
    assert told.alpn == (world.client.get_alpn_proto_negotiated().decode() or None)
    assert told.alpn == ("imap" if offered else None)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(0, 300),
            st.sampled_from(
                [
                    RECORD_SIZE - 1,
                    RECORD_SIZE,
                    RECORD_SIZE + 1,
                    2 * RECORD_SIZE,
                    RECORD_SIZE + 4096,
                    5 * RECORD_SIZE + 7,
                    300_000,
                ]
            ),
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


def count_writes(world: World) -> list[int]:
    """Octets of each piece that the transport gets from now on."""
    sizes: list[int] = []
    write = world.transport.write

    def counted(data: bytes) -> None:
        sizes.append(len(data))
        write(data)

    world.transport.write = counted
    return sizes


def test_a_long_answer_is_sealed_in_records_and_leaves_as_one() -> None:
    world = World()
    layer = world.wrap()
    world.exchange()
    sizes = count_writes(world)
    layer.write(b"x" * 5 * RECORD_SIZE)
    assert len(sizes) == 1
    assert sizes[0] > 5 * RECORD_SIZE
    assert world.exchange() == b"x" * 5 * RECORD_SIZE


@pytest.mark.parametrize("size", [0, 30, 200_000])
def test_a_held_answer_leaves_with_close_notify(size: int) -> None:
    world = World()
    layer = world.wrap()
    world.exchange()
    sizes = count_writes(world)
    layer.hold()
    layer.write(b"x" * size)
    assert sizes == []
    layer.loseConnection()
    assert len(sizes) == 1
    assert world.exchange() == b"x" * size
    assert world.client.get_shutdown() & SSL.RECEIVED_SHUTDOWN


def test_what_is_held_for_a_client_that_is_gone_is_dropped() -> None:
    world = World(Answering())
    layer = world.wrap()
    world.exchange()
    layer.hold()
    layer.write(b"* BYE\r\n")
    layer.connectionLost(Failure(ConnectionLost()))
    layer.loseConnection()
    assert world.inner.lost == 1


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class Answering(Inner):
    """Answers when it hears that the client has said all, and then ends."""

    ends = 0
    lost = 0

    def readConnectionLost(self) -> None:
        self.ends += 1

    def writeConnectionLost(self) -> None:
        raise AssertionError

    def connectionLost(self, reason: object = None) -> None:
        self.lost += 1


def half_closed() -> World:
    world = World(Answering())
    world.wrap()
    world.exchange()
    world.client.send(b"a LOGOUT\r\n")
    world.client.shutdown()
    return world


def test_a_client_that_has_said_all_gets_its_answers() -> None:
    world = half_closed()
    assert world.exchange() == b""
    assert (world.inner.said, world.inner.ends) == (b"a LOGOUT\r\n", 1)
    assert not world.transport.disconnecting
    world.layer.write(b"x" * 50_000)
    assert world.exchange() == b"x" * 50_000
    # Whatever else it sends means nothing, and ends nothing.
    world.transport.protocol.dataReceived(b"x" * 100_000)
    world.layer.readConnectionLost()
    assert (world.inner.ends, world.transport.disconnecting) == (1, False)
    world.layer.loseConnection()
    assert world.exchange() == b""
    assert world.client.get_shutdown() & SSL.RECEIVED_SHUTDOWN
    assert world.transport.disconnecting


def test_an_answer_in_the_same_turn_as_the_end() -> None:
    world = half_closed()
    inner = world.inner

    def end() -> None:
        world.layer.write(b"* BYE\r\n")
        world.layer.loseConnection()

    inner.readConnectionLost = end  # type: ignore[attr-defined]
    assert world.exchange() == b"* BYE\r\n"
    assert world.transport.disconnecting


@pytest.mark.parametrize("size", [0, 50_000])
def test_a_held_answer_leaves_before_the_transport_is_ended(size: int) -> None:
    """Where both sides have said close_notify the transport ends at once, with what a full socket has not taken by then."""
    world = half_closed()
    assert world.exchange() == b""
    world.layer.hold()
    world.layer.write(b"x" * size)
    ended_with: list[bool] = []
    lose = world.transport.loseConnection

    def counted() -> None:
        ended_with.append(bool(world.transport.value()))
        lose()

    world.transport.loseConnection = counted
    world.layer.loseConnection()
    assert ended_with == [True]
    assert world.exchange() == b"x" * size
    assert world.client.get_shutdown() & SSL.RECEIVED_SHUTDOWN


def test_the_end_of_both_sides_ends_the_transport() -> None:
    world = World(Answering())
    world.wrap()
    world.exchange()
    world.layer.loseConnection()
    assert not world.transport.disconnecting
    world.exchange()
    world.client.shutdown()
    world.exchange()
    assert (world.inner.ends, world.transport.disconnecting) == (0, True)


def test_a_socket_that_ends_without_close_notify_is_a_broken_connection() -> None:
    world = World(Answering())
    world.wrap()
    world.exchange()
    world.layer.readConnectionLost()
    assert (world.inner.ends, world.transport.disconnecting, world.transport.disconnected) == (0, True, True)


def test_a_protocol_that_knows_no_half_is_closed() -> None:
    world = World()
    world.wrap()
    world.exchange()
    world.client.shutdown()
    world.exchange()
    assert world.transport.disconnecting


@needs_library
def test_a_client_that_asks_for_new_keys_without_end_is_cut() -> None:
    world = World(Answering())
    reasons: list[Any] = []
    world.inner.connectionLost = lambda reason: reasons.append(reason.value)
    layer = world.wrap()
    client = KeyUpdater(layer, world.transport)
    client.update(100)
    assert len(world.transport.value()) > 1000  # each is answered
    assert not world.transport.disconnected
    client.update(5000)
    assert len(world.transport.value()) < MAX_UNSOLICITED + 10_000
    assert world.transport.disconnected
    layer.connectionLost(Failure(ConnectionLost()))
    assert [type(reason) for reason in reasons] == [TooManyAnswers]
    client.close()


@pytest.mark.parametrize("has_all", [True, False])
def test_tcp_ends_before_the_client_closes_where_it_has_all_and_close_notify(has_all: bool) -> None:
    world = World()
    layer = world.wrap()
    world.exchange()
    world.transport.delivered = has_all
    layer.write(b"* BYE\r\n")
    assert not layer.end_if_delivered()  # its close_notify has not been said
    layer.loseConnection()
    assert not world.transport.disconnecting
    assert layer.end_if_delivered() == has_all
    assert world.transport.disconnecting == has_all


def test_tcp_does_not_end_over_what_waits_to_be_sealed() -> None:
    world = World()
    layer = world.wrap()
    world.transport.delivered = True
    layer.write(b"before the handshake")
    layer.loseConnection()
    assert not layer.end_if_delivered()


def test_where_a_transport_cannot_tell_the_client_closes_first() -> None:
    world = World()
    layer = world.wrap()
    world.exchange()
    layer.loseConnection()
    assert not layer.end_if_delivered()


def test_nothing_is_read_of_a_client_that_is_gone_and_was_answered() -> None:
    world = World()
    layer = world.wrap()
    world.exchange()
    layer.loseConnection()
    world.client.send(b"a NOOP\r\n")
    layer.getHandle().bio_write(world.client.bio_read(65536))
    layer.connectionLost(Failure(ConnectionDone()))
    assert world.inner.said == b""
    assert world.inner.lost.check(ConnectionDone)
