"""The TLS layer of `net.transport.tls` on pyOpenSSL's bindings.

Problem: pyOpenSSL's `send`, `recv` and `bio_read` each allocate a buffer and often raise an exception. Together that costs three
times as much as OpenSSL itself for a short command.

Rule: the bindings are called directly, with one buffer for all connections, since what is read is copied out at once.
pyOpenSSL still raises the errors. Octets are encrypted one record at a time: larger pieces gain nothing measurable, and
OpenSSL keeps its memory at the size of the largest for the life of a connection.
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
    MAX_UNSOLICITED,
    RECORD_SIZE,
    TooManyAnswers,
    close_if_delivered,
    give_transport,
)
from mailserver.tls.context.handshake import ServerConnection

_RECORD_ROOM: Final = RECORD_SIZE + 4096
"""Octets of one encrypted record, and of the end of a handshake."""
_BUFFER_SIZE: Final = 8 * _RECORD_ROOM
"""Most octets that the transport gets in one write."""
_buffer: Final = _ffi.new("char[]", _BUFFER_SIZE)

# The parts of a pyOpenSSL connection have no public names.
# ruff: noqa: SLF001


@implementer(IHalfCloseableProtocol)
class FastTls(TLSMemoryBIOProtocol):
    """The TLS layer between a transport and a `Connection`."""

    _input_has_ended = False
    _unsolicited = 0
    """Octets that OpenSSL has sent on its own after the handshake."""
    _held: list[bytes] | None = None

    def makeConnection(self, transport: Any) -> None:
        """As the parent, without two costly steps that a server does not need.

        These declare the interfaces of each transport, and ask OpenSSL for a handshake before the client's first octet.
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
        """As the parent; held octets leave now at the latest."""
        super().loseConnection()
        self._release()

    def end_if_delivered(self) -> bool:
        """See TlsTransport."""
        return close_if_delivered(self._tlsConnection, self.transport)

    def _release(self) -> None:
        held, self._held = self._held, None
        if held:
            self._send(b"".join(held))

    def _shutdownTLS(self) -> None:
        """As the parent; held octets leave before the transport closes, which accepts nothing afterwards."""
        try:
            both = cast("Any", self._tlsConnection).shutdown()
        except SSL.Error:
            both = False  # during a handshake
        self._flushSendBIO()
        self._release()
        if both:
            cast("Any", self.transport).loseConnection()

    def readConnectionLost(self) -> None:
        """The transport's input has ended. Without close_notify before it, the connection is broken."""
        if not self._input_has_ended:
            cast("Any", self.transport).abortConnection()

    def writeConnectionLost(self) -> None:
        """Nothing to do: only this side closes it."""

    def dataReceived(self, data: bytes) -> None:
        """Decrypt what the client sends."""
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
        """As the parent, without an exception for each flight of the client but the last."""
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
        """As the parent; input that the protocol would not get is not decrypted."""
        if self.disconnecting or self._input_has_ended:
            self._lostTLSConnection = True
        super().connectionLost(reason)

    def _flushReceiveBIO(self) -> None:
        """As the parent, except that the client's close_notify ends input alone until this side has sent its own."""
        connection = cast("Any", self._tlsConnection)
        while not self._lostTLSConnection:
            count = _lib.SSL_read(connection._ssl, _buffer, _BUFFER_SIZE)
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
                if self.disconnecting or not self._end_input():
                    self._shutdownTLS()
                    self._tlsShutdownFinished(None)
                break
            except SSL.Error:
                self._tlsShutdownFinished(Failure())
        self._flushSendBIO()

    def _flushSendBIO(self) -> None:
        """Send what OpenSSL has to send, which mostly is nothing."""
        connection = cast("Any", self._tlsConnection)
        while (count := _lib.BIO_read(connection._from_ssl, _buffer, _BUFFER_SIZE)) > 0:
            self._send(_ffi.buffer(_buffer, count)[:])
            if self._handshakeDone:
                self._unsolicited += count
        if self._unsolicited > MAX_UNSOLICITED and not self._aborted:
            self.failVerification(Failure(TooManyAnswers("the peer has the TLS layer answer without end")))

    def _end_input(self) -> bool:
        """Report the end of input to the protocol, once; False if the protocol does not know a half-close."""
        above = cast("Any", self.wrappedProtocol)
        if not IHalfCloseableProtocol.providedBy(above):
            return False
        if not self._input_has_ended:
            self._input_has_ended = True
            # What follows would stay in OpenSSL's memory.
            cast("Any", self).dataReceived = _forget
            above.readConnectionLost()
        return True

    def _write(self, data: Any) -> None:
        """Encrypt and send. Before the end of the handshake octets wait, as in the parent."""
        if self._lostTLSConnection:
            return
        connection = cast("Any", self._tlsConnection)
        whole = _ffi.from_buffer(data)
        size = len(data)
        at = sealed = 0
        while at < size:
            sent = _lib.SSL_write(connection._ssl, whole + at, min(size - at, RECORD_SIZE))
            if sent <= 0:
                break
            at += sent
            # Several records leave together: each write to the socket is a system call.
            while (count := _lib.BIO_read(connection._from_ssl, _buffer + sealed, _BUFFER_SIZE - sealed)) > 0:
                sealed += count
                if _BUFFER_SIZE - sealed >= _RECORD_ROOM:
                    break  # all is read
                self._send(_ffi.buffer(_buffer, sealed)[:])
                sealed = 0
        if sealed:
            self._send(_ffi.buffer(_buffer, sealed)[:])
        if at < size:
            try:
                connection._raise_ssl_error(connection._ssl, sent)
            except SSL.WantReadError:
                self._bufferedWrite(bytes(memoryview(data)[at:]))
            except SSL.Error:
                self._tlsShutdownFinished(Failure())

    def _send(self, sealed: bytes) -> None:
        if self._held is not None:
            self._held.append(sealed)
        else:
            cast("Any", self.transport).write(sealed)


def _forget(data: bytes) -> None:
    """Ignore what follows close_notify (RFC 8446 6.1)."""


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
