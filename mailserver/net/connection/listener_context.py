"""What the connections of one listener have in common."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from mailserver.config.kinds import Cleartext, EarlyTls
from mailserver.net.connection.client_log import ClientLog
from mailserver.net.connection.connection_limits import Address, ConnectionCounts
from mailserver.net.ipc.event_counters import EventCounters
from mailserver.net.transport.tls import TlsFactory
from mailserver.session.channel import Channel, ConnectionInfo, TLSInfo

if TYPE_CHECKING:
    from mailserver.net.connection.connection import Connection


class Session(Protocol):
    """What a protocol's session is to the connection."""

    @property
    def mailbox_name(self) -> str | None:
        """The mailbox that is open, for the administrator to see; None without one."""

    @property
    def command(self) -> str:
        """The name of the command that runs, or ran last, for the log; empty before the first."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Serve the client to the end."""


@frozen
class ListenerContext:
    """What all connections of one listener share."""

    protocol: str
    make_session: Callable[[Channel], Session]
    farewell: bytes
    """Told to a client when the service stops; empty where the protocol has no such line."""
    refusal: bytes
    """The greeting of a connection too many, where it can be said without TLS."""
    reactor: IReactorTime
    counts: ConnectionCounts
    event_counters: EventCounters
    tls: TlsFactory | None
    """For STARTTLS, or for implicit TLS; None where TLS is not offered."""
    implicit_tls: bool
    cleartext: Cleartext
    """From whom passwords are taken without TLS."""
    proofs_in_clear: bool
    """Are mechanisms taken without TLS that send no password?"""
    tls_required: bool
    results_trusted: bool
    logs_in: bool
    """Do its clients log in? Else (LMTP) they have no login time, and only the limit of all connections is theirs.

    Those of HTTP count as some that never do.
    """
    local: str
    greeting_delay: float
    """Seconds for which the greeting is held back where TLS is started by a command."""
    early_tls: EarlyTls
    """What becomes of a ClientHello before that greeting."""
    wrong_port_message: Callable[[], bytes]
    """What a client is told that does not begin TLS where it is implicit."""
    open_connections: set[Connection]
    stopped: Callable[[], None]
    """Called when the last connection has ended."""
    client_log: ClientLog | None = None
    """Who is told of logins; nobody when None."""

    def facts(
        self, session_id: str, peer: tuple[Address, int], tls: TLSInfo | None, *, cleartext_allowed: bool
    ) -> ConnectionInfo:
        """Those of one connection, before TLS or with it; `peer` is its client's address and port."""
        address, port = peer
        return ConnectionInfo(
            session_id=session_id,
            protocol=self.protocol,
            peer=address,
            peer_port=port,
            local=self.local,
            tls=tls,
            cleartext_allowed=cleartext_allowed,
            starttls_offered=tls is None and self.tls is not None and not self.implicit_tls,
            tls_required=self.tls_required,
            results_trusted=self.results_trusted,
            proofs_allowed=self.proofs_in_clear,
        )
