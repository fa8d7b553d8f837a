"""TLS on a transport: Twisted's own protocol, with writes that suit answers which are joined already.

Twisted's transport collects small writes until the reactor's next turn, and cuts what it is given into single records
with a read of the outgoing buffer behind each. Here writes are joined before they come (`net.connection`), so they
are sealed at once, PIECE octets a call. A larger piece would cost less still, but OpenSSL keeps its buffer at the
size of the largest piece for as long as the connection lives, and idle connections are many.
"""

from __future__ import annotations

from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocol, IReactorTime
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

PIECE = 65536
_SEALED = PIECE + 4096
"""PIECE in records: 22 octets more for each 16 KiB, and what is left of a handshake."""


class TlsTransport(TLSMemoryBIOProtocol):
    """The TLS layer between a TCP transport and a `Connection`."""

    def _write(self, data: Any) -> None:
        """Seal and hand on; what OpenSSL does not take before the handshake is done waits, as in the parent."""
        if self._lostTLSConnection:
            return
        view = memoryview(data)
        connection, transport = self._tlsConnection, cast("Any", self.transport)
        at = 0
        while at < len(view):
            try:
                at += connection.send(view[at : at + PIECE])
            except SSL.WantReadError:
                self._bufferedWrite(bytes(view[at:]))
                return
            except SSL.Error:
                self._tlsShutdownFinished(Failure())
                return
            try:
                while True:
                    transport.write(connection.bio_read(_SEALED))
            except SSL.WantReadError:
                pass


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
