"""Binding: which sockets are opened for a listener of the configuration, and what stands behind them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from attrs import frozen
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IListeningPort, IOpenSSLServerConnectionCreator, IReactorSocket, IReactorTime
from twisted.internet.protocol import Factory

from mailserver.channel import Channel
from mailserver.config.model import Listener
from mailserver.net.connection import Connection, ConnectionFactory, Listening, Session, tls_factory
from mailserver.net.limits import ConnectionCounts
from mailserver.net.proxy import TrustingFactory

FAREWELLS = {
    "imap": b"* BYE the server is shutting down\r\n",
    "pop3": b"",
    "submission": b"421 4.3.2 shutting down\r\n",
    "lmtp": b"421 4.3.2 shutting down\r\n",
}
BACKLOG = 1024


@frozen
class Bound:
    """An open socket and what it serves, before anybody listens on it."""

    listener: Listener
    socket: socket.socket
    place: str

    @property
    def ready_line(self) -> str:
        """What the log says of it."""
        kind = "implicit TLS" if self.listener.implicit_tls else "STARTTLS"
        if self.listener.allow_cleartext:
            kind += ", passwords in clear text allowed"
        return f"serving {self.listener.protocol} on {self.place} ({kind})"


def protocol_family(listener: Listener) -> str:
    """The protocol without its TLS kind: "imap" of "imaps"."""
    return listener.protocol.removesuffix("s") if listener.implicit_tls else listener.protocol


def bind(listener: Listener) -> list[Bound]:
    """Open its sockets. Raises: OSError, with the place in its text."""
    if listener.socket is not None:
        return [Bound(listener, _bind_unix(listener.socket), str(listener.socket))]
    port = listener.tcp_port
    bound = []
    for address in listener.bind_addresses:
        place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        try:
            bound.append(Bound(listener, _bind_tcp(address, port), place))
        except OSError as error:
            if address == "::" and not listener.addresses and len(bound) == 1:
                continue  # a machine without IPv6: nobody asked for it in words
            for other in bound:
                other.socket.close()
            raise OSError(error.errno, f"cannot listen on {place}: {os.strerror(error.errno or 0)}") from error
    return bound


def _bind_tcp(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
        opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def _bind_unix(path: Path) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        _remove_stale(path)
        opened.bind(str(path))
        path.chmod(0o666)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise OSError(error.errno, f"cannot listen on {path}: {error.strerror}") from error
    return opened


def _remove_stale(path: Path) -> None:
    """A socket file that nobody answers is a dead process's."""
    if not path.is_socket():
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink()
    finally:
        probe.close()


class Port:
    """One socket being served."""

    def __init__(
        self,
        bound: Bound,
        reactor: IReactorSocket,
        counts: ConnectionCounts,
        tls: IOpenSSLServerConnectionCreator | None,
        make_session: Callable[[Channel], Session],
    ) -> None:
        self.connections: set[Connection] = set()
        self.bound = bound
        self.on_empty: Callable[[], None] = lambda: None
        listener = bound.listener
        clock = cast("IReactorTime", reactor)
        self._listening = Listening(
            protocol=listener.protocol,
            make_session=make_session,
            farewell=FAREWELLS[protocol_family(listener)],
            reactor=clock,
            counts=counts,
            tls=tls,
            implicit_tls=listener.implicit_tls,
            cleartext_allowed=listener.allow_cleartext,
            tls_required=listener.require_tls,
            local=bound.place,
            open_connections=self.connections,
            stopped=self._empty,
        )
        inner = ConnectionFactory(self._listening)
        factory: Factory = tls_factory(self._listening, inner, clock) if self._listening.implicit_tls else inner
        if listener.proxy_from:
            factory = TrustingFactory(factory, listener.proxy_from)
        family = bound.socket.family
        # The endpoint takes a duplicate and closes what it was given.
        AdoptedStreamServerEndpoint(reactor, bound.socket.detach(), family).listen(factory).addCallback(self._listens)

    def _listens(self, port: IListeningPort) -> None:
        self._port = port

    def _empty(self) -> None:
        self.on_empty()

    def stop_listening(self) -> Any:
        """No new connections. A Deferred or None."""
        if self.bound.listener.socket is not None:
            self.bound.listener.socket.unlink(missing_ok=True)
        return self._port.stopListening()

    def stop_sessions(self) -> None:
        """Farewell to those that are open."""
        for connection in tuple(self.connections):
            connection.stop()

    def cut_sessions(self) -> None:
        """End what is still open."""
        for connection in tuple(self.connections):
            connection.cut()
