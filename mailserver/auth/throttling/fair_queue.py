"""Fair queues: a share (a client, say) is served in order of arrival, and shares take turns.

A share with many items delays only itself. A `ClassQueue` has one fair queue for each class and serves higher classes
first. A waiting lower class gets one turn in `LOWER_CLASS_TURN`, so that a busy higher class cannot starve it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

LOWER_CLASS_TURN: Final = 8
"""Where both classes wait, one turn in this many is the lower class's."""


class SharedItem(Protocol):
    """An item of a `FairQueue`."""

    @property
    def share(self) -> str:
        """The client or user that the item belongs to."""


Item = TypeVar("Item", bound=SharedItem)


class FairQueue(Generic[Item]):
    """A queue in which shares take turns."""

    def __init__(self) -> None:
        self._shares: OrderedDict[str, deque[Item]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        """Iterate over the items, share by share. The queue must not change meanwhile."""
        return (item for items in self._shares.values() for item in items)

    def add(self, item: Item) -> None:
        """Append to the item's share."""
        self._shares.setdefault(item.share, deque()).append(item)
        self._length += 1

    def add_first(self, item: Item) -> None:
        """Insert before all other items."""
        self._shares.setdefault(item.share, deque()).appendleft(item)
        self._shares.move_to_end(item.share, last=False)
        self._length += 1

    def first(self) -> Item | None:
        """The next item; None if the queue is empty."""
        return next(iter(self._shares.values()))[0] if self._shares else None

    def pop_first(self) -> None:
        """Remove `first`; its share goes behind the others."""
        share, items = next(iter(self._shares.items()))
        items.popleft()
        self._length -= 1
        if items:
            self._shares.move_to_end(share)
        else:
            del self._shares[share]

    def evict_for(self, share: str) -> Item | None:
        """Make room for a new item of `share`: remove and return the last item of the largest share.

        None if no share is larger than `share` would become: then the caller must reject the new item.
        """
        largest = max(self._shares.values(), key=len, default=None)
        if largest is None or len(largest) <= len(self._shares.get(share, ())) + 1:
            return None
        item = largest[-1]
        self.discard(item)
        return item

    def discard(self, item: Item) -> None:
        """Remove the item, if it is there."""
        items = self._shares.get(item.share)
        if items is None or item not in items:
            return
        items.remove(item)
        self._length -= 1
        if not items:
            del self._shares[item.share]

    def clear(self) -> list[Item]:
        """Remove and return all items."""
        left = list(self)
        self._shares.clear()
        self._length = 0
        return left


class NewestFirstQueue(FairQueue[Item]):
    """A fair queue that serves the newest share first, and evicts the one that has waited longest.

    For clients that come for the first time: the next one does not wait behind a burst of them, however large.
    """

    def add(self, item: Item) -> None:
        """Append to the item's share; a new share goes before all others."""
        is_new = item.share not in self._shares
        super().add(item)
        if is_new:
            self._shares.move_to_end(item.share, last=False)

    def evict_for(self, share: str) -> Item | None:
        """Make room as `FairQueue` does, or else evict from the share that has waited longest."""
        item = super().evict_for(share)
        if item is None and share not in self._shares and self._shares:
            item = next(reversed(self._shares.values()))[-1]
            self.discard(item)
        return item


class ClassifiedItem(SharedItem, Protocol):
    """An item of a `ClassQueue`."""

    @property
    def rank(self) -> int:
        """Its class: 0 goes first."""


Classed = TypeVar("Classed", bound=ClassifiedItem)


class ClassQueue(Generic[Classed]):
    """A fair queue for each class."""

    def __init__(self, queues: Sequence[FairQueue[Classed]]) -> None:
        """`queues`: one for each class, by rank."""
        self._queues = queues
        self._overtaken = [0] * len(queues)
        """By rank: successive turns of higher classes while this class waited."""

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def length(self, rank: int) -> int:
        """Number of items in a class."""
        return len(self._queues[rank])

    def add(self, item: Classed) -> None:
        """Append to the item's share in its class."""
        self._queues[item.rank].add(item)

    def add_first(self, item: Classed) -> None:
        """Insert before all other items of its class."""
        self._queues[item.rank].add_first(item)

    def first(self) -> Classed | None:
        """The next item; None if all classes are empty."""
        rank = self._next_rank()
        return None if rank is None else self._queues[rank].first()

    def pop_first(self) -> None:
        """Remove `first`."""
        rank_served = self._next_rank()
        assert rank_served is not None
        self._queues[rank_served].pop_first()
        self._overtaken[rank_served] = 0
        for rank in range(rank_served + 1, len(self._queues)):
            # An empty higher class resets the count: its next item finds no lower class ahead.
            self._overtaken[rank] = self._overtaken[rank] + 1 if self._queues[rank_served] and self._queues[rank] else 0

    def evict_for(self, item: Classed) -> Classed | None:
        """Make room for the item in its class (see `FairQueue.evict_for`)."""
        return self._queues[item.rank].evict_for(item.share)

    def discard(self, item: Classed) -> None:
        """Remove the item, if it is there."""
        self._queues[item.rank].discard(item)

    def clear(self) -> list[Classed]:
        """Remove and return all items."""
        return [item for queue in self._queues for item in queue.clear()]

    def _next_rank(self) -> int | None:
        waiting = [rank for rank, queue in enumerate(self._queues) if queue]
        if not waiting:
            return None
        return next((rank for rank in reversed(waiting) if self._overtaken[rank] >= LOWER_CLASS_TURN - 1), waiting[0])
