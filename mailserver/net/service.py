"""The service that twistd runs: binds, changes user, listens, reloads, and stops without losing a command.

Order at start: sockets are bound while the rights to do so are there; then the process becomes the configured user;
only then anything is read or answered. At the end no new connection is taken, every session hears its farewell and
may finish the command it is in, what still hangs after GRACE seconds is cut, and what does not even hear that (a
back end that never answers) is left behind after as long again.

A reload has two halves. The first judges everything, in a thread where it reads files, and changes nothing: a fault in
the configuration, or a socket that cannot be bound, ends it there. The second takes it all up, on the reactor's
thread, and cannot fail. Listeners are compared place by place: a changed one keeps its open socket.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from attrs import frozen
from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, maybeDeferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.interfaces import IListeningPort, IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from mailserver.channel import Channel
from mailserver.config.model import Config, Listener, Server
from mailserver.net.connection import Session
from mailserver.net.control import Answer, ControlFactory, make_runtime_dir, socket_path
from mailserver.net.limits import ConnectionCounts
from mailserver.net.listeners import Bound, Port, bind, places, protocol_family, remove_stale
from mailserver.net.log import log
from mailserver.net.log_file import LogFile

GRACE = 10.0
SPARE_FILES = 1000
"""Files beside those of the clients: the store's, the index's, the log's."""

P = TypeVar("P")


@frozen
class Examined(Generic[P]):
    """What the first half of a reload found."""

    config: Config | None
    """None if it cannot be taken up."""
    lines: list[str]
    prepared: P | None
    """For `Parts.commit`."""
    whole: bool = True
    """False where something stays as it was, such as a certificate whose renewal is bad."""


class Parts(Protocol):
    """What the service runs; made once the process is the right user, by who wires."""

    config: Config

    @property
    def tls(self) -> IOpenSSLServerConnectionCreator:
        """For every listener."""

    def session_maker(self, family: str) -> Callable[[Channel], Session]:
        """For "imap", "pop3", "submission", "lmtp": always with the settings of the newest configuration."""

    def examine(self) -> Examined[Any]:
        """Judge the configuration as it is on disk now. Runs in a thread and changes nothing."""

    def accept(self, prepared: Any) -> list[str]:
        """Make what must be made on the reactor's thread and may fail; the faults. Nothing is taken up yet."""

    def commit(self, prepared: Any) -> list[str]:
        """Take up what was examined and accepted; what was done, in words."""

    def start(self) -> None:
        """Start threads and processes."""

    async def stop(self) -> None:
        """Close accounts, end threads and processes."""


class CannotStart(Exception):
    """Why a daemon does not start. In the foreground a SystemExit says it: no traceback, and the status is 1."""


class MailService(Service):
    """Listeners, the control socket and the signals, around the parts."""

    def __init__(
        self,
        config: Config,
        make_parts: Callable[[Config], Parts],
        reactor: Any,
        *,
        daemon: bool = False,
        log_file: LogFile | None = None,
    ) -> None:
        self.setName("mailserver")
        self._log_file = log_file
        self._daemon = daemon
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
        self._reloading = DeferredLock()
        self._ending = False

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """The application begins its log after this, and asks its component which observer that shall be."""
        if self._log_file is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._log_file)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Bind, while the process may. Raises: SystemExit, CannotStart with every place that cannot be bound."""
        with self._telling():
            self._bind_all()

    def startService(self) -> None:
        """Become the configured user and serve. Raises: SystemExit, CannotStart."""
        super().startService()
        with self._telling():
            self._begin()

    def stopService(self) -> Deferred[Any]:
        """Stop as the module's text says."""
        super().stopService()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        closing = [port.stop_listening() for port in self._ports]
        if self._control is not None:
            closing.append(maybeDeferred(cast("Any", self._control).stopListening))
        self._stopped = Deferred()
        for port in self._all_ports():
            port.on_empty = self._check_empty
            port.stop_sessions()
        clock = cast("IReactorTime", self._reactor)
        cut = clock.callLater(GRACE, self._cut)
        left = clock.callLater(2 * GRACE, self._leave_behind)
        self._check_empty()

        def end(result: object) -> Deferred[Any] | object:
            for timer in (cut, left):
                if timer.active():
                    timer.cancel()
            return Deferred.fromCoroutine(self._parts.stop()) if self._parts is not None else result

        return DeferredList([*closing, self._stopped]).addCallback(end)

    def reload(self) -> Deferred[Answer]:
        """Take up a changed configuration: certificates, settings, listeners. Sessions go on. One at a time."""
        return self._reloading.run(lambda: Deferred.fromCoroutine(self._reload()))

    # --- Inside

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except SystemExit as error:
            if not self._daemon:
                raise
            # twistd's first process hears of an Exception, and waits for ever after a SystemExit.
            raise CannotStart(str(error)) from error

    def _bind_all(self) -> None:
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

    def _begin(self) -> None:
        self._give_sockets()
        become(self._config.server)
        if self._log_file is not None:
            reopen = self._log_file.reopen
            self._log_file.open()
            signal.signal(signal.SIGUSR1, lambda _number, _frame: self._reactor.callFromThread(reopen))
        allow_files(self._config.limits.connections)
        self._parts = self._make_parts(self._config)
        self._parts.start()
        for bound in self._bound:
            try:
                self._listen(bound)
            except OSError as error:
                raise SystemExit(f"cannot listen on {bound.place}: {error.strerror}") from error
        self._bound.clear()
        self._open_control()
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._reactor.callFromThread(self._hang_up))
        # Twisted's handlers come with the running reactor; theirs would end the process by the signal, not with 0.
        self._reactor.callWhenRunning(self._reactor.callLater, 0, self._take_end_signals)
        log.info("{line}", line=f"ready: {len(self._ports)} listeners")

    def _give_sockets(self) -> None:
        """A Unix socket that root has bound becomes the user's, who must set its mode and remove it."""
        identity = identity_to_take(self._config.server)
        for bound in self._bound:
            if identity is not None and bound.listener.socket is not None:
                os.chown(bound.listener.socket, identity[0].pw_uid, identity[1])

    def _listen(self, bound: Bound) -> str:
        assert self._parts is not None
        port = Port(bound, self._reactor, self._counts, self._parts.tls, self._session_maker(bound.listener))
        self._ports.append(port)
        log.info("{line}", line=port.ready_line)
        return port.ready_line

    def _session_maker(self, listener: Listener) -> Callable[[Channel], Session]:
        assert self._parts is not None
        return self._parts.session_maker(protocol_family(listener))

    async def _reload(self) -> Answer:
        parts = self._parts
        assert parts is not None
        examined = await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), parts.examine)
        lines = examined.lines
        config = examined.config
        if config is None or not self.running:
            return False, [*lines, "nothing was taken up"]
        # Sockets last: nothing may fail once they are open.
        faults = parts.accept(examined.prepared)
        opened: list[Bound] = []
        if not faults:
            faults = self._bind_new(config, opened)
        if faults:
            for bound in opened:
                bound.socket.close()
            return False, [*lines, *faults, "nothing was taken up"]
        lines += parts.commit(examined.prepared)
        self._counts.limits = config.limits
        lines += self._change_listeners(config, opened)
        self._config = config
        return examined.whole, lines

    def _bind_new(self, config: Config, opened: list[Bound]) -> list[str]:
        known = {port.place for port in self._ports}
        faults = []
        for listener in config.listeners:
            try:
                opened.extend(bind(listener, known=known))
            except OSError as error:
                faults.append(f"{error.strerror} (ports below 1024 need a restart)")
        return faults

    def _change_listeners(self, config: Config, opened: list[Bound]) -> list[str]:
        wanted = {place: listener for listener in config.listeners for place in places(listener)}
        lines = []
        for port in tuple(self._ports):
            listener = wanted.get(port.place)
            if listener is None:
                lines.append(f"no longer serving {port.listener.protocol} on {port.place}")
                port.stop_listening()
                self._ports.remove(port)
                self._retired.append(port)
            elif listener != port.listener:
                port.change(listener, self._session_maker(listener))
                lines.append(port.ready_line)
        lines += [self._listen(bound) for bound in opened]
        self._retired = [port for port in self._retired if port.connections]
        return lines

    def _open_control(self) -> None:
        directory: Path = self._config.server.runtime_dir
        try:
            make_runtime_dir(directory)
            path = socket_path(directory)
            remove_stale(path)
        except OSError as error:
            log.warn("no control socket in {directory}: {error}", directory=str(directory), error=error)
            return
        endpoint = UNIXServerEndpoint(self._reactor, str(path), mode=0o600, wantPID=False)

        def opened(port: IListeningPort) -> None:
            self._control = port

        def failed(failure: Any) -> None:
            log.warn("no control socket at {path}: {error}", path=str(path), error=failure.value)

        commands: Mapping[str, Callable[[], Deferred[Answer]]] = {"reload": self._reload_and_log}
        endpoint.listen(ControlFactory(commands)).addCallbacks(opened, failed)

    def _hang_up(self) -> None:
        self._reload_and_log().addErrback(lambda failure: log.failure("reload", failure))

    def _reload_and_log(self) -> Deferred[Answer]:
        def tell(answer: Answer) -> Answer:
            ok, lines = answer
            for line in lines:
                log.info("{line}", line=f"reload: {line}")
            log.info("{line}", line="reloaded" if ok else "reload: something was not taken up")
            return answer

        return self.reload().addCallback(tell)

    def _take_end_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._reactor.callFromThread(self._end_process))

    def _end_process(self) -> None:
        if not self._ending:
            self._ending = True
            log.info("{line}", line="stopping")
            self._reactor.stop()

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

    def _leave_behind(self) -> None:
        left = sum(len(port.connections) for port in self._all_ports())
        log.warn("{line}", line=f"stopping without {left} sessions that do not end")
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)

    def _all_ports(self) -> list[Port]:
        return [*self._ports, *(port for port in self._retired if port.connections)]


def become(server: Server) -> None:
    """Give up root for the configured user, for good. Nothing to do if the process is that user already."""
    identity = identity_to_take(server)
    if identity is None:
        return
    user, group = identity
    os.initgroups(user.pw_name, group)
    os.setresgid(group, group, group)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.environ["HOME"] = user.pw_dir


def give_runtime_dir(server: Server) -> None:
    """As root, make the directory of the control socket for the configured user, or give it one that systemd made.

    systemd makes it for root, who is its unit's user. Raises: OSError.
    """
    identity = identity_to_take(server)
    if identity is None:
        return
    directory = server.runtime_dir
    made = not directory.exists()
    if made:
        directory.mkdir(mode=0o700, parents=True)
    if made or str(directory) in os.environ.get("RUNTIME_DIRECTORY", "").split(":"):
        os.chown(directory, identity[0].pw_uid, identity[1])


def identity_to_take(server: Server) -> tuple[pwd.struct_passwd, int] | None:
    """Whom root must become, and the group; None if nobody else."""
    if os.getuid() != 0 or not server.user:
        return None
    try:
        user = pwd.getpwnam(server.user)
        group = grp.getgrnam(server.group).gr_gid if server.group else user.pw_gid
    except KeyError:  # a problem of the configuration, told as such
        return None
    return (user, group) if user.pw_uid != 0 else None


def allow_files(connections: int) -> None:
    """Raise the limit of open files as far as it may be, and say so if the connections allowed do not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        log.warn("{line}", line=f"{connections} connections do not fit under the limit of {hard} open files")
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
