"""A TCP transport that sends at once what it can, and a port that makes one for each client without detours.

Twisted's own keeps every write until the reactor has said that the socket takes bytes, which it nearly always does: two
changes of the epoll set and one more turn of the reactor for each answer. Here a write goes straight to the socket while
nothing waits before it; what the socket does not take waits as in the parent, with the parent's back-pressure.

Twisted's port keeps back what is logged while it takes a client, gives each transport two names made of others, and takes the
more at once the more there are, without bound.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from functools import lru_cache
from socket import (
    IPPROTO_TCP,
    SO_KEEPALIVE,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    TCP_QUICKACK,
    socket,
)
from termios import TIOCOUTQ
from typing import Any, Final, cast

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.python.failure import Failure

from mailserver.net.log.events import log

AT_ONCE: Final = 8
"""Clients that a port takes in one turn of the reactor. Who has gone is noticed behind them, or in the turn that follows, and
counts as here until then: of clients from one address who come again and again, twice as many as these may be counted
beside those that are there, and must not reach its limit."""


class _Direct(tcp.Connection):
    """In front of a kind of TCP connection."""

    def write(self, data: bytes) -> None:
        """Send; an error is left to the reactor's own attempt, so that nobody is told of it within this call."""
        if self._tempDataBuffer or len(self.dataBuffer) > self.offset or self.TLS or not self.connected:
            super().write(data)
            return
        try:
            sent = self.socket.send(data)
        except OSError:
            sent = 0
        if sent < len(data):
            super().write(data[sent:])


class DirectServer(_Direct, tcp.Server):
    """The server's side of one TCP connection."""

    logstr = repstr = "a client's connection"
    _shouldShutdown = False
    """No child has a copy of the socket (accept4(2) with SOCK_CLOEXEC), so that its close is the end."""

    def __init__(  # noqa: PLR0917 - the parent's, which makes names of them
        self, sock: socket, protocol: Any, client: tuple[Any, ...], server: Any, sessionno: int, reactor: Any
    ) -> None:
        """As the parent's."""
        tcp.Connection.__init__(self, sock, protocol, reactor)
        if len(client) != 2:
            self._addressType = IPv6Address
        self.server = server
        self.client = client
        self.sessionno = sessionno
        self.hostname = client[0]
        self.startReading()
        self.connected = 1

    @property
    def delivered(self) -> bool:
        """Has the client's machine acknowledged all that was written?"""
        if self._tempDataBuffer or len(self.dataBuffer) > self.offset or not self.connected:
            return False
        return not any(ioctl(self.socket, TIOCOUTQ, bytes(4)))

    def loseConnection(self) -> None:
        """As the parent; where nothing waits to be sent, without asking the reactor when the socket takes more."""
        waits = self._tempDataBuffer or len(self.dataBuffer) > self.offset or self.producer is not None or self.TLS
        if waits or self._writeDisconnected or self.disconnecting or not self.connected:
            super().loseConnection()
            return
        self.disconnecting = 1
        self.stopReading()
        cast("Any", self.reactor).callLater(0, self._end)

    def connectionLost(self, reason: Failure) -> None:
        """As the parents', in one place and without looking through all kinds of failures."""
        if not hasattr(self, "socket"):
            return  # it has been told
        self.connected, self.disconnected = 0, 1
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.stopReading()
        self.stopWriting()
        self._closeSocket(not isinstance(reason.value, ConnectionAborted))
        protocol = self.protocol
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(reason)

    def _end(self) -> None:
        # What was written since then is the reactor's to send, which ends the connection behind it.
        if self.connected and not self._tempDataBuffer and len(self.dataBuffer) <= self.offset:
            self.connectionLost(Failure(ConnectionDone()))


class DirectClient(_Direct, tcp.Client):
    """The client's side of one."""

    urgent = True
    """See `net.fast.reactor_turn`."""

    def acknowledge_at_once(self) -> None:
        """Of what comes next: a server that answers pipelined commands one by one may wait for that (RFC 9293 3.7.4)."""
        with suppress(OSError):
            self.socket.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)


class DirectPort(tcp.Port):
    """A listening TCP port; its connections are of this kind."""

    transport = DirectServer

    def doRead(self) -> None:
        """Take those who wait, AT_ONCE at most. What is out of the ordinary is left to the parent.

        By one in each turn those who come while many are served would wait for a turn of all of them each.
        """
        accept = cast("Any", self.socket)._accept  # noqa: SLF001 - as accept() does
        for _ in range(AT_ONCE):
            try:
                number, client = accept()
            except BlockingIOError:
                return
            except OSError:
                super().doRead()
                return
            self._serve(socket(cast("int", self.addressFamily), SOCK_STREAM, 0, number), client)
            if not self.connected:
                return  # what has served this one has ended the port

    def _serve(self, accepted: socket, client: tuple[Any, ...]) -> None:
        try:
            protocol = cast("Any", self.factory).buildProtocol(self._buildAddr(client))
            assert protocol is not None
            transport = DirectServer(accepted, protocol, client, self, self.sessionno, self.reactor)
        except Exception:
            log.failure("a client that has connected is not served")
            accepted.close()
            return
        self.sessionno += 1
        try:
            protocol.makeConnection(transport)
        except Exception:
            log.failure("a client that has connected is served no more")
            transport.abortConnection()


def send_at_once(port: Any) -> None:
    """Let a listening TCP port, and the connections that it accepts, be of this kind.

    Its options are those of each socket that it accepts (tcp(7)), which spares two calls for each.
    """
    port.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    port.socket.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    port.__class__ = DirectPort


def send_client_at_once(transport: Any) -> Callable[[], None]:
    """Let a connection that was dialled be of this kind; others stay what they are. Its `acknowledge_at_once`.

    Twisted's endpoints make their transports themselves, and only the way of writing differs.
    """
    if type(transport) is not tcp.Client:
        return lambda: None
    transport.__class__ = DirectClient
    return cast("DirectClient", transport).acknowledge_at_once


def address_of(address: object) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address | None, int]:
    """A client's address and port, of one of Twisted's; None and 0 of a Unix socket's."""
    if isinstance(address, IPv4Address | IPv6Address):
        return _parsed(address.host), address.port
    return None, 0


@lru_cache(maxsize=1024)
def _parsed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(host.partition("%")[0])
