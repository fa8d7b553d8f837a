"""The start, the reload and the stop of a server: the base of `single_process` and of `net.workers.master`.

Start: the sockets are bound while the process has the right to; then it becomes the configured user (with workers, the
zygote does); only then it reads mail and answers. Stop: `net.serving.serving`.

Reload, by SIGHUP or `mailserver reload`, has two halves. The first half checks the configuration and everything that it
names, in a thread, and changes nothing: with a fault, or a socket that cannot be bound, the reload ends here and the
previous configuration stays. The second half takes the new configuration up, on the reactor's thread, and cannot fail:
sessions go on, and see the new settings with their next command. `net/workers/reload.py` does both halves over all
workers. Certificates that change on disk need no reload (`net/certificates/certificates.py`).
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
from mailserver.net.listeners.binding import BoundSocket, advice, bind, places
from mailserver.net.listeners.systemd_sockets import SystemdSockets
from mailserver.net.listeners.unix_sockets import bind_unix, serve_unix, set_rights
from mailserver.net.log.events import log
from mailserver.net.log.log_file import LogFile
from mailserver.net.service import systemd
from mailserver.net.service.dkim_keys import DkimRotation, log_problems, with_dkim_keys
from mailserver.net.service.known_networks_file import KnownNetworksFile
from mailserver.net.service.process_identity import allow_files
from mailserver.net.service.server_bans import ServerBans
from mailserver.system.as_user import other_user
from mailserver.tls.acme.acme_state import with_account
from mailserver.tls.changes.activation import Activation
from mailserver.tls.serving.policy import Prepared, TlsPolicy
from mailserver.tls.state.history import CannotRecord


class CannotStart(Exception):
    """A daemon cannot start; the text says why. In the foreground SystemExit is raised instead: status 1, no traceback."""


class ServiceProcess(Service, ABC):
    """Binding, signals, the control socket and reloads of the process that twistd runs."""

    output_log: ILogObserver | None = None
    """Log observer without a `log_file`, if not twistd's own."""

    def __init__(
        self, config: Config, reactor: Any, *, daemon: bool = False, log_file: LogFile | None = None, shards: int = 0
    ) -> None:
        self.setName("mailserver")
        self.log_file = log_file
        self.config = config
        self.reactor = reactor
        self.bound: list[BoundSocket] = []
        self.systemd_sockets = SystemdSockets()
        self._daemon = daemon
        self.shards = shards
        self._control: IListeningPort | None = None
        self._reloading = DeferredLock()
        self._certificates: Certificates | None = None
        self._acme: AcmeCertificates | None = None
        self._private_ca: PrivateCertificates | None = None
        self._account: AcmeAccount | None = None
        self._dkim: DkimRotation | None = None
        self._watchdog: LoopingCall | None = None
        self.exposures = Exposures(reactor, config.server.state_dir)
        self.known_networks = KnownNetworksFile(reactor, config.server.state_dir)
        self.bans = ServerBans(reactor, config.server.state_dir, self.known_networks.known)
        self.ledger = LedgerWriter(reactor, config.server.state_dir, lambda: self.config)
        self.ending = False

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Set the log observer of the application, which starts its log after this."""
        observer = self.log_file or self.output_log
        if observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Bind while the process has the right to. Raises: SystemExit, CannotStart with every place that cannot be bound."""
        with self._startup_errors():
            self._bind_all()

    def startService(self) -> None:
        """Serve. Raises: SystemExit, CannotStart."""
        super().startService()
        with self._startup_errors():
            self.begin()

    def stopService(self) -> Deferred[Any]:
        """Say farewell to all clients, write pending files, and close the control socket."""
        super().stopService()
        systemd.notify("STOPPING=1")
        # The default action would end the process while commands may still finish.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if self._certificates is not None:
            self._certificates.stop()
        for renewing in (self._acme, self._private_ca, self._dkim):
            if renewing is not None:
                renewing.stop()
        ending = self.end()
        ending.addBoth(
            lambda _ended: DeferredList(
                [self.exposures.stop(), self.ledger.stop(), self.known_networks.stop(), self.bans.stop()]
            )
        )
        return DeferredList([self._close_control(), ending])

    def reload(self) -> Deferred[Answer]:
        """Take up a changed configuration: certificates, settings, listeners. Sessions go on. Reloads run one at a time."""

        def report(answer: Answer) -> Answer:
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

        return self._reloading.run(take_up).addCallback(report)

    def follow_certificates(
        self, policy: TlsPolicy, activation: Activation, serve: Callable[[Prepared], Deferred[list[str]]]
    ) -> None:
        """Follow certificates on disk and renew them; `serve` has all processes serve some that have changed."""
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
        self._dkim = DkimRotation(self.reactor, config=lambda: self.config, reload=self.reload)
        self._account = AcmeAccount(
            self.reactor,
            config=lambda: self.config,
            orders=self._acme,
            certificates=self._certificates,
            reload=self.reload,
        )

    def renewals(self) -> list[Json]:
        """Return a row for each host whose certificate an ACME authority issues."""
        return [] if self._acme is None else self._acme.renewals()

    def load_acme_account(self) -> None:
        """Read the ACME account before any client is served: a worker needs it to answer the authority."""
        try:
            self.config = with_account(self.config)
        except CannotRecord as error:
            log.warn("acme: {reason}", event="acme-not-possible", reason=str(error))

    def load_dkim_keys(self) -> None:
        """Read the DKIM keys before any client is served."""
        self.config, reading = with_dkim_keys(self.config)
        log_problems(reading)

    # --- Steps that the subclasses have

    @abstractmethod
    def begin(self) -> None:
        """Start, with the sockets in `bound`. Raises: SystemExit."""

    @abstractmethod
    def end(self) -> Deferred[Any]:
        """Accept no new connections, say farewell to all clients, and end."""

    @abstractmethod
    async def take_up(self) -> Answer:
        """Do both halves of a reload."""

    @abstractmethod
    def worker_pool(self) -> WorkerPool:
        """Return the processes that answer the administrator's queries."""

    def report_ready(self, listeners: int) -> None:
        """Open the control socket and take signals, once everything is served."""
        self._open_control()
        if self._certificates is not None:
            self._certificates.start()
        self._follow_renewals()
        if self._dkim is not None:
            self._dkim.start()
        signal.signal(signal.SIGHUP, lambda _number, _frame: self.reactor.callFromThread(self._reload_by_signal))
        choice = choose_transports(self.config.server.transport, self.reactor)
        log.info("{notice}", event="transport", notice=choice.line)
        log.info("ready: {listeners} listeners", event="ready", listeners=listeners)
        systemd.notify("READY=1")
        self._watchdog = systemd.watchdog(self.reactor)

    def set_socket_rights(self, config: Config) -> list[str]:
        """Give open Unix sockets the rights that a changed configuration says; return what was done, in sentences."""
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
        """Replace the reactor's handlers once it runs: with its own the process would end by the signal, not with status 0."""
        self.reactor.callWhenRunning(self.reactor.callLater, 0, self._take_end_signals)

    def bind_new(self, config: Config, known: set[str], opened: list[BoundSocket]) -> list[str]:
        """Bind the places that are not `known`, into `opened`; return what cannot be bound, in sentences."""
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
        """Owner of Unix sockets, if not the user of this process."""
        identity = other_user(self.config.server)
        return None if identity is None else (identity[0].pw_uid, identity[1])

    @contextlib.contextmanager
    def _startup_errors(self) -> Iterator[None]:
        try:
            yield
        except SystemExit as error:
            if not self._daemon:
                raise
            # twistd's first process reports an Exception, but waits for ever after a SystemExit.
            raise CannotStart(str(error)) from error

    def _allow_sockets(self, config: Config) -> None:
        """Raise the limit of open files for the listening sockets, each twice, as a port may have a duplicate."""
        count = sum(len(places(listener)) for listener in config.listeners)
        allow_files(0 if self.shards else config.limits.connections, 2 * count * max(1, self.shards))

    def _bind(self, listener: Listener, known: Container[str] = ()) -> list[BoundSocket]:
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
                bound.remove_file()
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
            **self.bans.commands(),
        }
        if self._certificates is not None:
            commands |= self._certificates.commands()
        if self._acme is not None:
            commands |= self._acme.commands()
        if self._account is not None:
            commands |= self._account.commands()
        factory = ControlFactory(commands, CHANGES, clock=self.reactor)
        self._control = serve_unix(opened, factory, self.reactor)

    def _close_control(self) -> Deferred[Any]:
        control, self._control = self._control, None
        if control is None:
            return succeed(None)
        try:
            socket_path(self.config.server.runtime_dir).unlink(missing_ok=True)
        except OSError as error:
            log.warn("the control socket is not removed: {reason}", event="control-socket-left", reason=str(error))
        return maybeDeferred(cast("Any", control).stopListening)

    def _reload_by_signal(self) -> None:
        self.reload().addErrback(lambda failure: log.failure("the reload has failed", failure, event="bug"))

    def _take_end_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self.reactor.callFromThread(self._end_process))

    def _end_process(self) -> None:
        if not self.ending:
            self.ending = True
            log.info("stopping", event="stopping")
            # Python collects garbage at exit, which would take longer than the rest of the stop.
            atexit.register(gc.freeze)
            self.reactor.stop()
