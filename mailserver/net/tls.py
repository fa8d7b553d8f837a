"""TLS on a transport: Twisted's own protocol, with writes that suit answers which are joined already.

Twisted's usual transport collects small writes until the reactor's next turn, at the price of a timer for each answer.
Here writes are joined before they come (`net.stream`), so they are sealed at once, which saves a third of what a
small answer costs. They are sealed a record at a time: larger pieces gain nothing that can be measured, and OpenSSL
keeps its buffer at the size of the largest for as long as the connection lives, and idle connections are many.

A client that sends its last commands and then close_notify still reads (RFC 8446 6.1), and gets its answers, as one does
that closes its side of a TCP connection. Twisted's layer closes both directions.
"""

from __future__ import annotations

from typing import Any, cast

from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.internet.interfaces import IHalfCloseableProtocol, IOpenSSLServerConnectionCreator, IProtocol, IReactorTime
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

PIECE = 16384
"""Octets of a whole record (RFC 8446 5.1)."""
_READ = 32768
_SEALED = PIECE + 4096
"""A record with what is around it, and what is left of a handshake."""


@implementer(IHalfCloseableProtocol)
class TlsTransport(TLSMemoryBIOProtocol):
    """The TLS layer between a TCP transport and a `Connection`."""

    _client_is_done = False

    def makeConnection(self, transport: Any) -> None:
        """The client is there. As the parent does it for a server, less what costs much and serves nobody here:

        declaring the interfaces of each transport, and asking OpenSSL for a handshake before the client's first octet.
        """
        factory = cast("Any", self.factory)
        self._tlsConnection = factory._creatorCallable(self)  # noqa: SLF001 - the parent's part of its factory
        self._appSendBuffer: list[bytes] = []
        self.connected = 1
        self.transport = transport
        factory.registerProtocol(self)
        if self._connectWrapped:
            self.wrappedProtocol.makeConnection(self)

    def readConnectionLost(self) -> None:
        """The socket brings no more. Without close_notify that is no end of TLS, but a connection that broke."""
        if not self._client_is_done:
            cast("Any", self.transport).abortConnection()

    def writeConnectionLost(self) -> None:
        """Only we close our side."""

    def _flushReceiveBIO(self) -> None:
        """As in the parent, but for close_notify where we have not said ours yet."""
        while not self._lostTLSConnection:
            try:
                data = self._tlsConnection.recv(_READ)
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                if self.disconnecting or not self._end_of_input():
                    self._shutdownTLS()
                    self._tlsShutdownFinished(None)
                break
            except SSL.Error:
                self._tlsShutdownFinished(Failure())
            else:
                if not self._aborted:
                    ProtocolWrapper.dataReceived(self, data)
        self._flushSendBIO()

    def _end_of_input(self) -> bool:
        """Tell the protocol above, once; False where there is none that ends the connection by itself."""
        above = cast("Any", self.wrappedProtocol)
        if not IHalfCloseableProtocol.providedBy(above):
            return False
        if not self._client_is_done:
            self._client_is_done = True
            # Nothing would ever take what comes now out of OpenSSL's memory.
            cast("Any", self).dataReceived = _forget
            above.readConnectionLost()
        return True

    def _write(self, data: Any) -> None:
        """Seal and hand on; what OpenSSL does not take before the handshake is done waits, as in the parent."""
        if self._lostTLSConnection:
            return
        records: list[bytes] = []
        left = data
        failure: Failure | None = None
        while left:
            piece = left if len(left) <= PIECE else memoryview(left)[:PIECE]
            try:
                sent = self._tlsConnection.send(piece)
            except SSL.WantReadError:
                self._bufferedWrite(bytes(left))
                break
            except SSL.Error:
                failure = Failure()
                break
            left = memoryview(left)[sent:] if sent < len(left) else b""
            self._take_sealed(records)
        if records:
            # Together: each piece that the socket gets costs a call of the system.
            cast("Any", self.transport).write(records[0] if len(records) == 1 else b"".join(records))
        if failure is not None:
            self._tlsShutdownFinished(failure)

    def _take_sealed(self, records: list[bytes]) -> None:
        connection = self._tlsConnection
        try:
            while len(sealed := connection.bio_read(_SEALED)) == _SEALED:
                records.append(sealed)
        except SSL.WantReadError:
            return  # it ended with a full read
        records.append(sealed)


def channel_binding(connection: SSL.Connection) -> bytes | None:
    """The octets of tls-exporter (RFC 9266 4) after the handshake.

    None where TLS 1.2 goes on without the extended master secret: two connections may then have the same (RFC 7627 1,
    RFC 9266 4.2).
    """
    if connection.get_protocol_version() < SSL.TLS1_3_VERSION and not _has_extended_master_secret(connection):
        return None
    return connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")


def _has_extended_master_secret(connection: SSL.Connection) -> bool:
    # pyOpenSSL has no call for it, but its bindings do.
    return bool(lib.SSL_get_extms_support(connection._ssl))  # noqa: SLF001


def _forget(data: bytes) -> None:
    """What stands behind close_notify (RFC 8446 6.1: "Any data received after ... MUST be ignored")."""


class TlsFactory(TLSMemoryBIOFactory):
    """Puts a listener's TLS under its connections: at once (as a factory), or when asked (`wrap`)."""

    protocol = TlsTransport
    noisy = False

    def __init__(
        self, creator: IOpenSSLServerConnectionCreator, clock: IReactorTime, factory: Factory | None = None
    ) -> None:
        """`factory` makes the protocols inside implicit TLS."""
        super().__init__(creator, isClient=False, wrappedFactory=cast("Any", factory), clock=clock)

    def wrap(self, protocol: IProtocol, transport: Any) -> TlsTransport:
        """STARTTLS: from now on all of the transport's bytes are TLS. The protocol's own transport is what returns."""
        layer = TlsTransport(cast("Any", self), protocol, False)  # False: it is connected already
        transport.protocol = layer
        layer.makeConnection(transport)
        return layer
