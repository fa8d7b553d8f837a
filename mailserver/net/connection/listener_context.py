"""The context of connections: the services of the process, and the settings of the listener."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol, TypeAlias

from attrs import evolve, frozen
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime

from mailserver.config.kinds import Cleartext, EarlyTls
from mailserver.config.model import Listener
from mailserver.net.connection.client_log import ClientLog
from mailserver.net.connection.client_messages import FAREWELLS, REFUSALS, wrong_port_message
from mailserver.net.connection.connection_limits import Address, ConnectionCounts
from mailserver.net.connection.open_connections import OpenConnections
from mailserver.net.ipc.event_counters import EventCounters
from mailserver.net.transport.stock import Transports
from mailserver.net.transport.tls import TlsFactory
from mailserver.session.channel import Channel, ConnectionInfo, TLSInfo

_ANONYMOUS: Final = frozenset({"lmtp", "auth", "lookup"})
"""Families whose clients are servers that do not log in."""
_OVER_TLS: Final = {"imap": "imaps", "pop3": "pop3s", "submission": "submissions", "http": "https"}


class Session(Protocol):
    """A protocol's session, as its connection sees it."""

    @property
    def mailbox_name(self) -> str | None:
        """The mailbox that is open, for the administrator to see; None without one."""

    @property
    def command(self) -> str:
        """The name of the command that runs, or ran last, for the log; empty before the first."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Serve the client to the end."""


MakeSession: TypeAlias = Callable[[Channel], Session]


class TlsCreators(Protocol):
    """`tls.serving.policy.TlsPolicy`, as listeners see it."""

    def creator(self, listener: Listener, /) -> IOpenSSLServerConnectionCreator:
        """Make the creator of a listener's TLS connections."""


class FactoryServices(Protocol):
    """The services that the factories of a process share; `mailserver.embedding.MailServices` for those of another program."""

    @property
    def running(self) -> object:
        """Whether clients are served. Connections that come before and after that are closed at once."""

    @property
    def reactor(self) -> Any:
        """The reactor, or a clock in tests."""

    @property
    def counts(self) -> ConnectionCounts:
        """The numbers of connections, and their limits."""

    @property
    def event_counters(self) -> EventCounters:
        """The numbers of events, for the status."""

    @property
    def client_log(self) -> ClientLog | None:
        """Records logins for the ledger; None where there is no ledger."""

    @property
    def tls(self) -> TlsCreators | None:
        """For STARTTLS and implicit TLS; None without certificates."""

    @property
    def transports(self) -> Transports:
        """How TLS is put below connections."""

    def session_maker(self, family: str) -> MakeSession:
        """Make sessions of "imap", "pop3", "submission", "lmtp", "auth", "lookup" or "http", each with the newest settings."""

    def listeners(self) -> Iterable[Listener]:
        """All listeners, so that a client at the wrong port can be sent to the right one."""

    def open_connections(self) -> OpenConnections:
        """Make the set of connections of one more factory."""


@frozen
class ListenerContext:
    """The values that all connections of one listener share. `make` derives them from the services and the listener."""

    protocol: str
    make_session: MakeSession
    farewell: bytes
    """The line to a client when the service stops; empty where the protocol has none."""
    refusal: bytes
    """The greeting of a connection over the limit, where it can be sent without TLS."""
    reactor: IReactorTime
    counts: ConnectionCounts
    event_counters: EventCounters
    tls: TlsFactory | None
    """For STARTTLS, or for implicit TLS; None where TLS is not offered."""
    implicit_tls: bool
    cleartext: Cleartext
    """The clients that may send passwords without TLS."""
    nonplaintext_without_tls: bool
    """Are mechanisms taken without TLS that send no password?"""
    tls_required: bool
    results_trusted: bool
    client_address_required: bool
    logs_in: bool
    """Do its clients log in? Else (LMTP, auth, lookup) they have no login time, and only the limit of all connections is theirs.

    Those of HTTP count as some that never do.
    """
    local: str
    """Where it listens, for the log; empty to ask the transport."""
    greeting_delay: float
    """Seconds for which the greeting is held back where TLS is started by a command."""
    early_tls: EarlyTls
    """The treatment of a ClientHello before that greeting."""
    wrong_port_message: Callable[[int], bytes]
    """The answer to a client that does not begin TLS at this TCP port, where it is implicit."""
    open_connections: OpenConnections
    client_log: ClientLog | None = None
    """Records logins; None for none."""

    @classmethod
    def make(
        cls,
        services: FactoryServices,
        listener: Listener,
        connections: OpenConnections,
        local: str = "",
    ) -> ListenerContext:
        """The context of a listener."""
        family = listener.family
        offers_tls = services.tls is not None and (listener.implicit_tls or listener.starttls)
        creator = services.tls.creator(listener) if services.tls is not None and offers_tls else None
        return cls(
            protocol=listener.protocol,
            make_session=services.session_maker(family),
            farewell=FAREWELLS[family],
            refusal=REFUSALS[family],
            reactor=services.reactor,
            counts=services.counts,
            event_counters=services.event_counters,
            tls=services.transports.tls_factory(creator, services.reactor) if creator is not None else None,
            implicit_tls=listener.implicit_tls,
            cleartext=listener.cleartext,
            nonplaintext_without_tls=listener.nonplaintext_without_tls,
            tls_required=listener.require_tls,
            results_trusted=listener.trusted_authentication_results,
            client_address_required=listener.client_address == "required",
            logs_in=family not in _ANONYMOUS,
            local=local,
            greeting_delay=listener.greeting_delay,
            early_tls=listener.early_tls,
            wrong_port_message=lambda port: wrong_port_message(family, port, services.listeners()),
            open_connections=connections,
            # The ledger is about TLS with this server, and a login by `auth` has it with another one.
            client_log=None if family == "auth" else services.client_log,
        )

    def over_tls(self) -> ListenerContext:
        """The same for a connection whose endpoint has TLS: it counts as implicit TLS."""
        return evolve(
            self,
            protocol=_OVER_TLS.get(self.protocol, self.protocol),
            implicit_tls=True,
            tls=None,
            cleartext="never",
            nonplaintext_without_tls=False,
        )

    def connection_info(
        self,
        session_id: str,
        peer: tuple[Address, int],
        tls: TLSInfo | None,
        *,
        local: str,
        cleartext_allowed: bool,
    ) -> ConnectionInfo:
        """The facts of one connection, before TLS or with it; `peer` is its client's address and port."""
        address, port = peer
        return ConnectionInfo(
            session_id=session_id,
            protocol=self.protocol,
            peer=address,
            peer_port=port,
            local=local,
            tls=tls,
            cleartext_allowed=cleartext_allowed,
            starttls_offered=tls is None and self.tls is not None and not self.implicit_tls,
            tls_required=self.tls_required,
            results_trusted=self.results_trusted,
            client_address_required=self.client_address_required,
            proofs_allowed=self.nonplaintext_without_tls,
        )
