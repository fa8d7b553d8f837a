"""A connection without a socket, whose session is a function of the test; and what it knows of its listener."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mailserver.config.model import Limits
from mailserver.errors import ConnectionLost
from mailserver.net.connection.connection import Connection
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.net.connection.listener_context import ListenerContext
from mailserver.net.connection.open_connections import OpenConnections
from mailserver.net.ipc.event_counters import EventCounters
from mailserver.session.channel import Channel


def make_context(make_session: Any, clock: Clock, event_counters: EventCounters, **changed: Any) -> ListenerContext:
    """An IMAP listener without TLS, but for what is `changed`."""
    settings: dict[str, Any] = {
        "protocol": "imap",
        "farewell": b"",
        "refusal": b"",
        "counts": ConnectionCounts(Limits()),
        "tls": None,
        "implicit_tls": False,
        "cleartext": "never",
        "nonplaintext_without_tls": False,
        "tls_required": False,
        "results_trusted": False,
        "client_address_required": False,
        "logs_in": True,
        "local": "127.0.0.1:143",
        "greeting_delay": 0.0,
        "early_tls": "serve",
        "wrong_port_message": lambda _port: b"",
        "open_connections": OpenConnections(),
    }
    return ListenerContext(
        make_session=make_session, reactor=clock, event_counters=event_counters, **settings | changed
    )


class Transport(StringTransport):
    """A transport that remembers how it was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class World:
    """One connection whose session is a function of the test."""

    def __init__(
        self,
        run: Any,
        limits: Limits | None = None,
        counts: ConnectionCounts | None = None,
        make: type[Transport] = Transport,
        refusal: bytes = b"",
        logs_in: bool = True,
    ) -> None:
        self.clock = Clock()
        self.counts = counts or ConnectionCounts(limits or Limits())
        self.empty = 0
        self.ended: list[str] = []
        world = self

        class Session:
            def __init__(self, channel: Channel) -> None:
                self.channel = channel

            async def run(self) -> None:
                try:
                    await run(self.channel)
                except ConnectionLost:
                    world.ended.append("lost")
                    raise
                world.ended.append("returned")

        def stopped() -> None:
            world.empty += 1

        connections = OpenConnections()
        connections.on_empty = stopped
        self.event_counters = EventCounters()
        self.context = make_context(
            Session,
            self.clock,
            self.event_counters,
            farewell=b"* BYE\r\n",
            refusal=refusal,
            counts=self.counts,
            cleartext="always",
            logs_in=logs_in,
            open_connections=connections,
        )
        self.connection = Connection(self.context)
        self.transport = make()
        self.connection.makeConnection(self.transport)

    def lose(self) -> None:
        self.connection.connectionLost(Failure(ConnectionLost()))


async def echo(channel: Channel) -> None:
    while True:
        data = await channel.read(60)
        assert isinstance(data, bytes)
        channel.write(data)
