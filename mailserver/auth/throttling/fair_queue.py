"""Queues: in order within a share, and shares take turns, so that who has much waiting holds up itself alone.

A `ClassQueue` has a queue for each class, and a higher class goes first. So that no class stands still behind one that is
never empty, it gets one turn in `EVERY` while it waits; an item that is alone in its class waits for none of a lower one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

EVERY: Final = 8
"""Of so many turns in a row one is a lower class's, where both wait."""


class InShare(Protocol):
    """What may wait here."""

    @property
    def share(self) -> str:
        """Who asks."""


Item = TypeVar("Item", bound=InShare)


class FairQueue(Generic[Item]):
    """A queue of shares."""

    def __init__(self) -> None:
        self._shares: OrderedDict[str, deque[Item]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        """What waits, share by share. The queue must not change meanwhile."""
        return (item for items in self._shares.values() for item in items)

    def add(self, item: Item) -> None:
        """To the end of its share."""
        self._shares.setdefault(item.share, deque()).append(item)
        self._length += 1

    def add_first(self, item: Item) -> None:
        """Before everything else."""
        self._shares.setdefault(item.share, deque()).appendleft(item)
        self._shares.move_to_end(item.share, last=False)
        self._length += 1

    def first(self) -> Item | None:
        """Whose turn it is."""
        return next(iter(self._shares.values()))[0] if self._shares else None

    def take_first(self) -> None:
        """Take `first` out; its share goes behind the others."""
        share, items = next(iter(self._shares.items()))
        items.popleft()
        self._length -= 1
        if items:
            self._shares.move_to_end(share)
        else:
            del self._shares[share]

    def give_way(self, share: str) -> Item | None:
        """Make room for one of this share: take out what came last of the share with the most.

        None where none has more waiting than this one would have: then it is the new one that must go.
        """
        largest = max(self._shares.values(), key=len, default=None)
        if largest is None or len(largest) <= len(self._shares.get(share, ())) + 1:
            return None
        item = largest[-1]
        self.discard(item)
        return item

    def discard(self, item: Item) -> None:
        """Take it out, if it still waits."""
        items = self._shares.get(item.share)
        if items is None or item not in items:
            return
        items.remove(item)
        self._length -= 1
        if not items:
            del self._shares[item.share]

    def clear(self) -> list[Item]:
        """Take everything out."""
        left = list(self)
        self._shares.clear()
        self._length = 0
        return left


class NewestFirst(FairQueue[Item]):
    """A fair queue in which a share that comes anew goes ahead, and the one that has waited longest gives way.

    For those who come for the first time: a burst of them, however large, is then no line that the next one stands behind.
    """

    def add(self, item: Item) -> None:
        """To the end of its share; a new share goes before all others."""
        is_new = item.share not in self._shares
        super().add(item)
        if is_new:
            self._shares.move_to_end(item.share, last=False)

    def give_way(self, share: str) -> Item | None:
        """Make room as `FairQueue` does, or else by the share that has waited longest."""
        item = super().give_way(share)
        if item is None and share not in self._shares and self._shares:
            item = next(reversed(self._shares.values()))[-1]
            self.discard(item)
        return item


class InClass(InShare, Protocol):
    """An item of a `ClassQueue`."""

    @property
    def rank(self) -> int:
        """Its class: 0 goes first."""


Classed = TypeVar("Classed", bound=InClass)


class ClassQueue(Generic[Classed]):
    """A fair queue for each class."""

    def __init__(self, queues: Sequence[FairQueue[Classed]]) -> None:
        """`queues`: one for each class, by rank."""
        self._queues = queues
        self._passed = [0] * len(queues)
        """Turns in a row that higher classes had while this one waited."""

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def length(self, rank: int) -> int:
        """How many of a class wait."""
        return len(self._queues[rank])

    def add(self, item: Classed) -> None:
        """To the end of its share, in its class."""
        self._queues[item.rank].add(item)

    def add_first(self, item: Classed) -> None:
        """Before all others of its class."""
        self._queues[item.rank].add_first(item)

    def first(self) -> Classed | None:
        """Whose turn it is."""
        rank = self._next_rank()
        return None if rank is None else self._queues[rank].first()

    def take_first(self) -> None:
        """Take `first` out."""
        taken = self._next_rank()
        assert taken is not None
        self._queues[taken].take_first()
        self._passed[taken] = 0
        for rank in range(taken + 1, len(self._queues)):
            # Counted anew where the higher class is empty: who comes to it later finds none ahead.
            self._passed[rank] = self._passed[rank] + 1 if self._queues[taken] and self._queues[rank] else 0

    def give_way(self, item: Classed) -> Classed | None:
        """Make room for the item in its class, as `FairQueue.give_way` says."""
        return self._queues[item.rank].give_way(item.share)

    def discard(self, item: Classed) -> None:
        """Take it out, if it still waits."""
        self._queues[item.rank].discard(item)

    def clear(self) -> list[Classed]:
        """Take everything out."""
        return [item for queue in self._queues for item in queue.clear()]

    def _next_rank(self) -> int | None:
        waiting = [rank for rank, queue in enumerate(self._queues) if queue]
        if not waiting:
            return None
        return next((rank for rank in reversed(waiting) if self._passed[rank] >= EVERY - 1), waiting[0])
