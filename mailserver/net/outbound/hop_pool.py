"""Connections of the queue to hops: how many there are, and those that rest between two messages.

A hop is what a `PoolKey` says: an address with TLS demands, or a route with its login. Domains whose hosts share an address
share its connections and their limit.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from mailserver.net.outbound.place import Place, PoolKey
from mailserver.queue.outcome import Outcome
from mailserver.smtp.onward_transaction import OnwardSession

MOST_MESSAGES: Final = 100
"""Messages that one connection carries."""
MOST_AT_A_HOP: Final = 4
"""Connections to one hop that are made or carry messages at the same time."""
MOST_CONNECTIONS: Final = 20
"""Connections to all hops, as far as those that rest can give way to the others."""


class PooledSession:
    """A session that is taken from the pool. Its user gives it back, or drops it."""

    def __init__(self, place: Place, session: OnwardSession, *, has_rested: bool) -> None:
        self.place = place
        self.session = session
        self.has_rested = has_rested
        """It has carried a message before, so that the hop may have closed it meanwhile."""


class HopPool:
    """Sessions by hop. They rest for as long as `HopConnection.become_idle` keeps a connection."""

    def __init__(
        self,
        open_session: Callable[[Place], Awaitable[OnwardSession | Outcome]],
        *,
        most_at_a_hop: int = MOST_AT_A_HOP,
        most_connections: int = MOST_CONNECTIONS,
        most_messages: int = MOST_MESSAGES,
    ) -> None:
        self.opened = 0
        """Sessions that were opened."""
        self.reused = 0
        """Messages for which a resting session was taken."""
        self.on_room: Callable[[PoolKey], None] = lambda _key: None
        """Called when a hop has room for one connection more than before."""
        self._open_session = open_session
        self._most_at_a_hop = most_at_a_hop
        self._most_connections = most_connections
        self._most_messages = most_messages
        self._in_use: Counter[PoolKey] = Counter()
        self._resting: OrderedDict[OnwardSession, PoolKey] = OrderedDict()
        """The one that has rested longest comes first."""

    def has_room(self, key: PoolKey) -> bool:
        """May another connection to the hop be used?"""
        return self._in_use[key] < self._most_at_a_hop

    @property
    def in_use(self) -> int:
        """Connections that are made or carry messages."""
        return self._in_use.total()

    @property
    def resting(self) -> int:
        """Connections that wait for a message."""
        self._forget_closed()
        return len(self._resting)

    async def take(self, place: Place) -> PooledSession | Outcome:
        """Return a session that has rested, or else a new one; or why there is none. Only while `has_room`."""
        key = place.key
        assert self.has_room(key)
        self._in_use[key] += 1
        found = self._take_resting(key)
        if found is not None:
            self.reused += 1
            return PooledSession(place, found, has_rested=True)
        self._give_way()
        try:
            session = await self._open_session(place)
        except BaseException:
            self._leave(key)
            raise
        if isinstance(session, Outcome):
            self._leave(key)
            return session
        self.opened += 1
        return PooledSession(place, session, has_rested=False)

    def give_back(self, pooled: PooledSession) -> None:
        """End the use of a session; it rests if it can carry another message."""
        session = pooled.session
        if session.is_usable and session.messages < self._most_messages:
            self._resting[session] = pooled.place.key
            session.become_idle()
        else:
            session.close()
        self._leave(pooled.place.key)
        self._give_way()

    def drop(self, pooled: PooledSession) -> None:
        """End the use of a session that stands within a message, or whose hop is not to be trusted with another."""
        pooled.session.abort()
        self._leave(pooled.place.key)

    def close_resting(self) -> None:
        """Say QUIT to the hops of all resting connections."""
        while self._resting:
            self._resting.popitem()[0].close()

    def _take_resting(self, key: PoolKey) -> OnwardSession | None:
        self._forget_closed()
        # The one that has rested least: the others may end.
        for session in reversed(self._resting):
            if self._resting[session] == key:
                del self._resting[session]
                return session
        return None

    def _give_way(self) -> None:
        self._forget_closed()
        while self._resting and self.in_use + len(self._resting) > self._most_connections:
            self._resting.popitem(last=False)[0].close()

    def _forget_closed(self) -> None:
        for session in [each for each in self._resting if not each.is_usable]:
            del self._resting[session]
            # The hop has closed, or has sent what nobody asked for.
            session.close()

    def _leave(self, key: PoolKey) -> None:
        self._in_use[key] -= 1
        if not self._in_use[key]:
            del self._in_use[key]
        self.on_room(key)
