"""Who is connected to this process, and how the administrator ends a session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from mailserver.net.connection.connection import Connection
from mailserver.net.ipc.message_schema import Json
from mailserver.net.listeners.binding import Port

CUT_AFTER = 1.5
"""Seconds until a session that was asked to end, and goes on all the same, is cut; see `connection.COMMAND_TIME`."""
FAREWELLS = {
    "imap": b"* BYE %b\r\n",
    "pop3": b"-ERR [SYS/TEMP] %b\r\n",
    "submission": b"421 4.3.2 %b\r\n",
    "lmtp": b"421 4.3.2 %b\r\n",
}
"""RFC 3501 7.1.5; RFC 3206 4; RFC 5321 3.8. A POP3 client takes it for the answer to its next command; HTTP has none."""


class Sessions:
    """The connections of the ports of this process."""

    def __init__(self, ports: Callable[[], Iterable[Port]], clock: IReactorTime) -> None:
        self._ports = ports
        self._clock = clock

    def who(self, asked: Json) -> Deferred[Json]:
        """{"user": str or null, "protocol": str or null} -> one object for each connection, the oldest first."""
        wanted = cast("dict[str, str | None]", asked)
        user, protocol = wanted.get("user"), wanted.get("protocol")
        found = [
            connection
            for _port, connection in self._all()
            if (user is None or connection.user == user)
            and (protocol is None or protocol in {connection.info.protocol, _port.listener.family})
        ]
        found.sort(key=lambda connection: connection.since)
        return succeed([_row(connection) for connection in found])

    def kick(self, asked: Json) -> Deferred[Json]:
        """{"target": user or session id, "reason": ASCII} -> the sessions that are told their end, each as in `who`.

        A command that runs may finish within COMMAND_TIME, and is cancelled then; who does not go within CUT_AFTER is cut.
        """
        wanted = cast("dict[str, str]", asked)
        target, reason = wanted["target"], wanted["reason"]
        kicked, rows = [], []
        for port, connection in self._all():
            if target in {connection.user, connection.info.session_id}:
                connection.log("kicked", reason=reason)
                kicked.append(connection)
                rows.append(_row(connection))
                farewell = FAREWELLS.get(port.listener.family)
                connection.stop(farewell % reason.encode("ascii") if farewell else b"")
        if kicked:
            self._clock.callLater(CUT_AFTER, _cut, kicked)
        return succeed(cast("Json", rows))

    def _all(self) -> Iterator[tuple[Port, Connection]]:
        for port in self._ports():
            # A connection may end while it is being told so.
            for connection in tuple(port.connections):
                yield port, connection


def _cut(connections: list[Connection]) -> None:
    for connection in connections:
        connection.cut()


def _row(connection: Connection) -> dict[str, Any]:
    info = connection.info
    return {
        "session": info.session_id,
        "user": connection.user,
        "protocol": info.protocol,
        "peer": None if info.peer is None else str(info.peer),
        "port": info.peer_port,
        "tls": None if info.tls is None else info.tls.version,
        "name": None if info.tls is None else info.tls.server_name,
        "since": int(connection.since),
        "mailbox": connection.mailbox_name,
        "received": connection.received,
        "sent": connection.sent,
    }
