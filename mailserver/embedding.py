"""The protocols for other Twisted programs: factories for any endpoint, and the service that they share.

    services = MailServices.from_file("mail.toml")
    services.setServiceParent(application)
    StreamServerEndpointService(serverFromString(reactor, "tcp:143"), IMAPFactory(services)).setServiceParent(application)

docs/embedding.md has a whole `.tac`. Nothing here sets a handler of a signal, changes Python's garbage collector or logging,
or waits for processes that it has not started.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Self

from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailserver.config.model import Config, Listener
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.net.connection.factories import IMAPFactory, LMTPFactory, POP3Factory, SubmissionFactory
from mailserver.net.connection.listener_context import MakeSession, Session
from mailserver.net.connection.open_connections import OpenConnections, Shutdown
from mailserver.net.ipc.event_counters import EventCounters
from mailserver.net.ipc.message_schema import Json
from mailserver.net.log.events import log
from mailserver.net.service.dkim_keys import log_problems, with_dkim_keys
from mailserver.net.transport.stock import Transports, stock_transports
from mailserver.problems import find_problems
from mailserver.session.channel import Channel
from mailserver.system.as_user import other_user
from mailserver.wiring.services import Services

__all__ = [
    "Config",
    "IMAPFactory",
    "InvalidConfiguration",
    "LMTPFactory",
    "Listener",
    "MailServices",
    "POP3Factory",
    "SubmissionFactory",
]

CHILDREN_TIME: Final = 5.0
"""Seconds for which a stop waits for processes that were killed to be gone."""


class InvalidConfiguration(Exception):
    """A configuration that cannot be served; its text names every problem."""


class MailServices(Service):
    """What the factories of a program share: accounts, back ends, certificates, limits.

    A service whose start makes threads, processes and watchers, and whose stop ends them: the connections first. Clients
    are served between the two; those that come before or after are closed at once. Its objects are made at the start, as
    the user that the program has become by then.
    """

    name = "mailserver"

    def __init__(self, config: Config, reactor: Any = None) -> None:
        """`config` is made in code, or read by `from_file`. `reactor`: the installed one when None."""
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - importing it installs one
        self.reactor = reactor
        self.counts = ConnectionCounts(config.limits)
        self.event_counters = EventCounters()
        self.client_log = None
        """There is no ledger."""
        self.transports: Transports = stock_transports("embedded")
        self._config = config
        self._connections: list[OpenConnections] = []
        self._services: Services | None = None
        self._reloading = DeferredLock()
        self._stopping = DeferredLock()
        """A second stop waits for the first one."""

    @classmethod
    def from_file(cls, path: str | Path, reactor: Any = None) -> Self:
        """Make them of a file as `twistd mailserver` reads it; it needs no [[listener]].

        Raises: InvalidConfiguration.
        """
        config, problems = find_problems(Path(path), starting=True, embedded=True)
        if config is None:
            raise InvalidConfiguration("\n".join(map(str, problems)))
        for problem in problems:
            log.warn("{problem}", event="configuration-warning", problem=str(problem))
        return cls(config, reactor)

    @property
    def config(self) -> Config:
        """The configuration that is served."""
        return self._config if self._services is None else self._services.config

    # --- The service

    def startService(self) -> None:
        """Make the objects and begin to serve. Raises: InvalidConfiguration, RuntimeError before the end of a stop."""
        if self._services is not None:
            raise RuntimeError("MailServices was started before: wait for the Deferred of stopService")
        if other_user(self._config.server) is not None:
            user = self._config.server.user
            raise InvalidConfiguration(
                f"[server] user is {user}, and this process is root: start twistd with --uid {user}"
            )
        self._config, keys = with_dkim_keys(self._config)
        log_problems(keys)
        try:
            services = Services(self._config, self.reactor)
        except SystemExit as error:
            raise InvalidConfiguration(str(error)) from error
        self._services = services  # before its start: a stop ends what a failed one has begun
        services.start()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """End all sessions, each with the closing line of its protocol, then threads and processes."""
        super().stopService()
        return self._stopping.run(lambda: Deferred.fromCoroutine(self._stop()))

    async def _stop(self) -> None:
        services = self._services
        if services is None:
            return
        ended = Shutdown(self.reactor, lambda: self._connections).begin()
        services.cancel_background()
        await ended
        await services.stop()
        try:
            await services.when_processes_ended().addTimeout(CHILDREN_TIME, self.reactor)
        except DeferredTimeout:
            log.warn("stopping without a child process that does not end", event="process-left")
        await self._reloading.run(services.close)  # a reload reads certificates until its end
        self._config, self._services = services.config, None

    def reload(self) -> Deferred[list[str]]:
        """Take up the file as it is now: certificates, users, settings. What was done, in words.

        Sessions go on. Where something is wrong nothing is taken up. Fails with InvalidConfiguration; with RuntimeError
        before the start and after the stop.
        """
        return self._reloading.run(lambda: Deferred.fromCoroutine(self._reload()))

    async def _reload(self) -> list[str]:
        services = self._running()
        pool = self.reactor.getThreadPool()
        found = await deferToThreadPool(self.reactor, pool, services.check_reload)
        if found.config is None or found.prepared is None or not self.running:
            raise InvalidConfiguration("\n".join(found.lines))
        if faults := services.accept(found.prepared):
            raise InvalidConfiguration("\n".join(faults))
        self.counts.limits = found.config.limits
        return [*found.lines, *services.commit(found.prepared)]

    def status(self) -> dict[str, Json]:
        """Numbers, or [number, bound], as `mailserver status` shows them."""
        return self._running().status()

    # --- For the factories (`FactoryServices`)

    @property
    def tls(self) -> MailServices | None:
        """Makes the TLS of factories; None without a [[domain]], which would have the certificate."""
        return self if self._config.domains else None

    def creator(self, listener: Listener) -> IOpenSSLServerConnectionCreator:
        """Make TLS connections under the certificate that the client's server name chooses.

        For `TLSMemoryBIOFactory`, too: `creator(Listener("imaps"))` agrees on the application protocol `imap` (ALPN).
        """
        return _Creator(self, listener)

    def session_maker(self, family: str) -> MakeSession:
        """Make sessions with the newest settings."""

        def make_session(channel: Channel) -> Session:
            return self._running().session_maker(family)(channel)

        return make_session

    def listeners(self) -> Iterable[Listener]:
        """No listener is known: another program has the ports."""
        return ()

    def open_connections(self) -> OpenConnections:
        """Make the set of connections of one more factory."""
        self._connections.append(OpenConnections())
        return self._connections[-1]

    def _running(self) -> Services:
        if self._services is None:
            raise RuntimeError("MailServices is not started: setServiceParent, or startService")
        return self._services

    def make_tls_connection(self, listener: Listener, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Make the TLS connection of one client. While the service does not run it is closed before its handshake."""
        if self._services is None:
            return SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD), None)
        return self._services.tls.creator(listener).serverConnectionForTLS(protocol)


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    """Makes the TLS connections of a listener, by the certificates of now."""

    def __init__(self, services: MailServices, listener: Listener) -> None:
        self._services = services
        self._listener = listener

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N803
        """See IOpenSSLServerConnectionCreator."""
        return self._services.make_tls_connection(self._listener, tlsProtocol)
