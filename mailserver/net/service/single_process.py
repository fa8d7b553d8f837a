"""The service that twistd runs without workers: one process binds, serves and reloads."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool

from mailserver.auth.credential_uses import CredentialUse
from mailserver.auth.exposure.checker import ExposureMark
from mailserver.config.model import Config
from mailserver.net.admin.admin_queries import AdminQueries, SingleProcess
from mailserver.net.admin.control_socket import Answer
from mailserver.net.connection.turn_limit import TurnLimit
from mailserver.net.ipc.server_link import WorkerPool
from mailserver.net.listeners.binding import BoundSocket
from mailserver.net.log.events import log
from mailserver.net.log.forwarding import forward_logging
from mailserver.net.log.log_file import LogFile
from mailserver.net.service.known_networks_file import KnownNetworksFile
from mailserver.net.service.server_bans import ServerBans
from mailserver.net.service.service import ServiceProcess
from mailserver.net.serving.serving import ProcessServices, ReloadCheck, Serving
from mailserver.system.as_user import become
from mailserver.system.interpreter import tune_interpreter
from mailserver.tls.changes.activation import Activation
from mailserver.tls.serving.policy import Prepared, TlsPolicy


class SingleProcessServices(ProcessServices, Protocol):
    """Services of a process that checks a reload itself."""

    activation: Activation | None

    @property
    def tls(self) -> TlsPolicy:
        """The TLS policy of all listeners."""

    def set_exposure_recorder(self, take: Callable[[ExposureMark], None]) -> None:
        """Call `take(mark)` for each exposed password; called before any client is served."""

    def set_use_recorder(self, take: Callable[[Sequence[CredentialUse]], None]) -> None:
        """Call `take(uses)` with uses of app passwords; called before any client is served."""

    def use_known_networks(self, file: KnownNetworksFile) -> None:
        """Use the table of known networks that is kept in a file; called before any client is served."""

    def use_bans(self, bans: ServerBans) -> None:
        """Report guesses to the table of bans, and refuse the clients in it; called before any client is served."""

    def check_reload(self) -> ReloadCheck[Any]:
        """Check the configuration on disk. Runs in a thread and changes nothing."""


class SingleProcessService(ServiceProcess):
    """The service of a server without workers."""

    def __init__(
        self,
        config: Config,
        make_services: Callable[[Config], SingleProcessServices],
        reactor: Any,
        *,
        daemon: bool = False,
        log_file: LogFile | None = None,
    ) -> None:
        super().__init__(config, reactor, daemon=daemon, log_file=log_file)
        self._make_services = make_services
        self._services: SingleProcessServices | None = None
        self._serving: Serving | None = None
        self._single_process: SingleProcess | None = None
        self._turn_limit = TurnLimit()

    def begin(self) -> None:
        """Become the configured user and serve. Raises: SystemExit."""
        become(self.config.server)
        if self.log_file is not None:
            reopen = self.log_file.reopen
            self.log_file.open()
            signal.signal(signal.SIGUSR1, lambda _number, _frame: self.reactor.callFromThread(reopen))
        self.load_acme_account()
        self.load_dkim_keys()
        self._services = self._make_services(self.config)
        forward_logging()
        self._services.start()
        tune_interpreter()
        if self._services.activation is not None:
            self.follow_certificates(self._services.tls, self._services.activation, self._serve_certificates)
        self._serving = Serving(self._services, self.reactor, seen=self.ledger.add)
        self._single_process = SingleProcess(self._serving.answers)
        self._single_process.exposures = self.exposures.__len__
        self._single_process.renewals = self.renewals
        self.exposures.load()
        self._services.set_exposure_recorder(self.exposures.take)
        self._services.set_use_recorder(self.ledger.take_uses)
        self.known_networks.load()
        self._services.use_known_networks(self.known_networks)
        self.bans.load(self.config)
        self._services.use_bans(self.bans)
        self._single_process.bans = self.bans.__len__
        self._services.set_status_query(AdminQueries(self._single_process).numbers)
        for bound in self.bound:
            try:
                log.info(
                    "{notice}",
                    event="listening",
                    notice=self._serving.listen(bound),
                    protocol=bound.listener.protocol,
                    place=bound.place,
                )
            except OSError as error:
                raise SystemExit(f"cannot listen on {bound.place}: {error.strerror}") from error
        self._turn_limit.start()
        self.take_end_signals()
        self.report_ready(len(self.bound))
        self.bound.clear()

    def end(self) -> Deferred[Any]:
        """Say farewell to all clients, then stop the services."""
        self._turn_limit.stop()
        services = self._services
        if services is None or self._serving is None:
            return succeed(None)
        return self._serving.stop().addCallback(lambda _none: Deferred.fromCoroutine(services.stop()))

    def worker_pool(self) -> WorkerPool:
        """Return this process, for the administrator's queries."""
        assert self._single_process is not None
        return self._single_process

    def _serve_certificates(self, prepared: Prepared) -> Deferred[list[str]]:
        assert self._services is not None
        self._services.tls.commit(prepared)
        return succeed([])

    async def take_up(self) -> Answer:
        """Check the configuration in a thread, then take it up."""
        services, serving = self._services, self._serving
        assert services is not None
        assert serving is not None
        examined = await deferToThreadPool(self.reactor, self.reactor.getThreadPool(), services.check_reload)
        lines = examined.lines
        config = examined.config
        if config is None or not self.running:
            return False, [*lines, "nothing was taken up"]
        # Sockets last: nothing may fail after they are open.
        faults = services.accept(examined.prepared)
        opened: list[BoundSocket] = []
        if not faults:
            faults = self.bind_new(config, serving.places, opened)
        if faults:
            for bound in opened:
                bound.socket.close()
                bound.remove_file()
            return False, [*lines, *faults, "nothing was taken up"]
        lines += [*self.set_socket_rights(config), *services.commit(examined.prepared), *serving.change(config, opened)]
        self.config = config
        self.bans.configure(config)
        return examined.whole, lines
