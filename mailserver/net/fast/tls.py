"""TLS on a transport, by the bindings below pyOpenSSL: as `net.transport.tls`, at a third of its cost for a short command.

pyOpenSSL's `send`, `recv` and `bio_read` take a buffer and often an exception each, which together cost three times as
much as what OpenSSL does for a short command. Here the bindings below them are called with one buffer for all
connections, as what is read is copied out at once; errors are left to pyOpenSSL to raise.

Octets are sealed a record at a time: larger pieces gain nothing that can be measured, and OpenSSL keeps its buffer at the size
of the largest for as long as the connection lives, and idle connections are many.
"""

from __future__ import annotations

from typing import Any, Final, cast

from OpenSSL import SSL
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IReactorTime,
)
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.net.transport.tls import (
    MOST_UNASKED,
    PIECE,
    TooManyAnswers,
    close_if_delivered,
    give_transport,
)
from mailserver.tls.context.handshake import ServerConnection

_SEALED: Final = PIECE + 4096
"""A record with what is around it, and what is left of a handshake."""
_ROOM: Final = 8 * _SEALED
"""Octets that are given to the transport at once, at most."""
_buffer: Final = _ffi.new("char[]", _ROOM)

# What a connection of pyOpenSSL consists of has no public names.
# ruff: noqa: SLF001


@implementer(IHalfCloseableProtocol)
class FastTls(TLSMemoryBIOProtocol):
    """The TLS layer between a transport and a `Connection`."""

    _client_is_done = False
    _unasked = 0
    """Octets that OpenSSL has said by itself, behind the handshake."""
    _held: list[bytes] | None = None

    def makeConnection(self, transport: Any) -> None:
        """The client is there. As the parent does it for a server, less what costs much and serves nobody here:

        declaring the interfaces of each transport, and asking OpenSSL for a handshake before the client's first octet.
        """
        factory = cast("Any", self.factory)
        self._tlsConnection = factory._creatorCallable(self)
        self._appSendBuffer: list[bytes] = []
        self.connected = 1
        self.transport = transport
        factory.registerProtocol(self)

    def hold(self) -> None:
        """See TlsTransport."""
        self._held = []

    def loseConnection(self) -> None:
        """As in the parent; what was held leaves at the latest now."""
        super().loseConnection()
        self._let_go()

    def end_if_delivered(self) -> bool:
        """See TlsTransport."""
        return close_if_delivered(self._tlsConnection, self.transport)

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held:
            self._hand_on(b"".join(held))

    def _shutdownTLS(self) -> None:
        """As in the parent; what was held leaves before the transport is ended, which takes nothing after that."""
        try:
            both = cast("Any", self._tlsConnection).shutdown()
        except SSL.Error:
            both = False  # in the middle of a handshake
        self._flushSendBIO()
        self._let_go()
        if both:
            cast("Any", self.transport).loseConnection()

    def readConnectionLost(self) -> None:
        """The socket brings no more. Without close_notify that is no end of TLS, but a connection that broke."""
        if not self._client_is_done:
            cast("Any", self.transport).abortConnection()

    def writeConnectionLost(self) -> None:
        """Only we close our side."""

    def dataReceived(self, data: bytes) -> None:
        """Octets of the client: for the handshake, then commands."""
        connection = cast("Any", self._tlsConnection)
        if not self._handshakeDone and isinstance(connection, ServerConnection):
            connection.examine(data)
        if _lib.BIO_write(connection._into_ssl, data, len(data)) != len(data):
            connection._handle_bio_errors(connection._into_ssl, -1)
        if not self._handshakeDone:
            self._checkHandshakeStatus()
            if not self._handshakeDone:
                return
        if self._appSendBuffer:
            self._unbufferPendingWrites()
        self._flushReceiveBIO()

    def _checkHandshakeStatus(self) -> None:
        """As in the parent, which has pyOpenSSL raise an exception for each flight of the client that is not the last."""
        if self._aborted:
            return
        connection = cast("Any", self._tlsConnection)
        result = _lib.SSL_do_handshake(connection._ssl)
        if result <= 0:
            if _lib.SSL_get_error(connection._ssl, result) == _lib.SSL_ERROR_WANT_READ:
                self._flushSendBIO()
                return
            try:
                connection._raise_ssl_error(connection._ssl, result)
            except SSL.Error:
                self._tlsShutdownFinished(Failure())
                return
        self._handshakeDone = True
        if IHandshakeListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.handshakeCompleted()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """As in the parent; where nobody would hear it, OpenSSL is not asked what else the client has sent."""
        if self.disconnecting or self._client_is_done:
            self._lostTLSConnection = True
        super().connectionLost(reason)

    def _flushReceiveBIO(self) -> None:
        """As in the parent, but for close_notify where we have not said ours yet."""
        connection = cast("Any", self._tlsConnection)
        while not self._lostTLSConnection:
            count = _lib.SSL_read(connection._ssl, _buffer, _ROOM)
            if count > 0:
                data = _ffi.buffer(_buffer, count)[:]
                if not self._aborted:
                    ProtocolWrapper.dataReceived(self, data)
                continue
            if _lib.SSL_get_error(connection._ssl, count) == _lib.SSL_ERROR_WANT_READ:
                break
            try:
                connection._raise_ssl_error(connection._ssl, count)
            except SSL.ZeroReturnError:
                if self.disconnecting or not self._end_of_input():
                    self._shutdownTLS()
                    self._tlsShutdownFinished(None)
                break
            except SSL.Error:
                self._tlsShutdownFinished(Failure())
        self._flushSendBIO()

    def _flushSendBIO(self) -> None:
        """Hand on what OpenSSL has to say; nothing, mostly."""
        connection = cast("Any", self._tlsConnection)
        while (count := _lib.BIO_read(connection._from_ssl, _buffer, _ROOM)) > 0:
            self._hand_on(_ffi.buffer(_buffer, count)[:])
            if self._handshakeDone:
                self._unasked += count
        if self._unasked > MOST_UNASKED and not self._aborted:
            self.failVerification(Failure(TooManyAnswers("the peer has the TLS layer answer without end")))

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
        connection = cast("Any", self._tlsConnection)
        whole = _ffi.from_buffer(data)
        size = len(data)
        at = sealed = 0
        while at < size:
            sent = _lib.SSL_write(connection._ssl, whole + at, min(size - at, PIECE))
            if sent <= 0:
                break
            at += sent
            # Together: each piece that the socket gets costs a call of the system.
            while (count := _lib.BIO_read(connection._from_ssl, _buffer + sealed, _ROOM - sealed)) > 0:
                sealed += count
                if _ROOM - sealed >= _SEALED:
                    break  # with all that there was
                self._hand_on(_ffi.buffer(_buffer, sealed)[:])
                sealed = 0
        if sealed:
            self._hand_on(_ffi.buffer(_buffer, sealed)[:])
        if at < size:
            try:
                connection._raise_ssl_error(connection._ssl, sent)
            except SSL.WantReadError:
                self._bufferedWrite(bytes(memoryview(data)[at:]))
            except SSL.Error:
                self._tlsShutdownFinished(Failure())

    def _hand_on(self, sealed: bytes) -> None:
        if self._held is not None:
            self._held.append(sealed)
        else:
            cast("Any", self.transport).write(sealed)


def _forget(data: bytes) -> None:
    """What stands behind close_notify (RFC 8446 6.1: "Any data received after ... MUST be ignored")."""


class FastTlsFactory(TLSMemoryBIOFactory):
    """See TlsFactory."""

    protocol = FastTls
    noisy = False

    def __init__(self, creator: IOpenSSLServerConnectionCreator, clock: IReactorTime) -> None:
        super().__init__(creator, isClient=False, wrappedFactory=cast("Any", None), clock=clock)

    def wrap(self, protocol: IProtocol, transport: Any) -> FastTls:
        """See TlsFactory."""
        layer = FastTls(cast("Any", self), protocol, False)  # False: it is connected already
        give_transport(transport, layer)
        layer.makeConnection(transport)
        return layer
