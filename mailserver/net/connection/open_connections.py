"""The open connections of a listener, and how all connections of a process are ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailserver.net.log.events import log

if TYPE_CHECKING:
    from mailserver.net.connection.connection import Connection

GRACE: Final = 1.5
"""Seconds until connections that do not end are cut; their commands are cancelled before (`connection.COMMAND_TIME`)."""
LAST_GRACE: Final = 0.2
"""Seconds after the cut until sessions that do not end are abandoned, such as one that waits for a back end."""


class OpenConnections:
    """The connections of one listener. `on_empty` is called when the last one has ended."""

    def __init__(self) -> None:
        self.on_empty: Callable[[], None] = lambda: None
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        """Iterate over a copy: a connection may end meanwhile."""
        return iter(tuple(self._open))

    def add(self, connection: Connection) -> None:
        """Add a connection that was accepted."""
        self._open.add(connection)

    def discard(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self._open.discard(connection)
        if not self._open:
            self.on_empty()

    def stop(self) -> None:
        """Send each client the closing line of its protocol, and end the sessions."""
        for connection in self:
            connection.stop()

    def cut(self) -> None:
        """Abort all connections."""
        for connection in self:
            connection.cut()


class Shutdown:
    """Ends all connections of a process.

    Each client gets the closing line of its protocol, and the command that runs has a second to end. What is open after
    GRACE seconds is cut. A session that does not end even then is abandoned LAST_GRACE seconds later.
    """

    def __init__(self, reactor: IReactorTime, groups: Callable[[], Iterable[OpenConnections]]) -> None:
        """`groups()`: the connections of each listener."""
        self._reactor = reactor
        self._groups = groups
        self._empty: Deferred[None] | None = None
        self._timers: list[IDelayedCall] = []

    @property
    def sessions(self) -> int:
        """The number of open connections."""
        return sum(map(len, self._groups()))

    def when_empty(self) -> Deferred[None]:
        """Wait for the last connection to end; at once without any. No new ones may be taken by then."""
        if self._empty is None:
            self._empty = Deferred()
            for group in self._groups():
                group.on_empty = self._check_empty
            self._check_empty()
        return self._empty

    def begin(self) -> Deferred[None]:
        """End all connections; fires when the last one has ended, or is abandoned."""
        for group in self._groups():
            group.stop()
        ended = self.when_empty()
        if not ended.called:
            self._timers = [
                self._reactor.callLater(GRACE, self._cut),
                self._reactor.callLater(GRACE + LAST_GRACE, self._give_up),
            ]
        return ended

    def _check_empty(self) -> None:
        if not self.sessions:
            self._end()

    def _cut(self) -> None:
        for group in self._groups():
            group.cut()

    def _give_up(self) -> None:
        log.warn("stopping without {sessions} sessions that do not end", event="sessions-left", sessions=self.sessions)
        self._end()

    def _end(self) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        if self._empty is not None and not self._empty.called:
            self._empty.callback(None)
