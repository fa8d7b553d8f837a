"""A destination whose mail is being sent: the messages that were taken for it, and how many connections it may use."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from twisted.internet.defer import DeferredLock

from mailserver.queue.interfaces import Try

TAKEN_AT_ONCE: Final = 20
"""Messages of a destination that are taken from the queue in one call."""
MOST_CUTS: Final = 3
"""Transactions in a row that a hop breaks off or does not answer before its destination has to wait."""


class ActiveDestination:
    """One connection until the hop greets, then one more with each message that it answers, as far as the limit goes."""

    def __init__(
        self,
        name: str,
        limit: int,
        take: Callable[[str, int, Collection[int]], Awaitable[Sequence[Try]]],
    ) -> None:
        """`take` gets the name, the number of messages, and the ids of recipients to leave out."""
        self.name = name
        self.workers = 0
        self.has_ended = False
        """No further message is begun now."""
        self.pause = 0.0
        """Seconds to wait before it is looked at again."""
        self.messages = 0
        """Messages whose results were recorded."""
        self.progress = 0.0
        """When results were recorded last, or it began."""
        self.ids: set[int] = set()
        """Recipients that are being tried, or were taken to be tried."""
        self._limit = limit
        self._take = take
        self._allowed = 1
        self._cuts = 0
        self._taken: deque[Try] = deque()
        self._lock = DeferredLock()
        self._is_empty = False

    @property
    def needs_worker(self) -> bool:
        """Are there messages and connections for another worker?"""
        return bool(self._taken) and self.can_have_worker

    @property
    def can_have_worker(self) -> bool:
        """May it have another worker?"""
        return not self.has_ended and self.workers < self._allowed

    async def next(self) -> Try | None:
        """Return the next message; None: there is none, or none shall be begun."""
        await self._lock.acquire()
        try:
            if not self._taken and not self._is_empty and not self.has_ended:
                found = await self._take(self.name, TAKEN_AT_ONCE, frozenset(self.ids))
                self._is_empty = len(found) < TAKEN_AT_ONCE
                self._keep(found)
        finally:
            self._lock.release()
        return self._taken.popleft() if self._taken and not self.has_ended else None

    def forget(self, ids: Collection[int]) -> None:
        """The results of these recipients are recorded."""
        self.ids.difference_update(ids)

    def has_more(self) -> None:
        """The queue has changed: ask it again."""
        self._is_empty = False

    def hop_greeted(self) -> None:
        """Allow a second connection: the first message may be one that the hop cannot bear."""
        self._allowed = max(self._allowed, min(2, self._limit))

    def hop_replied(self) -> None:
        """Allow one more connection."""
        self._cuts = 0
        self._allowed = min(self._allowed + 1, self._limit)

    def hop_was_silent(self) -> bool:
        """Allow one connection only. Tell whether the hop has broken off so many in a row that all shall wait."""
        self._cuts += 1
        self._allowed = 1
        return self._cuts >= MOST_CUTS

    def use_fewer(self) -> None:
        """The hop has no room for as many connections as there are."""
        self._allowed = max(1, self.workers - 1)

    def _keep(self, found: Sequence[Try]) -> None:
        for each in found:
            self._taken.append(each)
            self.ids.update(recipient.id for recipient in each.recipients)
