"""TLS on a transport: Twisted's own layer, with what mail needs of it, by public methods alone.

Twisted's layer drives an `OpenSSL.SSL.Connection`. Here it gets a `BoundedConnection` in its place, which decides what the layer
would not ask for:

*   A client that sends its last commands and then close_notify still reads (RFC 8446 6.1), and gets its answers, as one does
    that closes its side of a TCP connection. Twisted's layer would close both directions.
*   OpenSSL answers KeyUpdate (RFC 8446 4.6.3) and a request to renegotiate (RFC 5246 7.2.2) on its own, without limit and
    whether or not the peer reads. So the octets that it sends on its own are counted and bounded.
*   The last answer leaves together with close_notify.

Twisted's usual layer collects small writes until the reactor's next turn, at the price of a timer for each answer. Here
writes are joined before they come (`net.connection.stream`), so each is sealed at once.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, Protocol, cast

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.session.channel import ClientCertificate, TLSInfo
from mailserver.tls.context.client_certificates import user_of
from mailserver.tls.context.context_map import parse_server_name
from mailserver.tls.context.handshake import handshake_of, verified_certificate
from mailserver.tls.context.private_names import has_extended_master_secret

RECORD_SIZE: Final = 16384
"""Octets of a whole record (RFC 8446 5.1)."""
MAX_UNSOLICITED: Final = 65536
"""Octets that OpenSSL may send on its own on one connection: its tickets, and 2,000 answers to KeyUpdate."""
_AT_ONCE: Final = 8 * RECORD_SIZE
"""Octets that are encrypted for one write to the transport."""
_READ_SIZE: Final = 2 * RECORD_SIZE


class TooManyAnswers(Exception):
    """The reason of `connectionLost` where a peer makes OpenSSL answer without end."""


class TlsTransport(Protocol):
    """What a connection may ask of its TLS layer, beyond `ITransport`."""

    def hold(self) -> None:
        """Hold back what is written from now on: it leaves with the close_notify of `loseConnection`, which must follow."""

    def end_if_delivered(self) -> bool:
        """After `loseConnection`: close TCP if the client's machine has acknowledged everything, close_notify included."""


class TlsFactory(Protocol):
    """Puts TLS under the connections of a listener, or to a next hop."""

    def wrap(self, protocol: IProtocol, transport: Any, /) -> Any:
        """Have TLS carry all of a transport's octets from now on. The protocol's own transport is what returns."""


class BoundedConnection:
    """An `SSL.Connection` for Twisted's layer, with the bounds above."""

    def __init__(self, connection: SSL.Connection, layer: StockTls) -> None:
        self.connection = connection
        self.unsolicited = 0
        """Octets that OpenSSL has sent on its own after the handshake."""
        self.is_held = False
        """Are encrypted octets held back until `shutdown`?"""
        self.ignores_input = False
        self._kept: list[bytes] = []
        self._layer = layer
        self._is_established = False
        self._is_own_data = False
        """Is OpenSSL's output what the layer has sent, not an answer of its own?"""

    def __getattr__(self, name: str) -> Any:
        """Everything else is pyOpenSSL's."""
        return getattr(self.connection, name)

    def do_handshake(self) -> None:
        """See pyOpenSSL's."""
        self.connection.do_handshake()
        self._is_established = True

    def bio_write(self, data: bytes) -> int:
        """See pyOpenSSL's."""
        self._is_own_data = False
        return self.connection.bio_write(data)

    def recv(self, size: int) -> bytes:
        """As pyOpenSSL's, but that close_notify is the end of input alone. Raises: SSL.Error."""
        if self.ignores_input:
            raise SSL.WantReadError
        try:
            return self.connection.recv(size)
        except SSL.ZeroReturnError:
            if self._layer.end_input():
                raise SSL.WantReadError from None
            raise

    def send(self, data: bytes) -> int:
        """See pyOpenSSL's. Raises: SSL.Error."""
        self._is_own_data = True
        return self.connection.send(data)

    def bio_read(self, _size: int) -> bytes:
        """Return all of OpenSSL's output. Raises: SSL.WantReadError."""
        if self.is_held:
            # OpenSSL's memory never shrinks again, so it must not grow.
            with suppress(SSL.WantReadError):
                self._kept.append(self._read_all())
            raise SSL.WantReadError
        data = self._read_all()
        if self._is_established and not self._is_own_data:
            self.unsolicited += len(data)
        self._is_own_data = False
        if self._kept:
            data = self.release() + data
        return data

    def release(self) -> bytes:
        """Return what was held back; nothing is held back from now on."""
        self.is_held = False
        data = b"".join(self._kept)
        self._kept.clear()
        return data

    def _read_all(self) -> bytes:
        data = self.connection.bio_read(_READ_SIZE)
        if len(data) < _READ_SIZE:
            return data
        pieces = [data]
        try:
            while True:
                pieces.append(self.connection.bio_read(_READ_SIZE))
        except SSL.WantReadError:
            return b"".join(pieces)

    def shutdown(self) -> bool:
        """Send close_notify after what was held back. Raises: SSL.Error."""
        self.is_held = False
        self._is_own_data = True
        return self.connection.shutdown()


@implementer(IHalfCloseableProtocol, IFileDescriptorReceiver)
class StockTls(TLSMemoryBIOProtocol):
    """The TLS layer between a transport and a protocol."""

    bounded: BoundedConnection
    """Set by the factory's creator."""
    _input_has_ended = False
    _was_cut = False

    def getHandle(self) -> SSL.Connection | None:
        """The connection of pyOpenSSL; None after the end."""
        handle: BoundedConnection | None = super().getHandle()
        return None if handle is None else handle.connection

    def dataReceived(self, data: bytes) -> None:
        """Decrypt what the peer sends. What follows close_notify is ignored (RFC 8446 6.1)."""
        if self._input_has_ended:
            return
        super().dataReceived(data)
        if self.bounded.unsolicited > MAX_UNSOLICITED and not self._was_cut:
            self._was_cut = True
            self.failVerification(Failure(TooManyAnswers("the peer has the TLS layer answer without end")))

    def write(self, data: bytes) -> None:
        """Encrypt and send. Several records leave together, as each write to a socket is a system call."""
        bounded = self.bounded
        if bounded.is_held or len(data) <= RECORD_SIZE:
            super().write(data)
            return
        for at in range(0, len(data), _AT_ONCE):
            bounded.is_held = True
            try:
                super().write(data[at : at + _AT_ONCE])
            finally:
                self._release()

    def hold(self) -> None:
        """See TlsTransport."""
        self.bounded.is_held = True

    def loseConnection(self) -> None:
        """As the parent; held octets leave now at the latest."""
        super().loseConnection()
        self._release()

    def end_if_delivered(self) -> bool:
        """See TlsTransport."""
        return close_if_delivered(self.getHandle(), self.transport)

    def readConnectionLost(self) -> None:
        """The transport's input has ended. Without close_notify before it, the connection is broken."""
        if not self._input_has_ended:
            cast("Any", self.transport).abortConnection()

    def writeConnectionLost(self) -> None:
        """Nothing to do: only this side closes it."""

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Pass on a descriptor that came over a Unix socket."""
        cast("Any", self.wrappedProtocol).fileDescriptorReceived(descriptor)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """As the parent; input that the protocol would not get is not decrypted."""
        self.bounded.ignores_input = bool(self.disconnecting) or self._input_has_ended
        super().connectionLost(reason)

    def end_input(self) -> bool:
        """Report the peer's close_notify to the protocol, once; False if both directions are to end."""
        protocol = self.wrappedProtocol
        if self.disconnecting or not IHalfCloseableProtocol.providedBy(protocol):
            return False
        if not self._input_has_ended:
            self._input_has_ended = True
            protocol.readConnectionLost()
        return True

    def _release(self) -> None:
        data = self.bounded.release()
        if data and self.connected:
            cast("ITransport", self.transport).write(data)


def close_if_delivered(connection: SSL.Connection | None, transport: Any) -> bool:
    """Close a transport if close_notify was sent and the peer's machine has acknowledged it; False if that is unknown.

    The peer's own close_notify need not be waited for then (RFC 8446 6.1). Unacknowledged octets would be lost if the peer
    happened to send something after the close (RFC 9293 3.6.1).
    """
    said = connection is not None and connection.get_shutdown() & SSL.SENT_SHUTDOWN
    if not said or not getattr(transport, "delivered", False):
        return False
    transport.loseConnection()
    return True


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class _BoundedCreator:
    """Wraps the connections of another creator."""

    def __init__(self, creator: Any) -> None:
        self._creator = creator

    def serverConnectionForTLS(self, tlsProtocol: Any) -> Any:  # noqa: N803 - Twisted's name
        """See IOpenSSLServerConnectionCreator."""
        tlsProtocol.bounded = BoundedConnection(self._creator.serverConnectionForTLS(tlsProtocol), tlsProtocol)
        return tlsProtocol.bounded

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:  # noqa: N803 - Twisted's name
        """See IOpenSSLClientConnectionCreator."""
        tlsProtocol.bounded = BoundedConnection(self._creator.clientConnectionForTLS(tlsProtocol), tlsProtocol)
        return tlsProtocol.bounded


class StockTlsFactory(TLSMemoryBIOFactory):
    """See TlsFactory."""

    protocol = StockTls

    def __init__(
        self,
        creator: IOpenSSLServerConnectionCreator | IOpenSSLClientConnectionCreator,
        clock: IReactorTime,
        *,
        is_client: bool = False,
    ) -> None:
        super().__init__(
            _BoundedCreator(creator),
            isClient=is_client,
            wrappedFactory=cast("IProtocolFactory", Factory()),
            clock=clock,
        )

    def wrap(self, protocol: IProtocol, transport: Any) -> StockTls:
        """See TlsFactory."""
        layer = StockTls(cast("Any", self), protocol, False)  # False: it is connected already
        give_transport(transport, layer)
        layer.makeConnection(transport)
        return layer


def give_transport(transport: Any, protocol: Any) -> None:
    """Connect a transport of Twisted, or a wrapper of one, to another protocol."""
    if isinstance(transport, ProtocolWrapper):
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol


_agreed = lru_cache(maxsize=256)(TLSInfo)
"""Most connections agree on the same."""


def tls_info(connection: SSL.Connection) -> TLSInfo:
    """Return what both sides have agreed on; after the handshake."""
    return _agreed(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        server_name=parse_server_name(connection.get_servername()),
        alpn=connection.get_alpn_proto_negotiated().decode("ascii") or None,
        client=_client(connection),
        host=handshake_of(connection).host,
    )


def _client(connection: SSL.Connection) -> ClientCertificate | None:
    shown = verified_certificate(connection)
    if shown is None:
        return None
    return ClientCertificate(
        user=user_of(shown, handshake_of(connection).demand.user),
        subject=shown.subject.rfc4514_string(),
        fingerprint=shown.fingerprint(hashes.SHA256()).hex(),
    )


def channel_binding(connection: SSL.Connection) -> bytes | None:
    """Return the octets of tls-exporter (RFC 9266); after the handshake.

    None for TLS 1.2 without the extended master secret: two connections may then have the same (RFC 7627 1,
    RFC 9266).
    """
    if connection.get_protocol_version() < SSL.TLS1_3_VERSION and not has_extended_master_secret(connection):
        return None
    return connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
