"""The service that twistd runs: binds, changes user, listens, reloads, and stops without losing a command.

Order at start: sockets are bound while the rights to do so are there; then the process becomes the configured user;
only then anything is read or answered. At the end no new connection is taken, every session hears its farewell and
may finish the command it is in, and what still hangs after GRACE seconds is cut.
"""

from __future__ import annotations

import grp
import os
import pwd
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.interfaces import IListeningPort, IOpenSSLServerConnectionCreator, IReactorTime

from mailserver.channel import Channel
from mailserver.config.model import Config, Listener, Server
from mailserver.net.connection import Session
from mailserver.net.control import Answer, ControlFactory, make_runtime_dir, socket_path
from mailserver.net.limits import ConnectionCounts
from mailserver.net.listeners import Bound, Port, bind, protocol_family
from mailserver.net.log import log

GRACE = 10.0


class Parts(Protocol):
    """What the service runs; made once the process is the right user, by who wires."""

    config: Config

    @property
    def tls(self) -> IOpenSSLServerConnectionCreator | None:
        """For every listener that offers TLS."""

    def session_maker(self, family: str) -> Callable[[Channel], Session]:
        """For "imap", "pop3", "submission", "lmtp": always with the settings of the newest configuration."""

    def reload(self) -> tuple[Answer, Config]:
        """Take up the changed configuration; what was done, in words, and the configuration now in force."""

    def start(self) -> None:
        """Start threads and processes."""

    async def stop(self) -> None:
        """Close accounts, end threads and processes."""


class MailService(Service):
    """Listeners, the control socket and the signals, around the parts."""

    def __init__(self, config: Config, make_parts: Callable[[Config], Parts], reactor: Any) -> None:
        self.setName("mailserver")
        self._config = config
        self._make_parts = make_parts
        self._reactor = reactor
        self._bound: list[Bound] = []
        self._ports: list[Port] = []
        self._retired: list[Port] = []
        self._parts: Parts | None = None
        self._control: IListeningPort | None = None
        self._counts = ConnectionCounts(config.limits)
        self._stopped: Deferred[None] | None = None

    def privilegedStartService(self) -> None:
        """Bind, while the process may. Raises: SystemExit with every place that cannot be bound."""
        faults = []
        for listener in self._config.listeners:
            try:
                self._bound.extend(bind(listener))
            except OSError as error:
                faults.append(str(error.strerror))
        if faults:
            for bound in self._bound:
                bound.socket.close()
            raise SystemExit("\n".join(faults))

    def startService(self) -> None:
        """Become the configured user and serve."""
        super().startService()
        become(self._config.server)
        self._parts = self._make_parts(self._config)
        self._parts.start()
        for bound in self._bound:
            self._listen(bound)
        self._bound.clear()
        self._open_control()
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._reactor.callFromThread(self._hang_up))
        log.info("{line}", line=f"ready: {len(self._ports)} listeners")

    def stopService(self) -> Deferred[Any]:
        """Stop as the module's text says."""
        super().stopService()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        closing = [maybeDeferred(port.stop_listening) for port in self._ports]
        if self._control is not None:
            closing.append(maybeDeferred(self._control.stopListening))
        self._stopped = Deferred()
        for port in self._all_ports():
            port.on_empty = self._check_empty
            port.stop_sessions()
        cut = cast("IReactorTime", self._reactor).callLater(GRACE, self._cut)
        self._check_empty()

        def end(result: object) -> Deferred[Any] | object:
            if cut.active():
                cut.cancel()
            return Deferred.fromCoroutine(self._parts.stop()) if self._parts is not None else result

        return DeferredList([*closing, self._stopped]).addCallback(end)

    def reload(self) -> Answer:
        """Take up a changed configuration: certificates, settings, listeners. Sessions go on."""
        assert self._parts is not None
        (ok, lines), config = self._parts.reload()
        if not ok:
            return ok, lines
        self._counts.limits = config.limits
        ok, changed = self._change_listeners(config.listeners)
        self._config = config
        return ok, [*lines, *changed]

    # --- Inside

    def _listen(self, bound: Bound) -> None:
        assert self._parts is not None
        make_session = self._parts.session_maker(protocol_family(bound.listener))
        self._ports.append(Port(bound, self._reactor, self._counts, self._parts.tls, make_session))
        log.info("{line}", line=bound.ready_line)

    def _change_listeners(self, wanted: Sequence[Listener]) -> tuple[bool, list[str]]:
        lines = []
        for port in [port for port in self._ports if port.bound.listener not in wanted]:
            port.stop_listening()
            self._ports.remove(port)
            self._retired.append(port)
            lines.append(f"no longer serving {port.bound.listener.protocol} on {port.bound.place}")
        ok = True
        known = {port.bound.listener for port in self._ports}
        for listener in wanted:
            if listener in known:
                continue
            try:
                for bound in bind(listener):
                    self._listen(bound)
                    lines.append(bound.ready_line)
            except OSError as error:
                ok = False
                lines.append(f"{error.strerror}; a restart may be needed for ports below 1024")
        return ok, lines

    def _open_control(self) -> None:
        directory: Path = self._config.server.runtime_dir
        try:
            make_runtime_dir(directory)
            path = socket_path(directory)
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warn("no control socket in {directory}: {error}", directory=str(directory), error=error)
            return
        endpoint = UNIXServerEndpoint(self._reactor, str(path), mode=0o600, wantPID=False)

        def opened(port: IListeningPort) -> None:
            self._control = port

        def failed(failure: Any) -> None:
            log.warn("no control socket at {path}: {error}", path=str(path), error=failure.value)

        endpoint.listen(ControlFactory({"reload": self.reload})).addCallbacks(opened, failed)

    def _hang_up(self) -> None:
        try:
            ok, lines = self.reload()
        except Exception:
            log.failure("reload")
            return
        for line in lines:
            log.info("{line}", line=f"reload: {line}")
        log.info("{line}", line="reloaded" if ok else "reload: not taken up")

    def _check_empty(self) -> None:
        if (
            self._stopped is not None
            and not self._stopped.called
            and not any(port.connections for port in self._all_ports())
        ):
            self._stopped.callback(None)

    def _cut(self) -> None:
        for port in self._all_ports():
            port.cut_sessions()

    def _all_ports(self) -> list[Port]:
        return [*self._ports, *(port for port in self._retired if port.connections)]


def become(server: Server) -> None:
    """Give up root for the configured user, for good. Nothing to do if the process is that user already."""
    if os.getuid() != 0 or not server.user:
        return
    user = pwd.getpwnam(server.user)
    if user.pw_uid == 0:
        return
    group = grp.getgrnam(server.group).gr_gid if server.group else user.pw_gid
    runtime_dir = server.runtime_dir
    if not runtime_dir.exists():
        runtime_dir.mkdir(mode=0o700, parents=True)
        os.chown(runtime_dir, user.pw_uid, group)
    os.initgroups(user.pw_name, group)
    os.setresgid(group, group, group)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.environ["HOME"] = user.pw_dir
