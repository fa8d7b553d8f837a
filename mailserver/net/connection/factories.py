"""The factories of the protocols: ordinary `IProtocolFactory`s, for the listeners of the service and for any endpoint."""

from __future__ import annotations

from typing import Any, ClassVar, Final, cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol

from mailserver.config.model import Listener
from mailserver.net.connection.connection import Connection
from mailserver.net.connection.listener_context import FactoryServices, ListenerContext
from mailserver.net.connection.open_connections import OpenConnections


class ClosedConnection(Protocol):
    """The protocol of a client that connects while the services do not run. (A wrapping factory takes no None for a protocol.)"""

    def connectionMade(self) -> None:
        """Close it."""
        cast("Any", self.transport).loseConnection()


class ConnectionFactory(Factory):
    """Makes the connections of one listener."""

    noisy = False
    listener: ClassVar[Listener]
    """The settings of a factory that is made without a listener."""

    def __init__(
        self,
        services: FactoryServices,
        *,
        listener: Listener | None = None,
        connections: OpenConnections | None = None,
        local: str = "",
    ) -> None:
        """`listener` has the settings, such as `Listener("imap", greeting_delay=0.1)`; its place is not looked at.

        `connections`: the set that new connections join. `local`: where the socket is, for the log; the transport is asked
        when empty. Raises: ValueError for a listener of another protocol.
        """
        listener = listener or self.listener
        if listener.family != self.listener.family:
            raise ValueError(f"{type(self).__name__} does not serve {listener.protocol}")
        self.connections = services.open_connections() if connections is None else connections
        self.context = ListenerContext.make(services, listener, self.connections, local)
        self._services = services

    def buildProtocol(self, addr: IAddress | None) -> Connection | ClosedConnection:
        """Make the protocol of a client at `addr`; one that closes at once while the services do not run."""
        return Connection(self.context, addr) if self._services.running else ClosedConnection()


class IMAPFactory(ConnectionFactory):
    """IMAP4rev1 and IMAP4rev2."""

    listener = Listener("imap")


class POP3Factory(ConnectionFactory):
    """POP3."""

    listener = Listener("pop3")


class SubmissionFactory(ConnectionFactory):
    """Submission of new mail by users, who log in."""

    listener = Listener("submission")


class LMTPFactory(ConnectionFactory):
    """Delivery by a mail transfer agent that is trusted."""

    listener = Listener("lmtp")


class AuthFactory(ConnectionFactory):
    """Dovecot's authentication protocol, for other servers on this machine."""

    listener = Listener("auth")


class LookupFactory(ConnectionFactory):
    """Postfix's socketmap protocol, for a mail transfer agent on this machine."""

    listener = Listener("lookup")


class HTTPFactory(ConnectionFactory):
    """The pages of the `mailserver` service."""

    listener = Listener("http")


FACTORIES: Final[dict[str, type[ConnectionFactory]]] = {
    factory.listener.family: factory
    for factory in (
        *(IMAPFactory, POP3Factory, SubmissionFactory, LMTPFactory),
        *(AuthFactory, LookupFactory, HTTPFactory),
    )
}
"""By the family of a listener."""
