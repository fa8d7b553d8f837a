"""A TCP transport that sends at once what it can.

Twisted's own keeps every write until the reactor has said that the socket takes bytes, which it nearly always does: two
changes of the epoll set and one more turn of the reactor for each answer. Here a write goes straight to the socket while
nothing waits before it; what the socket does not take waits as in the parent, with the parent's back-pressure.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp


class DirectServer(tcp.Server):
    """The server's side of one TCP connection."""

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


def send_at_once(port: Any) -> None:
    """Let the connections that a listening TCP port accepts be of this kind."""
    port.transport = DirectServer
