"""The listeners of one process and their sessions: opened, changed at a reload, closed with a farewell.

Stop: the process accepts no new connections, and each session gets its farewell and may finish its present command within
a second. A session that is still open after GRACE seconds is cut; one that even then does not end (a back end never
answers) is abandoned. At a reload listeners are compared by place: a changed one keeps its open socket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall

from mailserver.auth.changed_users import ChangedUsers
from mailserver.auth.throttling.banned_clients import BannedClients
from mailserver.config.model import Config, Listener
from mailserver.ledger.entry import Entry
from mailserver.net.admin.admin_queries import answers
from mailserver.net.admin.ledger import report_to_master
from mailserver.net.admin.sessions import Sessions
from mailserver.net.admin.user_changes import UserChanges
from mailserver.net.connection.client_log import ClientLog
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.net.connection.listener_context import Session, TlsCreators
from mailserver.net.connection.open_connections import OpenConnections, Shutdown
from mailserver.net.fast.versions import choose_transports
from mailserver.net.ipc.event_counters import EventCounters
from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.server_link import ServerLink
from mailserver.net.listeners.binding import BoundSocket, Port, places
from mailserver.net.serving.state_sync import ConnectionCountSync
from mailserver.session.channel import Channel

P = TypeVar("P")
END_BANNED_AFTER: Final = 0.1
"""Seconds until the connections of clients that were banned end, if they have not logged in."""


@frozen
class ReloadCheck(Generic[P]):
    """Result of the first half of a reload."""

    config: Config | None
    """None if the configuration cannot be taken up."""
    lines: list[str]
    prepared: P | None
    """The argument of `ProcessServices.commit`."""
    whole: bool = True
    """False where some part stays as it was, such as a certificate whose new files do not match."""


class ProcessServices(Protocol):
    """The objects that a process serves with (`mailserver.wiring.services`), made once it is the configured user."""

    config: Config

    @property
    def tls(self) -> TlsCreators:
        """TLS contexts of all listeners."""

    @property
    def banned(self) -> BannedClients:
        """The banned clients, the same table for the life of the process."""

    def session_maker(self, family: str) -> Callable[[Channel], Session]:
        """Return the maker of sessions of "imap", "pop3", "submission", "lmtp", "auth", "lookup" or "http", with the newest settings."""

    def accept(self, prepared: Any) -> list[str]:
        """Make what must be made on the reactor's thread and may fail; return the faults. Nothing is taken up yet."""

    def commit(self, prepared: Any) -> list[str]:
        """Take up what was checked and accepted; return what was done, in sentences."""

    def status(self) -> dict[str, Json]:
        """Return the certificates, and measures (numbers, or [number, bound]) by name, for `mailserver status`."""

    def reload_users(self) -> Deferred[None]:
        """Read the users again; fires when logins see the changes."""

    def changed_users(self) -> ChangedUsers | None:
        """Return the users whose sessions must end, since the last call; None: it may be anybody."""

    def set_status_query(self, query_status: Callable[[], Deferred[dict[str, Json]]]) -> None:
        """Set the function that returns the status of all workers; called before any client is served."""

    def start(self) -> None:
        """Start threads and processes."""

    def cancel_background(self) -> None:
        """Cancel background work that the next start can do: sessions that wait for it are to end."""

    async def stop(self) -> None:
        """Close accounts, end threads and processes."""


class Serving:
    """The open listeners of this process and their sessions."""

    def __init__(
        self,
        services: ProcessServices,
        reactor: Any,
        *,
        shared: bool = False,
        link: ServerLink | None = None,
        seen: Callable[[Sequence[Entry]], None] | None = None,
    ) -> None:
        """`shared`: other processes have the same sockets. `link`: to the other workers and the master, where there are any.

        `seen(entries)` receives clients for the ledger where there is no master.
        """
        self.reactor = reactor
        self.transports = choose_transports(services.config.server.transport, reactor)
        self.transports.prepare(reactor)
        self.counts = ConnectionCounts(services.config.limits, services.banned)
        services.banned.on_banned = self._end_banned_later
        self._ending_banned: IDelayedCall | None = None
        self.event_counters = EventCounters()
        if link is not None:
            seen = partial(report_to_master, link)
        self.client_log = ClientLog(reactor, seen or _nobody, enabled=lambda: services.config.ledger.enabled)
        self._services = services
        self._shared = shared
        self._ports: list[Port] = []
        self._retired: list[Port] = []
        self._shutdown = Shutdown(reactor, lambda: [port.connections for port in self._all()])
        sessions = Sessions(self._all, reactor)
        self._user_changes = UserChanges(services.changed_users, sessions, reactor)
        self.answers = answers(sessions, self._all, services.status, services.reload_users, self.event_counters)
        """Answers to the administrator's queries, by name."""
        if link is not None:
            ConnectionCountSync(link, reactor, self.counts)
            for name, answer in self.answers.items():
                link.on_query(name, answer)

    # --- For the factories (`FactoryServices`)

    @property
    def running(self) -> bool:
        """Whether clients are served: as long as a port accepts them."""
        return True

    @property
    def tls(self) -> TlsCreators:
        """TLS contexts for STARTTLS and implicit TLS."""
        return self._services.tls

    def session_maker(self, family: str) -> Callable[[Channel], Session]:
        """Make sessions with the newest settings."""
        return self._services.session_maker(family)

    def listeners(self) -> Sequence[Listener]:
        """All listeners of the newest configuration."""
        return self._services.config.listeners

    def open_connections(self) -> OpenConnections:
        """Make the set of a port's connections."""
        return OpenConnections()

    # --- For the process

    @property
    def places(self) -> set[str]:
        """The places that are served."""
        return {port.place for port in self._ports}

    @property
    def sessions(self) -> int:
        """Number of connections."""
        return self._shutdown.sessions

    def listen(self, bound: BoundSocket) -> str:
        """Serve a socket; return the line for the log. Raises: OSError."""
        port = Port(bound, self, shared=self._shared)
        self._ports.append(port)
        self._user_changes.start()
        return port.ready_line

    def change(self, config: Config, opened: Sequence[BoundSocket]) -> list[str]:
        """Serve a changed configuration, with sockets opened for its new places; return what changed, in sentences."""
        self.counts.limits = config.limits
        wanted = {place: listener for listener in config.listeners for place in places(listener)}
        lines = []
        for port in tuple(self._ports):
            listener = wanted.get(port.place)
            if listener is None:
                lines.append(f"no longer serving {port.listener.protocol} on {port.place}")
                port.accept_waiting()
                port.stop_listening()
                self._ports.remove(port)
                self._retired.append(port)
            elif listener != port.listener:
                port.change(listener)
                lines.append(port.ready_line)
        lines += [self.listen(bound) for bound in opened]
        self._retired = [port for port in self._retired if port.connections]
        return lines

    def stop_listening(self) -> Deferred[Any]:
        """Accept no new connections; open ones go on."""
        ports, self._ports = self._ports, []
        self._retired += ports
        return DeferredList([port.stop_listening() for port in ports])

    def when_empty(self) -> Deferred[None]:
        """Wait for the last session to end, after `stop_listening`; at once without any."""
        return self._shutdown.when_empty().addCallback(lambda _none: self.client_log.flush())

    def stop(self) -> Deferred[Any]:
        """End all sessions; fires when the last one has ended, or is abandoned."""
        closing = self.stop_listening()
        self._user_changes.stop()
        if self._ending_banned is not None:
            self._ending_banned.cancel()
            self._ending_banned = None
        ended = self._shutdown.begin()
        self._services.cancel_background()
        return DeferredList([closing, ended]).addCallback(lambda _results: self.client_log.flush())

    def _end_banned_later(self) -> None:
        """End connections of banned clients soon: many may be banned at once, and each time all connections are looked at."""
        if self._ending_banned is None:
            self._ending_banned = self.reactor.callLater(END_BANNED_AFTER, self._end_banned)

    def _end_banned(self) -> None:
        self._ending_banned = None
        self.counts.end_banned()

    def _all(self) -> list[Port]:
        return [*self._ports, *self._retired]


def _nobody(_entries: Sequence[Entry]) -> None:
    """Where nobody keeps a ledger."""
