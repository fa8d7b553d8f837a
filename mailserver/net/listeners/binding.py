"""The sockets of the listeners of a configuration: opening them, and serving them by the factories."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory

from mailserver.config.model import Listener
from mailserver.config.socket_rights import SocketRights
from mailserver.net.connection.factories import FACTORIES
from mailserver.net.connection.listener_context import FactoryServices
from mailserver.net.listeners.proxy_protocol import ProxyProtocolFactory
from mailserver.net.listeners.unix_sockets import BACKLOG, bind_unix, serve_unix
from mailserver.net.log.events import log

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


_ADVICE = {
    errno.EADDRINUSE: "another program has it, or this server runs already: `ss -tanp` says who (from 32768 up the system"
    " gives ports to connections that go out);"
    " `port` of a [[listener]] chooses another, `make run PORT_BASE=20000` those of the demonstration",
    errno.EACCES: "ports below 1024 are root's: start it (again) as root, with [server] user, or set another `port`;"
    " a Unix socket needs a directory that this user can write",
    errno.EADDRNOTAVAIL: "`addresses` of a [[listener]] are those of this machine: `ip address` lists them",
}


@frozen
class BoundSocket:
    """An open socket and its listener, before it accepts clients."""

    listener: Listener
    socket: socket.socket
    place: str
    from_systemd: bool = False
    """systemd has the socket, too, and keeps it open."""

    def remove_file(self) -> None:
        """Remove the file of a Unix socket that is served no more."""
        if self.listener.socket is not None and not self.from_systemd:
            try:
                self.listener.socket.unlink(missing_ok=True)
            except OSError as error:
                log.warn("cannot remove {path}: {reason}", event="socket-left", path=self.place, reason=error.strerror)


def ready_line(listener: Listener, place: str) -> str:
    """The log line of a place that is served."""
    if listener.socket is not None:
        return f"serving {listener.protocol} on {place} ({_kind(listener)}){_rights_text(listener)}"
    return f"serving {listener.protocol} on {place} ({_kind(listener)})"


def _rights_text(listener: Listener) -> str:
    """The rights of a Unix socket's file; "" where it cannot be read."""
    assert listener.socket is not None
    try:
        status = os.stat(listener.socket)
    except OSError:
        return ""
    rights = SocketRights(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    return f": {rights} (mode {rights.mode:04o})"


def _kind(listener: Listener) -> str:
    kind = "implicit TLS" if listener.implicit_tls else "STARTTLS" if listener.starttls else "no TLS"
    if listener.cleartext != "never":
        where = " from its own address" if listener.cleartext == "same host" else ""
        kind += f", passwords in clear text allowed{where}"
    return kind


def bind(
    listener: Listener,
    *,
    known: Container[str] = (),
    shards: int = 0,
    rights: Callable[[Listener], SocketRights],
    from_systemd: Callable[[str], socket.socket | None] = lambda _place: None,
) -> list[BoundSocket]:
    """Open the sockets of a listener, but for the places that are `known`. Raises: OSError, with the place in its text.

    With `shards`, a TCP place has as many sockets, in their order, and the kernel spreads the connections among them
    (SO_REUSEPORT). A Unix socket is one for all shards; its file has the `rights` of its listener. One that
    `from_systemd(place)` returns is for all, too: connections in its queue wait for the next server.
    """
    if listener.socket is not None:
        place = str(listener.socket)
        if place in known:
            return []
        if (handed_over := from_systemd(place)) is not None:
            return [BoundSocket(listener, handed_over, place, from_systemd=True)]
        return [BoundSocket(listener, _bind_unix(listener.socket, rights(listener)), place)]
    port = listener.tcp_port
    bound: list[BoundSocket] = []
    for address in listener.bind_addresses:
        place = place_of(address, port)
        if place in known:
            continue
        if (handed_over := from_systemd(place)) is not None:
            bound.append(BoundSocket(listener, handed_over, place, from_systemd=True))
            continue
        try:
            if shards:
                # Another server's sockets could share the port with these, so test first whether it is free.
                _open_tcp(address, port).close()
            bound.extend(
                BoundSocket(listener, _bind_tcp(address, port, shared=bool(shards)), place)
                for _shard in range(shards or 1)
            )
        except OSError as error:
            if address == "::" and not listener.addresses and error.errno in _NO_IPV6:
                continue  # a machine without IPv6, which the configuration does not name
            for other in bound:
                other.socket.close()
            raise OSError(error.errno, f"cannot listen on {place}: {os.strerror(error.errno or 0)}") from error
    return bound


def places(listener: Listener) -> list[str]:
    """The places of a listener, as in `BoundSocket.place`."""
    if listener.socket is not None:
        return [str(listener.socket)]
    return [place_of(address, listener.tcp_port) for address in listener.bind_addresses]


def place_of(address: str, port: int) -> str:
    """The name of a TCP place."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _bind_tcp(address: str, port: int, *, shared: bool) -> socket.socket:
    opened = _open_tcp(address, port, shared=shared)
    try:
        opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def _open_tcp(address: str, port: int, *, shared: bool = False) -> socket.socket:
    """Open a socket that is bound and does not listen."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
    except BaseException:
        opened.close()
        raise
    return opened


def _bind_unix(path: Path, rights: SocketRights) -> socket.socket:
    try:
        return bind_unix(path, rights.mode, (rights.uid, rights.gid))
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {path}: {error.strerror}") from error


def advice(errors: Iterable[OSError]) -> list[str]:
    """Advice where places could not be bound, a line for each kind of reason."""
    numbers = {error.errno for error in errors}
    return [words for number, words in _ADVICE.items() if number in numbers]


class Port:
    """A socket that accepts clients. Raises: OSError."""

    def __init__(self, bound: BoundSocket, services: FactoryServices, *, shared: bool = False) -> None:
        """`shared`: other processes have the socket, too."""
        self.place = bound.place
        self.listener = bound.listener
        self.connections = services.open_connections()
        self._services = services
        self._removed = None if shared else bound
        """The socket whose file is removed at the end."""
        listen = serve_unix if bound.socket.family == socket.AF_UNIX else services.transports.listen
        self._port = listen(bound.socket, self._make_factory(bound.listener), services.reactor)

    @property
    def ready_line(self) -> str:
        """Its log line."""
        return ready_line(self.listener, self.place)

    def change(self, listener: Listener) -> None:
        """Serve new connections with the settings of another listener of the same place; the socket stays open."""
        self.listener = listener
        self._port.factory = self._make_factory(listener)

    def _make_factory(self, listener: Listener) -> Factory:
        factory: Factory = FACTORIES[listener.family](
            self._services, listener=listener, connections=self.connections, local=self.place
        )
        if listener.proxy_from:
            factory = ProxyProtocolFactory(factory, listener.proxy_from, self._services.reactor, self._services.counts)
        return factory

    def accept_waiting(self) -> None:
        """Accept the connections in the queue, before the last process closes the socket."""
        for _ in range(BACKLOG):
            before = self._port.sessionno
            self._port.doRead()
            if self._port.sessionno == before:
                return

    def stop_listening(self) -> Deferred[None]:
        """Accept no new connections; remove a Unix socket's file, where no other process serves it."""
        if self._removed is not None:
            self._removed.remove_file()
        return maybeDeferred(cast("Any", self._port.stopListening))
