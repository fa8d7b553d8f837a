"""The factories over what endpoints of Twisted put below them: TLS layers, readers of PROXY headers, other wrappers."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

import pytest
import trustme
from OpenSSL import SSL
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IFileDescriptorReceiver, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.config.model import Limits, Listener
from mailserver.errors import ConnectionLost
from mailserver.net.connection.acceptance import HANDSHAKE_TIME
from mailserver.net.connection.connection import NO_HANDSHAKE, Connection
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.net.connection.factories import IMAPFactory, LMTPFactory
from mailserver.net.connection.listener_context import MakeSession, TlsCreators
from mailserver.net.connection.open_connections import GRACE, LAST_GRACE, OpenConnections, Shutdown
from mailserver.net.connection.proxy_header import HEADER_TIME
from mailserver.net.ipc.event_counters import EventCounters
from mailserver.net.log.format import body_of
from mailserver.net.log.refusal_log import MOST
from mailserver.net.transport.stock import stock_transports
from mailserver.net.transport.tls import MAX_UNSOLICITED, StockTlsFactory
from mailserver.session.channel import Channel
from tests.net.key_updates import KeyUpdater, needs_library

AUTHORITY = trustme.CA()
PROXY = IPv4Address("TCP", "198.51.100.1", 9)
HERE = IPv4Address("TCP", "198.51.100.2", 143)
HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEADER_V2 = SIGNATURE + b"\x21\x11\0\x11" + bytes((192, 0, 2, 7, 192, 0, 2, 1, 18, 103, 0, 143)) + b"\x04\0\2tl"
"""With a field behind the addresses."""
WITHOUT_CLIENT = [
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN 192.0.2.7 192.0.2.1 4711 143\r\n",
    SIGNATURE + b"\x20\0\0\0",  # LOCAL
    SIGNATURE + b"\x21\0\0\0",  # UNSPEC
    SIGNATURE + b"\x21\x31\0\xd8" + bytes(216),  # a Unix socket
    SIGNATURE + b"\x21\x41\0\0",  # a family that is not known
]


def options(**more: Any) -> CertificateOptions:
    issued = AUTHORITY.issue_cert("mail.example.org")
    private = PrivateCertificate.loadPEM(issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes())
    return CertificateOptions(privateKey=private.privateKey.original, certificate=private.original, **more)


@implementer(IOpenSSLServerConnectionCreator)
class Creator:
    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N803
        del tlsProtocol
        return SSL.Connection(options().getContext(), None)


class Echo:
    """Says what it knows of its client, then sends back what it hears."""

    mailbox_name = None
    command = ""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def run(self) -> None:
        info = self.channel.info
        self.channel.write(f"{info.protocol} {info.peer} {info.local}\r\n".encode())
        while True:
            data = await self.channel.read(600)
            assert isinstance(data, bytes)
            self.channel.write(data)


class Services:
    """`FactoryServices` without any store."""

    def __init__(self, **limits: Any) -> None:
        self.running = True
        self.reactor = Clock()
        self.counts = ConnectionCounts(Limits(**limits))
        self.event_counters = EventCounters()
        self.client_log = None
        self.tls: TlsCreators | None = None
        self.transports = stock_transports("")
        self.connections = OpenConnections()

    def session_maker(self, family: str) -> MakeSession:
        del family
        return Echo

    def listeners(self) -> list[Listener]:
        return []

    def open_connections(self) -> OpenConnections:
        return self.connections


class Transport(StringTransport):
    """A TCP transport that remembers how it was ended."""

    protocol: Any = None
    aborted = disconnected = False

    def abortConnection(self) -> None:
        self.aborted = self.disconnected = True


class Client:
    """One connection to a factory; over TLS when asked, by OpenSSL in memory."""

    def __init__(self, services: Services, factory: Any, peer: Any = PROXY, here: Any = HERE) -> None:
        self.clock = services.reactor
        self.transport = Transport(hostAddress=here, peerAddress=peer)
        self.protocol = self.transport.protocol = factory.buildProtocol(peer)
        self.protocol.makeConnection(self.transport)
        self.tls: SSL.Connection | None = None

    def say(self, data: bytes) -> None:
        if self.tls is not None:
            self.tls.send(data)
            data = self.tls.bio_read(65536)
        self.transport.protocol.dataReceived(data)

    def heard(self) -> bytes:
        self.clock.advance(0)  # Twisted's layer joins small writes
        value: bytes = self.transport.value()
        self.transport.clear()
        if self.tls is None:
            return value
        if value:
            self.tls.bio_write(value)
        heard = b""
        with contextlib.suppress(SSL.WantReadError, SSL.ZeroReturnError):
            while True:
                heard += self.tls.recv(1000)
        return heard

    def begin_tls(self, certificate: trustme.LeafCert | None = None) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if certificate is not None:
            certificate.configure_cert(context)
        tls = SSL.Connection(context, None)
        tls.set_connect_state()
        tls.set_tlsext_host_name(b"mail.example.org")
        for _ in range(4):
            with contextlib.suppress(SSL.WantReadError):
                tls.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                self.transport.protocol.dataReceived(tls.bio_read(65536))
            self.clock.advance(0)
            if value := self.transport.value():
                self.transport.clear()
                tls.bio_write(value)
        self.tls = tls

    def lose(self) -> None:
        self.transport.protocol.connectionLost(Failure(ConnectionLost()))


class Recorder:
    """An endpoint that only takes the factory."""

    def listen(self, factory: Any) -> None:
        self.factory = factory


def behind_haproxy(factory: Any) -> Any:
    """What `haproxy:` makes of a factory."""
    recorder: Any = Recorder()
    proxyEndpoint(recorder).listen(factory)
    return recorder.factory


def over_tls(factory: Any, services: Services, **more: Any) -> TLSMemoryBIOFactory:
    return TLSMemoryBIOFactory(options(**more), False, factory, clock=services.reactor)


def test_plain_transports() -> None:
    services = Services()
    assert Client(services, IMAPFactory(services)).heard() == b"imap 198.51.100.1 198.51.100.2:143\r\n"
    unix = UNIXAddress(b"/run/mail.socket")
    assert Client(services, LMTPFactory(services), unix, unix).heard() == b"lmtp None /run/mail.socket\r\n"
    assert len(services.connections) == 2


@pytest.mark.parametrize("secured", [False, True])
def test_a_descriptor_that_a_client_of_a_unix_socket_passes(secured: bool) -> None:
    """Its close may block for as long as the client likes, so it is not left to Twisted's transport."""
    services = Services()
    unix = UNIXAddress(b"/run/mail.socket")
    client = Client(services, LMTPFactory(services), unix, unix)
    if secured:
        StockTlsFactory(Creator(), services.reactor).wrap(client.protocol, client.transport)
    receiver: Any = client.transport.protocol
    assert IFileDescriptorReceiver.providedBy(receiver)
    passed, kept = socket.socketpair()
    with passed, kept:
        receiver.fileDescriptorReceived(os.dup(passed.fileno()))
        receiver.fileDescriptorReceived(passed.detach())
        assert client.transport.aborted
        services.reactor.advance(0)
        kept.settimeout(30)
        assert kept.recv(1) == b"", "it is closed"


@pytest.mark.parametrize("layers", [[], ["tls"], ["haproxy"], ["tls", "haproxy"], ["haproxy", "tls"]], ids=".".join)
def test_nobody_is_served_before_the_start(layers: list[str]) -> None:
    """A wrapping factory would connect its wrapper to None."""
    services = Services()
    services.running = False
    factory: Any = IMAPFactory(services)
    for layer in layers:
        factory = over_tls(factory, services) if layer == "tls" else behind_haproxy(factory)
    client = Client(services, factory)
    assert client.heard() == b""
    assert client.transport.aborted or client.transport.disconnecting
    client.lose()
    assert not services.connections
    assert services.counts.total == 0


def test_a_listener_of_another_protocol() -> None:
    with pytest.raises(ValueError, match="IMAPFactory does not serve pop3"):
        IMAPFactory(Services(), listener=Listener("pop3"))


def test_tls_of_the_endpoint_is_implicit_tls() -> None:
    services = Services()
    client = Client(
        services, over_tls(IMAPFactory(services, listener=Listener("imap", allow_cleartext=True)), services)
    )
    client.begin_tls()
    assert client.heard() == b"imaps 198.51.100.1 198.51.100.2:143\r\n"
    (connection,) = services.connections
    info = connection.info
    assert info.tls is not None
    assert (info.tls.version, info.tls.server_name) == ("TLSv1.3", "mail.example.org")
    assert info.password_allowed
    assert not info.cleartext_allowed
    assert not info.starttls_offered
    client.say(b"hello")
    assert client.heard() == b"hello"


def update_keys(client: Client, times: int) -> KeyUpdater:
    """A client that asks an endpoint's TLS layer for new keys, and takes no answer."""
    updater = KeyUpdater(client.transport.protocol, client.transport)
    client.clock.advance(0)
    client.transport.clear()
    updater.update(times)
    return updater


@needs_library
@pytest.mark.parametrize("layers", [["tls"], ["tls", "haproxy"], ["haproxy", "tls"]], ids=".".join)
def test_an_endpoints_tls_layer_that_is_to_answer_without_end(layers: list[str]) -> None:
    services = Services()
    factory: Any = IMAPFactory(services)
    for layer in layers:
        factory = over_tls(factory, services) if layer == "tls" else behind_haproxy(factory)
    lines: list[str] = []

    def hear(event: Any) -> None:
        lines.append(body_of(event) or "")

    client = Client(services, factory)
    if layers[-1] == "haproxy":
        client.say(HEADER)
    few = update_keys(client, 100)
    assert not client.transport.aborted
    if layers == ["haproxy", "tls"]:
        return  # no session yet: the time of the header bounds it
    few.update(5000)
    assert client.transport.aborted
    assert len(client.transport.value()) < MAX_UNSOLICITED + 10_000
    globalLogPublisher.addObserver(hear)
    try:
        client.lose()
    finally:
        globalLogPublisher.removeObserver(hear)
    assert any(line.startswith("connection-cut ") and "answer without end" in line for line in lines)
    assert not services.connections
    few.close()


@needs_library
def test_what_a_session_writes_is_no_answer_of_the_tls_layer() -> None:
    services = Services()
    client = Client(services, over_tls(IMAPFactory(services), services))
    client.begin_tls()
    for _ in range(20):
        client.say(b"x" * 16_000)
        assert client.heard()
    assert not client.transport.aborted


def test_a_handshake_that_does_not_come() -> None:
    services = Services()
    lines: list[str] = []

    def hear(event: Any) -> None:
        lines.append(body_of(event) or "")

    client = Client(services, over_tls(IMAPFactory(services), services))
    globalLogPublisher.addObserver(hear)
    try:
        services.reactor.advance(HANDSHAKE_TIME)
    finally:
        globalLogPublisher.removeObserver(hear)
    assert client.transport.aborted
    assert any(NO_HANDSHAKE in line for line in lines)


def test_a_certificate_that_the_endpoint_has_verified_is_logged_and_is_nobodys() -> None:
    services = Services()
    authority = Certificate.loadPEM(AUTHORITY.cert_pem.bytes())
    factory = over_tls(IMAPFactory(services), services, trustRoot=trustRootFromCertificates([authority]))
    lines: list[str] = []

    def hear(event: Any) -> None:
        lines.append(body_of(event) or "")

    globalLogPublisher.addObserver(hear)
    try:
        client = Client(services, factory)
        client.begin_tls(AUTHORITY.issue_cert("anna@example.org", common_name="anna"))
    finally:
        globalLogPublisher.removeObserver(hear)
    (connection,) = services.connections
    assert connection.info.tls is not None
    assert connection.info.tls.client is None
    (line,) = [line for line in lines if line.startswith("client-certificate ")]
    assert "CN=anna" in line
    assert "fingerprint=" in line


class Silent(WrappingFactory):  # type: ignore[type-arg]
    """Wrappers that pass `handshakeCompleted` on to nobody."""


def test_a_wrapper_over_tls_that_tells_nothing_of_the_handshake() -> None:
    """The session begins with what the client says first."""
    services = Services()
    client = Client(services, over_tls(Silent(IMAPFactory(services)), services))
    client.begin_tls()
    assert client.heard() == b""
    client.say(b"hello")
    assert client.heard() == b"imaps 198.51.100.1 198.51.100.2:143\r\nhello"


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_greeting_waits_for_the_header(size: int) -> None:
    services = Services()
    client = Client(services, behind_haproxy(IMAPFactory(services)))
    stream = HEADER + b"hello"
    for at in range(0, len(stream), size):
        client.say(stream[at : at + size])
    assert client.heard() == b"imap 192.0.2.7 192.0.2.1:143\r\nhello"


def test_a_header_alone_begins_the_session() -> None:
    services = Services()
    client = Client(services, behind_haproxy(IMAPFactory(services)))
    client.say(HEADER)
    assert client.heard() == b"imap 192.0.2.7 192.0.2.1:143\r\n"
    client.say(b"hello")
    assert client.heard() == b"hello"


@pytest.mark.parametrize("header", WITHOUT_CLIENT)
def test_a_header_without_a_client(header: bytes) -> None:
    """Twisted's reader refuses most of them."""
    services = Services()
    client = Client(services, behind_haproxy(IMAPFactory(services)))
    client.say(header + b"hello")
    assert client.heard() == b"imap 198.51.100.1 198.51.100.2:143\r\nhello"
    assert not client.transport.disconnecting


@pytest.mark.parametrize("header", [HEADER, HEADER_V2, *WITHOUT_CLIENT])
def test_every_part_of_a_header_is_waited_for(header: bytes) -> None:
    for cut in range(1, len(header)):
        services = Services()
        client = Client(services, behind_haproxy(IMAPFactory(services)))
        client.say(header[:cut])
        assert client.heard() == b""
        assert not client.transport.disconnecting
        client.say(header[cut:])
        assert client.heard().startswith(b"imap 1")
        assert not client.transport.disconnecting


def test_a_header_that_does_not_come_or_is_none() -> None:
    services = Services()
    client = Client(services, behind_haproxy(IMAPFactory(services)))
    services.reactor.advance(HEADER_TIME)
    assert client.transport.aborted
    client.lose()
    client = Client(services, behind_haproxy(IMAPFactory(services)))
    client.say(b"PROXY TCP4 192.0.2.700 192.0.2.1 1 143\r\n")
    assert client.transport.aborted
    client.lose()
    assert not services.connections
    assert services.counts.total == 0


def test_what_is_no_header_is_logged_and_does_not_fill_the_log() -> None:
    services = Services()
    factory = behind_haproxy(IMAPFactory(services))
    lines: list[str] = []

    def hear(event: Any) -> None:
        lines.append(body_of(event) or "")

    globalLogPublisher.addObserver(hear)
    try:
        for _ in range(2 * MOST):
            client = Client(services, factory)
            client.say(b"nonsense\r\n")
            assert client.transport.aborted
            client.lose()
    finally:
        globalLogPublisher.removeObserver(hear)
    assert len(lines) == MOST
    assert all(line.startswith("proxy-header-refused ") and "no PROXY header" in line for line in lines)


def test_the_limits_are_those_of_the_client_in_the_header() -> None:
    services = Services(unauthenticated_per_address=1)
    factory = behind_haproxy(IMAPFactory(services))
    waiting = [Client(services, factory) for _ in range(3)]  # as many of the proxy's as there are
    waiting[0].say(HEADER)
    waiting[1].say(HEADER)
    assert waiting[1].heard() == b"* BYE [LIMIT] too many connections\r\n"
    waiting[2].say(HEADER.replace(b"192.0.2.7", b"192.0.2.8"))
    assert waiting[2].heard() == b"imap 192.0.2.8 192.0.2.1:143\r\n"
    for client in waiting:
        client.lose()
    assert services.counts.all_own() == []


def test_same_host_means_no_proxys_address() -> None:
    services = Services()
    client = Client(services, behind_haproxy(IMAPFactory(services, listener=Listener("imap", ssl="yes"))))
    client.say(b"PROXY TCP4 192.0.2.1 192.0.2.1 4711 143\r\n")
    (connection,) = services.connections
    assert not connection.info.cleartext_allowed


def test_tls_behind_the_header() -> None:
    """As with `haproxy:tcp:` and `TLSMemoryBIOFactory`."""
    services = Services()
    client = Client(services, behind_haproxy(over_tls(IMAPFactory(services), services)))
    client.say(HEADER)
    client.begin_tls()
    assert client.heard() == b"imaps 192.0.2.7 192.0.2.1:143\r\n"


def test_the_header_behind_tls() -> None:
    """As with `haproxy:ssl:`."""
    services = Services()
    client = Client(services, over_tls(behind_haproxy(IMAPFactory(services)), services))
    client.begin_tls()
    assert client.heard() == b""
    client.say(HEADER)
    assert client.heard() == b"imaps 192.0.2.7 192.0.2.1:143\r\n"


def test_the_end_of_all() -> None:
    """A farewell at once, a cut after GRACE; what stays open is left behind."""
    services = Services()
    clients = [Client(services, IMAPFactory(services)), Client(services, IMAPFactory(services))]
    for client in clients:
        client.heard()
    ended = Shutdown(services.reactor, lambda: [services.connections]).begin()
    assert [client.heard() for client in clients] == [b"* BYE the server is shutting down\r\n"] * 2
    clients[0].lose()
    assert not ended.called
    services.reactor.advance(GRACE)
    assert clients[1].transport.aborted
    services.reactor.advance(LAST_GRACE)
    assert ended.called


def test_the_end_with_the_last_connection() -> None:
    services = Services()
    client = Client(services, IMAPFactory(services))
    ended = Shutdown(services.reactor, lambda: [services.connections]).begin()
    client.lose()
    assert ended.called
    services.reactor.advance(GRACE + LAST_GRACE)
    assert not services.reactor.getDelayedCalls()
    assert Shutdown(services.reactor, lambda: [services.connections]).begin().called


def test_a_factory_is_an_ordinary_one() -> None:
    factory = IMAPFactory(Services())
    assert isinstance(factory, Factory)
    assert factory.logPrefix() == "IMAPFactory"
    factory.doStart()
    factory.doStop()
    assert isinstance(factory.buildProtocol(PROXY), Connection)
