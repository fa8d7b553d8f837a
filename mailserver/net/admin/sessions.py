"""The connections of this process, for the administrator: list them, and end some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from mailserver.auth.changed_users import ChangedUsers
from mailserver.auth.ended_sessions import EndedSessions, OpenSession
from mailserver.net.connection.connection import Connection
from mailserver.net.ipc.message_schema import Json, unstructure
from mailserver.net.ipc.worker_messages import SessionRow
from mailserver.net.listeners.binding import Port
from mailserver.net.log.events import log

CUT_AFTER = 1.5
"""Seconds until a session that was asked to end and still goes on is cut; see `connection.COMMAND_TIME`."""
FAREWELLS = {
    "imap": b"* BYE %b\r\n",
    "pop3": b"-ERR [SYS/TEMP] %b\r\n",
    "submission": b"421 4.3.2 %b\r\n",
    "lmtp": b"421 4.3.2 %b\r\n",
}
"""RFC 3501 7.1.5; RFC 3206 4; RFC 5321 3.8. A POP3 client takes it for the answer to its next command; HTTP has none."""


class Sessions:
    """The connections of this process's ports."""

    def __init__(self, ports: Callable[[], Iterable[Port]], clock: IReactorTime) -> None:
        self._ports = ports
        self._clock = clock

    def who(self, asked: Json) -> Deferred[Json]:
        """Return a SessionRow for each connection, the oldest first; `asked`: {"user": str or null, "protocol": str or null}."""
        wanted = cast("dict[str, str | None]", asked)
        user, protocol = wanted.get("user"), wanted.get("protocol")
        found = [
            connection
            for _port, connection in self._all()
            if (user is None or user in {connection.user, connection.delegate})
            and (protocol is None or protocol in {connection.info.protocol, _port.listener.family})
        ]
        found.sort(key=lambda connection: connection.since)
        return succeed(unstructure([_row(connection) for connection in found]))

    def kick(self, asked: Json) -> Deferred[Json]:
        """End sessions and return their rows, as `who` does; `asked`: {"target": user or session id, "reason": ASCII}.

        A command that runs may finish within COMMAND_TIME, then it is cancelled; a session that goes on after CUT_AFTER is cut.
        """
        wanted = cast("dict[str, str]", asked)
        target = wanted["target"]
        return succeed(
            unstructure(
                self._end(
                    lambda connection, _protocol: (
                        target in {connection.user, connection.delegate, connection.info.session_id}
                    ),
                    wanted["reason"],
                )
            )
        )

    def end_of_users(self, users: ChangedUsers | None, reason: str) -> None:
        """End the sessions of these users, with None those of all, as `kick` does."""
        ended = EndedSessions(users)

        def is_meant(connection: Connection, protocol: str) -> bool:
            user = connection.user
            if not user:
                return False
            session = OpenSession(user, protocol, connection.info.peer, connection.credential, connection.delegate)
            return ended.includes(session)

        self._end(is_meant, reason)

    def _end(self, is_meant: Callable[[Connection, str], bool], reason: str) -> list[SessionRow]:
        """End the sessions that are meant, and return their rows."""
        kicked: list[Connection] = []
        rows = []
        try:
            for port, connection in self._all():
                if is_meant(connection, port.listener.family):
                    # First: one that cannot be asked to end is cut.
                    kicked.append(connection)
                    rows.append(_row(connection))
                    self._ask_to_end(connection, FAREWELLS.get(port.listener.family, b""), reason)
        finally:
            if kicked:
                self._clock.callLater(CUT_AFTER, _cut, kicked)
        return rows

    @staticmethod
    def _ask_to_end(connection: Connection, farewell: bytes, reason: str) -> None:
        """Say the farewell. A fault of one session keeps no other from ending."""
        try:
            connection.log("kicked", reason=reason)
            connection.stop(farewell % reason.encode("ascii") if farewell else b"")
        except Exception:
            log.failure("a session could not be asked to end", event="bug")

    def _all(self) -> Iterator[tuple[Port, Connection]]:
        for port in self._ports():
            # A connection may end during the call that ends it.
            for connection in tuple(port.connections):
                yield port, connection


def _cut(connections: list[Connection]) -> None:
    for connection in connections:
        try:
            connection.cut()
        except Exception:
            log.failure("a session could not be cut", event="bug")


def _row(connection: Connection) -> SessionRow:
    info = connection.info
    return SessionRow(
        session=info.session_id,
        user=connection.user,
        delegate=connection.delegate or None,
        protocol=info.protocol,
        peer=None if info.peer is None else str(info.peer),
        port=info.peer_port,
        tls=None if info.tls is None else info.tls.version,
        name=None if info.tls is None else info.tls.server_name,
        since=int(connection.since),
        mailbox=connection.mailbox_name,
        received=connection.received,
        sent=connection.sent,
    )
