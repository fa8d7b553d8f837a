"""What the services that twistd runs have in common: `one_process`, and `master` where there are workers.

Order at start: sockets are bound while the rights to do so are there; then the process becomes the configured user;
only then anything is read or answered. The end is `serving`'s.

A reload has two halves. The first judges everything, in a thread where it reads files, and changes nothing: a fault in
the configuration, or a socket that cannot be bound, ends it there. The second takes it all up, on the reactor's
thread, and cannot fail.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any, cast

from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from mailserver.config.model import Config, Listener
from mailserver.config.socket_rights import SocketRights
from mailserver.net.admin.admin_queries import AdminQueries
from mailserver.net.admin.control_socket import Answer, ControlFactory, make_runtime_dir, socket_path
from mailserver.net.admin.exposures import Exposures
from mailserver.net.admin.ledger import LedgerWriter
from mailserver.net.certificates.acme import AcmeCertificates, current_certificates
from mailserver.net.certificates.acme_account import AcmeAccount
from mailserver.net.certificates.certificates import CHANGES, Certificates
from mailserver.net.certificates.private_ca import PrivateCertificates, served_chains
from mailserver.net.fast.versions import choose_transports
from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.server_link import WorkerPool
from mailserver.net.listeners.binding import Bound, advice, bind, places
from mailserver.net.listeners.systemd_sockets import SystemdSockets
from mailserver.net.listeners.unix_sockets import bind_unix, serve, set_rights
from mailserver.net.log.events import log
from mailserver.net.log.log_file import LogFile
from mailserver.net.service import systemd
from mailserver.net.service.known_networks_file import KnownNetworksFile
from mailserver.net.service.process_identity import allow_files
from mailserver.system.as_user import other_user
from mailserver.tls.acme.acme_state import with_account
from mailserver.tls.changes.activation import Activation
from mailserver.tls.serving.policy import Prepared, TlsPolicy
from mailserver.tls.state.history import CannotRecord


class CannotStart(Exception):
    """Why a daemon does not start. In the foreground a SystemExit says it: no traceback, and the status is 1."""


class ServiceProcess(Service, ABC):
    """Binding, signals, the control socket and the order of reloads, for whatever process twistd has made."""

    output_log: ILogObserver | None = None
    """Where the log goes without a `log_file`, if not where twistd would write it."""

    def __init__(
        self, config: Config, reactor: Any, *, daemon: bool = False, log_file: LogFile | None = None, shards: int = 0
    ) -> None:
        self.setName("mailserver")
        self.log_file = log_file
        self.config = config
        self.reactor = reactor
        self.bound: list[Bound] = []
        self.systemd_sockets = SystemdSockets()
        self._daemon = daemon
        self.shards = shards
        self._control: IListeningPort | None = None
        self._reloading = DeferredLock()
        self._certificates: Certificates | None = None
        self._acme: AcmeCertificates | None = None
        self._private_ca: PrivateCertificates | None = None
        self._account: AcmeAccount | None = None
        self._watchdog: LoopingCall | None = None
        self.exposures = Exposures(reactor, config.server.state_dir)
        self.known = KnownNetworksFile(reactor, config.server.state_dir)
        self.ledger = LedgerWriter(reactor, config.server.state_dir, lambda: self.config)
        self.ending = False

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """The application begins its log after this, and asks its component which observer that shall be."""
        observer = self.log_file or self.output_log
        if observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Bind, while the process may. Raises: SystemExit, CannotStart with every place that cannot be bound."""
        with self._startup_errors():
            self._bind_all()

    def startService(self) -> None:
        """Serve. Raises: SystemExit, CannotStart."""
        super().startService()
        with self._startup_errors():
            self.begin()

    def stopService(self) -> Deferred[Any]:
        """Stop as the module's text says."""
        super().stopService()
        systemd.notify("STOPPING=1")
        # By default it would end the process in the middle of the commands that may still finish.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if self._certificates is not None:
            self._certificates.stop()
        for renewing in (self._acme, self._private_ca):
            if renewing is not None:
                renewing.stop()
        ending = self.end()
        ending.addBoth(lambda _ended: DeferredList([self.exposures.stop(), self.ledger.stop(), self.known.stop()]))
        return DeferredList([self._close_control(), ending])

    def reload(self) -> Deferred[Answer]:
        """Take up a changed configuration: certificates, settings, listeners. Sessions go on. One at a time."""

        def tell(answer: Answer) -> Answer:
            ok, lines = answer
            for line in lines:
                log.info("reload: {notice}", event="reload-notice", notice=line)
            if ok:
                log.info("reloaded", event="reloaded")
            else:
                log.warn("reload: something was not taken up", event="reload-incomplete")
            return answer

        async def take_up_all() -> Answer:
            ok, lines = await self.take_up()
            if ok:
                lines = [*lines, *self.systemd_sockets.unserved(self.config)]
            if self._certificates is not None:
                lines = [*lines, *await self._certificates.reloaded(whole=ok)]
            self._follow_renewals()
            return ok, lines

        def take_up() -> Deferred[Answer]:
            systemd.reloading()
            return Deferred.fromCoroutine(take_up_all()).addBoth(end)

        def end(result: Answer) -> Answer:
            systemd.notify("READY=1")
            return result

        return self._reloading.run(take_up).addCallback(tell)

    def follow_certificates(
        self, policy: TlsPolicy, activation: Activation, serve: Callable[[Prepared], Deferred[list[str]]]
    ) -> None:
        """Keep to the certificates on disk; `serve` has all processes take up some that have changed."""
        self._certificates = Certificates(
            self.reactor,
            policy,
            activation,
            config=lambda: self.config,
            serve=serve,
            one_at_a_time=self._reloading.run,
        )
        self._acme = AcmeCertificates(
            self.reactor,
            config=lambda: self.config,
            held=lambda: current_certificates(policy),
            offer=self._certificates.offer,
        )
        self._private_ca = PrivateCertificates(
            self.reactor,
            config=lambda: self.config,
            served=lambda: served_chains(policy),
            serving=self._certificates,
        )
        self._account = AcmeAccount(
            self.reactor,
            config=lambda: self.config,
            orders=self._acme,
            certificates=self._certificates,
            reload=self.reload,
        )

    def renewals(self) -> list[Json]:
        """A row for each host whose certificate an ACME authority gives."""
        return [] if self._acme is None else self._acme.renewals()

    def find_account(self) -> None:
        """Before anything is served: who answers an ACME authority must know the account."""
        try:
            self.config = with_account(self.config)
        except CannotRecord as error:
            log.warn("acme: {reason}", event="acme-not-possible", reason=str(error))

    # --- For the kinds of services

    @abstractmethod
    def begin(self) -> None:
        """Start, with the sockets in `bound`. Raises: SystemExit."""

    @abstractmethod
    def end(self) -> Deferred[Any]:
        """Take no new connections, say farewell, and end."""

    @abstractmethod
    async def take_up(self) -> Answer:
        """A reload's two halves."""

    @abstractmethod
    def worker_pool(self) -> WorkerPool:
        """Who answers what the administrator asks."""

    def is_ready(self, listeners: int) -> None:
        """From now on the control socket and signals are answered."""
        self._open_control()
        if self._certificates is not None:
            self._certificates.start()
        self._follow_renewals()
        signal.signal(signal.SIGHUP, lambda _number, _frame: self.reactor.callFromThread(self._hang_up))
        choice = choose_transports(self.config.server.transport, self.reactor)
        log.info("{notice}", event="transport", notice=choice.line)
        log.info("ready: {listeners} listeners", event="ready", listeners=listeners)
        systemd.notify("READY=1")
        self._watchdog = systemd.watchdog(self.reactor)

    def settle_sockets(self, config: Config) -> list[str]:
        """Give Unix sockets that stay open the rights that a changed configuration says; what was done, in words."""
        before = {listener.socket: listener for listener in self.config.listeners}
        lines = []
        for listener in config.listeners:
            path, old = listener.socket, before.get(listener.socket)
            if path is None or old is None or self.systemd_sockets.has(str(path)):
                continue
            rights = SocketRights.of_listener(listener, self.config.server)
            if rights == SocketRights.of_listener(old, self.config.server):
                continue
            try:
                set_rights(path, rights.mode, (rights.uid, rights.gid))
            except OSError as error:
                lines.append(f"{path}: its rights are changed by the next start: {error.strerror}")
            else:
                lines.append(f"{path}: {rights}")
        return lines

    def take_end_signals(self) -> None:
        """Twisted's handlers come with the running reactor; theirs would end the process by the signal, not with 0."""
        self.reactor.callWhenRunning(self.reactor.callLater, 0, self._take_end_signals)

    def bind_new(self, config: Config, known: set[str], opened: list[Bound]) -> list[str]:
        """Bind what is not `known`, into `opened`; what cannot be bound, in words."""
        errors: list[OSError] = []
        self._allow_sockets(config)
        for listener in config.listeners:
            try:
                opened.extend(self._bind(listener, known))
            except OSError as error:
                errors.append(error)
        return [*(str(error.strerror) for error in errors), *advice(errors)]

    # --- Inside

    def _follow_renewals(self) -> None:
        for renewing in (self._acme, self._private_ca):
            if renewing is not None:
                renewing.follow()

    @property
    def _owner(self) -> tuple[int, int] | None:
        """Whose the Unix sockets are to be, if not this process's own."""
        identity = other_user(self.config.server)
        return None if identity is None else (identity[0].pw_uid, identity[1])

    @contextlib.contextmanager
    def _startup_errors(self) -> Iterator[None]:
        try:
            yield
        except SystemExit as error:
            if not self._daemon:
                raise
            # twistd's first process hears of an Exception, and waits for ever after a SystemExit.
            raise CannotStart(str(error)) from error

    def _allow_sockets(self, config: Config) -> None:
        """Let this process open those that listen, each twice, as what serves one may have a duplicate."""
        count = sum(len(places(listener)) for listener in config.listeners)
        allow_files(0 if self.shards else config.limits.connections, 2 * count * max(1, self.shards))

    def _bind(self, listener: Listener, known: Container[str] = ()) -> list[Bound]:
        return bind(
            listener, known=known, shards=self.shards, rights=self._socket_rights, from_systemd=self.systemd_sockets.at
        )

    def _socket_rights(self, listener: Listener) -> SocketRights:
        return SocketRights.of_listener(listener, self.config.server)

    def _bind_all(self) -> None:
        if unserved := self.systemd_sockets.unserved(self.config):
            raise SystemExit("\n".join(unserved))
        errors: list[OSError] = []
        self._allow_sockets(self.config)
        for listener in self.config.listeners:
            try:
                self.bound.extend(self._bind(listener))
            except OSError as error:
                errors.append(error)
        if errors:
            for bound in self.bound:
                bound.socket.close()
            raise SystemExit("\n".join([*(str(error.strerror) for error in errors), *advice(errors)]))

    def _open_control(self) -> None:
        directory: Path = self.config.server.runtime_dir
        path = socket_path(directory)
        try:
            make_runtime_dir(directory)
            opened = bind_unix(path, 0o600, self._owner)
        except OSError as error:
            log.warn(
                "no control socket at {path}: {reason}",
                event="control-socket-absent",
                path=str(path),
                reason=str(error),
            )
            return
        commands = {
            "reload": lambda _arguments: self.reload(),
            **AdminQueries(self.worker_pool()).commands(),
            **self.exposures.commands(),
        }
        if self._certificates is not None:
            commands |= self._certificates.commands()
        if self._acme is not None:
            commands |= self._acme.commands()
        if self._account is not None:
            commands |= self._account.commands()
        factory = ControlFactory(commands, CHANGES, clock=self.reactor)
        self._control = serve(opened, factory, self.reactor)

    def _close_control(self) -> Deferred[Any]:
        control, self._control = self._control, None
        if control is None:
            return succeed(None)
        try:
            socket_path(self.config.server.runtime_dir).unlink(missing_ok=True)
        except OSError as error:
            log.warn("the control socket is not removed: {reason}", event="control-socket-left", reason=str(error))
        return maybeDeferred(cast("Any", control).stopListening)

    def _hang_up(self) -> None:
        self.reload().addErrback(lambda failure: log.failure("the reload has failed", failure, event="bug"))

    def _take_end_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self.reactor.callFromThread(self._end_process))

    def _end_process(self) -> None:
        if not self.ending:
            self.ending = True
            log.info("stopping", event="stopping")
            # At its exit Python would look through all objects for cycles, which takes longer than the rest of the end.
            atexit.register(gc.freeze)
            self.reactor.stop()
