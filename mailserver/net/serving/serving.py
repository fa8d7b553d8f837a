"""The listeners of one process and what stands behind them: opened, changed at a reload, and closed with a farewell.

At the end no new connection is taken, every session hears its farewell and may finish the command it is in within a
second, what still hangs after GRACE seconds is cut, and what does not even hear that (a back end that never answers) is
left behind at once. Listeners are compared place by place: a changed one keeps its open socket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList

from mailserver.config.model import Config, Listener
from mailserver.ledger.entry import Entry
from mailserver.net.admin.admin_queries import answers
from mailserver.net.admin.ledger import report_to_master
from mailserver.net.connection.client_log import ClientLog
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.net.connection.listener_context import Session, TlsCreators
from mailserver.net.connection.open_connections import OpenConnections, Shutdown
from mailserver.net.fast.versions import choose_transports
from mailserver.net.ipc.event_counters import EventCounters
from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.server_link import ServerLink
from mailserver.net.listeners.binding import Bound, Port, places
from mailserver.net.serving.state_sync import ConnectionCountSync
from mailserver.session.channel import Channel

P = TypeVar("P")


@frozen
class ReloadCheck(Generic[P]):
    """What the first half of a reload found."""

    config: Config | None
    """None if it cannot be taken up."""
    lines: list[str]
    prepared: P | None
    """For `ProcessServices.commit`."""
    whole: bool = True
    """False where something stays as it was, such as a certificate whose renewal is bad."""


class ProcessServices(Protocol):
    """What a process serves with; made once it is the right user, by who wires."""

    config: Config

    @property
    def tls(self) -> TlsCreators:
        """For every listener."""

    def session_maker(self, family: str) -> Callable[[Channel], Session]:
        """For "imap", "pop3", "submission", "lmtp", "http": always with the settings of the newest configuration."""

    def accept(self, prepared: Any) -> list[str]:
        """Make what must be made on the reactor's thread and may fail; the faults. Nothing is taken up yet."""

    def commit(self, prepared: Any) -> list[str]:
        """Take up what was examined and accepted; what was done, in words."""

    def status(self) -> dict[str, Json]:
        """Numbers, or [number, bound], for `mailserver status`."""

    def reload_users(self) -> Deferred[None]:
        """Read the users again; done when logins see what has changed."""

    def set_status_query(self, query_status: Callable[[], Deferred[dict[str, Json]]]) -> None:
        """Whom to ask for the numbers of all workers; before anybody is served."""

    def start(self) -> None:
        """Start threads and processes."""

    def cancel_background(self) -> None:
        """Give up what takes long and can be done after the next start: sessions that wait for it are to end."""

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
        """`shared`: other processes have the same sockets. `link`: to other workers, who share limits and are asked too.

        `seen` is told of clients where there is no link to a master.
        """
        self.reactor = reactor
        self.transports = choose_transports(services.config.server.transport, reactor)
        self.transports.prepare(reactor)
        self.counts = ConnectionCounts(services.config.limits)
        self.event_counters = EventCounters()
        if link is not None:
            seen = partial(report_to_master, link)
        self.client_log = ClientLog(reactor, seen or _nobody, enabled=lambda: services.config.ledger.enabled)
        self._services = services
        self._shared = shared
        self._ports: list[Port] = []
        self._retired: list[Port] = []
        self._shutdown = Shutdown(reactor, lambda: [port.connections for port in self._all()])
        self.answers = answers(self._all, services.status, services.reload_users, self.event_counters, reactor)
        """To what the administrator asks, by name."""
        if link is not None:
            ConnectionCountSync(link, reactor, self.counts)
            for what, answer in self.answers.items():
                link.on_query(what, answer)

    # --- For the factories (`FactoryServices`)

    @property
    def running(self) -> bool:
        """Clients are served as long as a port takes them."""
        return True

    @property
    def tls(self) -> TlsCreators:
        """For STARTTLS and implicit TLS."""
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
    def known(self) -> set[str]:
        """The places that are served."""
        return {port.place for port in self._ports}

    @property
    def sessions(self) -> int:
        """How many connections there are."""
        return self._shutdown.sessions

    def listen(self, bound: Bound) -> str:
        """Serve a socket; the line for the log. Raises: OSError."""
        port = Port(bound, self, shared=self._shared)
        self._ports.append(port)
        return port.ready_line

    def change(self, config: Config, opened: Sequence[Bound]) -> list[str]:
        """Serve what a changed configuration says, with sockets opened for its new places; what changed, in words."""
        self.counts.limits = config.limits
        wanted = {place: listener for listener in config.listeners for place in places(listener)}
        lines = []
        for port in tuple(self._ports):
            listener = wanted.get(port.place)
            if listener is None:
                lines.append(f"no longer serving {port.listener.protocol} on {port.place}")
                port.drain()
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
        """Take no new connections; those that are open go on."""
        ports, self._ports = self._ports, []
        self._retired += ports
        return DeferredList([port.stop_listening() for port in ports])

    def when_empty(self) -> Deferred[None]:
        """Wait for the last session to end, after `stop_listening`; at once without any."""
        return self._shutdown.when_empty().addCallback(lambda _none: self.client_log.flush())

    def stop(self) -> Deferred[Any]:
        """End all sessions; fires when the last one has ended, or is abandoned."""
        closing = self.stop_listening()
        ended = self._shutdown.begin()
        self._services.cancel_background()
        return DeferredList([closing, ended]).addCallback(lambda _results: self.client_log.flush())

    def _all(self) -> list[Port]:
        return [*self._ports, *self._retired]


def _nobody(_entries: Sequence[Entry]) -> None:
    """Where nobody keeps a ledger."""
