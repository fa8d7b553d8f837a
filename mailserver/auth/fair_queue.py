"""What waits: in order within a share, and shares take turns, so that who has much waiting holds up itself alone."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


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

    def has_larger_than(self, share: str) -> bool:
        """Does some share have more waiting than this one will have with one more?"""
        own = len(self._shares.get(share, ())) + 1
        return any(len(items) > own for items in self._shares.values())

    def take_newest_of_largest(self) -> Item:
        """Make room: take out what came last of the share with the most."""
        item = max(self._shares.values(), key=len)[-1]
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
