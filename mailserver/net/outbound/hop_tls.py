"""TLS towards the next hop: Twisted's own layer, less what it would let the hop do.

It sends what it is given at once, as what is written to a hop is joined already (`outbound`). OpenSSL answers the hop's
KeyUpdate and its wish to renegotiate by itself, as it does a client's (`tls`): so how much it may say is bounded here, too.
"""

from __future__ import annotations

from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from mailserver.net.fast.tls import MOST_UNASKED, PIECE, KeepsBusy


class HopTls(TLSMemoryBIOProtocol):
    """The TLS layer between a TCP transport and a `HopProtocol`."""

    _unasked = 0
    """Octets that OpenSSL has said by itself, behind the handshake."""
    _is_writing = False

    def _write(self, data: bytes) -> None:
        """As in the parent; what leaves meanwhile is ours."""
        self._is_writing = True
        try:
            super()._write(data)
        finally:
            self._is_writing = False

    def _flushSendBIO(self) -> None:
        """As in the parent, all at once, and counted."""
        connection = cast("Any", self._tlsConnection)
        while True:
            try:
                sealed = connection.bio_read(2 * PIECE)
            except SSL.WantReadError:
                break
            cast("Any", self.transport).write(sealed)
            if self._handshakeDone and not self._is_writing:
                self._unasked += len(sealed)
        if self._unasked > MOST_UNASKED and not self._aborted:
            self.failVerification(Failure(KeepsBusy("the hop has the TLS layer answer without end")))


class HopTlsFactory(TLSMemoryBIOFactory):
    """Puts TLS under connections to a hop: of an endpoint (`wrappedProtocol` is then the one above), or by `wrap`."""

    protocol = HopTls

    def __init__(
        self, creator: IOpenSSLClientConnectionCreator, clock: IReactorTime, above: IProtocolFactory | None = None
    ) -> None:
        """`above` makes what speaks over TLS, for an endpoint."""
        super().__init__(creator, isClient=True, wrappedFactory=above or cast("Any", Factory()), clock=clock)

    def wrap(self, protocol: IProtocol, transport: Any) -> HopTls:
        """From now on all of the transport's bytes are TLS. The protocol's own transport is what returns."""
        layer = HopTls(cast("Any", self), protocol, False)  # False: it is connected already
        transport.protocol = layer
        layer.makeConnection(transport)
        return layer
