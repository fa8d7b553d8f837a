"""The log of one connection, and what the event counters and the client log learn from it."""

from __future__ import annotations

from typing import Final

from twisted.python.failure import Failure

from mailserver.ledger.entry import with_credential, with_delegate
from mailserver.net.connection.client_log import LoginRecord, program_of
from mailserver.net.connection.listener_context import ListenerContext
from mailserver.net.log.events import connection_fields, log_bug, log_fields
from mailserver.net.log.refusal_log import is_refusal
from mailserver.session.channel import ConnectionInfo

_OF_CLIENT_LOG: Final = frozenset({"login", "client"})
"""Events that the client log records."""


class ConnectionLog:
    """Writes the events of one connection."""

    def __init__(self, context: ListenerContext) -> None:
        self._context = context
        self._login: LoginRecord | None = None
        self._program = ""
        """The client's program, by its ID."""
        self.user: str | None = None
        """The user who has logged in."""
        self.credential = ""
        """The app password that let the user in; empty: the main password or a certificate."""
        self.delegate = ""
        """The account that has logged in as this user; empty: the user itself."""
        self.has_logout = False
        """Has the logout been logged?"""

    def log_in(self, user: str, credential: str, delegate: str = "") -> None:
        """Name the user in each line from now on, and the delegate that has logged in as it."""
        self.user, self.credential, self.delegate = user, credential, delegate
        self.has_logout = False

    def event(self, info: ConnectionInfo, event: str, fields: dict[str, object], now: float) -> None:
        """Count an event and write its line, unless its network has had enough lines of refusals."""
        context = self._context
        self.has_logout = self.has_logout or event == "logout"
        if event in _OF_CLIENT_LOG:
            self._record(info, event, fields)
        context.event_counters.count(event, info)
        if info.peer is not None and self.user is None and is_refusal(event, fields):
            unsaid = context.counts.count_refused_request(info.peer, event, now)
            if unsaid is None:
                return
            if unsaid:
                fields["unsaid"] = unsaid
        log_fields(event, self._fields(info, fields))

    def bug(self, info: ConnectionInfo, doing: str, failure: Failure | None = None) -> None:
        """Write an unexpected exception with its traceback: `failure`, or the one being handled."""
        self._context.event_counters.count("bug", info)
        log_bug("bug", self._fields(info, {"doing": doing}), failure)

    def _fields(self, info: ConnectionInfo, fields: dict[str, object]) -> dict[str, object]:
        return connection_fields(info, self.user, {"delegate": self.delegate, **fields} if self.delegate else fields)

    def _record(self, info: ConnectionInfo, event: str, fields: dict[str, object]) -> None:
        client_log = self._context.client_log
        if client_log is None:
            return
        if event == "client":
            self._program = program_of(str(fields.get("id", "")))
            client_log.identified(self._login, self._program)
        else:
            user, method = str(fields.get("user")), str(fields.get("method"))
            mechanism = with_credential(with_delegate(method, self.delegate), self.credential)
            self._login = client_log.login(info, user, mechanism, self._program)
