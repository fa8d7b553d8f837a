"""Stock transports: Twisted's own port, TCP transport, TLS layer and reactor."""

from __future__ import annotations

from collections.abc import Callable
from fcntl import ioctl
from functools import partial
from socket import IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_NODELAY, socket
from termios import TIOCOUTQ
from typing import Any, Protocol, cast

from attrs import frozen
from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime

from mailserver.net.transport.direct_port import AT_ONCE
from mailserver.net.transport.tls import StockTlsFactory, TlsFactory


class ListeningPort(Protocol):
    """A listening TCP port of either kind."""

    factory: Any
    """May be replaced, for clients to come."""

    @property
    def sessionno(self) -> int:
        """How many clients were accepted."""

    def doRead(self) -> None:
        """Accept waiting clients."""

    def stopListening(self) -> Deferred[None] | None:
        """See IListeningPort."""


@frozen
class Transports:
    """How a process serves TCP connections; `net.fast.versions` chooses."""

    name: str
    """The word "fast" or "stock"."""
    line: str
    """A line for the log at the start: what was chosen, and why."""
    prepare: Callable[[Any], None]
    """Prepare a reactor, before anything listens."""
    listen: Callable[[socket, Any, Any], ListeningPort]
    """Serve a listening socket by a factory and a reactor; the socket belongs to the port from then on."""
    take_connection: Callable[[Any, Any, Any], Any]
    """Return the transport for a connection that was dialled, given Twisted's transport, the protocol and the reactor."""
    tls_factory: Callable[[IOpenSSLServerConnectionCreator, IReactorTime], TlsFactory]


def stock_transports(line: str) -> Transports:
    """Return Twisted's own transports."""
    return Transports(
        name="stock",
        line=line,
        prepare=_leave_alone,
        listen=listen_by_twisted,
        take_connection=_keep_connection,
        tls_factory=StockTlsFactory,
    )


def set_options(listening: socket) -> None:
    """Set what each accepted connection inherits (tcp(7)): this spares two calls for each."""
    listening.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    listening.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)


def listen_by_twisted(listening: socket, factory: Any, reactor: Any) -> ListeningPort:
    """Serve a socket by Twisted's own port."""
    set_options(listening)
    with listening:  # the reactor takes a duplicate
        port = reactor.adoptStreamPort(listening.fileno(), listening.family, factory)
    port.transport = StockServer
    port.doRead = partial(_accept_some, port)
    return cast("ListeningPort", port)


def _accept_some(port: Any) -> None:
    """Accept waiting clients, AT_ONCE at most: Twisted's own number grows for as long as more clients wait."""
    port.numberAccepts = AT_ONCE
    tcp.Port.doRead(port)


class StockServer(tcp.Server):
    """Twisted's own transport, with `delivered`."""

    _octets_unsent = 0

    def write(self, data: bytes) -> None:
        """As the parent."""
        if self.connected:
            self._octets_unsent += len(data)
        super().write(data)

    def writeSequence(self, iovec: Any) -> None:
        """As the parent."""
        self.write(b"".join(iovec))

    def writeSomeData(self, data: bytes) -> Any:
        """As the parent, counted."""
        sent = super().writeSomeData(data)
        if isinstance(sent, int):
            self._octets_unsent -= sent
        return sent

    @property
    def delivered(self) -> bool:
        """Has the client's machine acknowledged all that was written?"""
        return bool(self.connected) and not self._octets_unsent and not any(ioctl(self.socket, TIOCOUTQ, bytes(4)))


def _keep_connection(transport: Any, _protocol: Any, _reactor: Any) -> Any:
    return transport


def _leave_alone(_reactor: Any) -> None:
    """Leave Twisted's reactor as it is."""
