"""A TCP transport that sends at once what it can.

Twisted's own keeps every write until the reactor has said that the socket takes bytes, which it nearly always does: two
changes of the epoll set and one more turn of the reactor for each answer. Here a write goes straight to the socket while
nothing waits before it; what the socket does not take waits as in the parent, with the parent's back-pressure.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from socket import IPPROTO_TCP, TCP_QUICKACK
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure


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

    def loseConnection(self) -> None:
        """As the parent; where nothing waits to be sent, without asking the reactor when the socket takes more."""
        waits = self._tempDataBuffer or len(self.dataBuffer) > self.offset or self.producer is not None or self.TLS
        if waits or self._writeDisconnected or self.disconnecting or not self.connected:
            super().loseConnection()
            return
        self.disconnecting = 1
        self.stopReading()
        cast("Any", self.reactor).callLater(0, self._end)

    def _end(self) -> None:
        # What was written since then is the reactor's to send, which ends the connection behind it.
        if self.connected and not self._tempDataBuffer and len(self.dataBuffer) <= self.offset:
            self.connectionLost(Failure(ConnectionDone()))


class DirectClient(_Direct, tcp.Client):
    """The client's side of one."""

    def acknowledge_at_once(self) -> None:
        """Of what comes next: a server that answers pipelined commands one by one may wait for that (RFC 9293 3.7.4)."""
        with suppress(OSError):
            self.socket.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)


def send_at_once(port: Any) -> None:
    """Let the connections that a listening TCP port accepts be of this kind."""
    port.transport = DirectServer


def send_client_at_once(transport: Any) -> Callable[[], None]:
    """Let a connection that was dialled be of this kind; others stay what they are. Its `acknowledge_at_once`.

    Twisted's endpoints make their transports themselves, and only the way of writing differs.
    """
    if type(transport) is not tcp.Client:
        return lambda: None
    transport.__class__ = DirectClient
    return cast("DirectClient", transport).acknowledge_at_once
