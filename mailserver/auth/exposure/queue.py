"""A bounded queue of passwords that came in clear text. Networks take turns, and clients of a network take turns.

If a bound is reached, the largest group gives up an item: in the whole queue the network with the most items; within a
network, or for one user, the client with the most items. Between groups of equal size it is the one that has sent more
recently; if that is the sender of the new item, the new item is rejected. The group that has sent the least is also
served first. So junk delays the client that sends it, and at worst its network; a flood from more networks than there are
places does not delay a client that sends a password or two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from mailserver.auth.throttling.attacks import Pair

MAX_SENDERS: Final = 4096
"""Networks and clients that are counted; beyond that, all counts are reset."""


class Queued(Protocol):
    """An item of an `ExposureQueue`."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The network with each name that the account may have."""

    @property
    def client(self) -> str:
        """The client's address, or its /64 for IPv6."""


Item = TypeVar("Item", bound=Queued)


class ExposureQueue(Generic[Item]):
    """The queue. It has a few hundred items at most, as every operation scans them all."""

    def __init__(self, limit: int, per_network: int, per_pair: int) -> None:
        """Bounds: of all items, of one network, and of one user from one network."""
        self._limit = limit
        self._per_network = per_network
        self._per_pair = per_pair
        self._items: list[Item] = []
        self._served: Counter[str] = Counter()
        """Network or client -> number of its last turn."""
        self._turn = 0
        self._sent: Counter[str] = Counter()
        """Network or client -> number of items that it has sent."""

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> bool:
        """Add an item. Return False if it is rejected."""
        network = _network(item)
        if len(self._sent) >= MAX_SENDERS:
            self._sent.clear()
        self._sent.update((network, item.client))
        fits = (
            self._has_room(item, self._per_pair, lambda each: each.pairs[-1] == item.pairs[-1], _client)
            and self._has_room(item, self._per_network, lambda each: _network(each) == network, _client)
            and self._has_room(item, self._limit, lambda _each: True, _network)
        )
        if fits:
            self._items.append(item)
        return fits

    def take(self) -> Item | None:
        """Remove and return the next item; None if the queue is empty."""
        if not self._items:
            return None
        item = min(self._items, key=self._rank)
        self._items.remove(item)
        self._turn += 1
        self._served[_network(item)] = self._served[item.client] = self._turn
        if len(self._served) > 4 * self._limit:
            waiting = {name for each in self._items for name in (_network(each), each.client)}
            self._served = Counter({name: turn for name, turn in self._served.items() if name in waiting})
        return item

    def _rank(self, item: Item) -> tuple[int, int, int, int]:
        """Sort key: the item with the lowest rank is next."""
        network, client = _network(item), item.client
        return self._served[network], self._sent[network], self._served[client], self._sent[client]

    def discard(self, matches: Callable[[Item], bool]) -> None:
        """Remove the items that match."""
        self._items = [each for each in self._items if not matches(each)]

    def _has_room(self, item: Item, most: int, counts: Callable[[Item], bool], group: Callable[[Item], str]) -> bool:
        """Is there room among the items that count? If not, evict the newest item of the largest group, if that is larger."""
        counted = [each for each in self._items if counts(each)]
        if len(counted) < most:
            return True
        numbers = Counter(map(group, counted))
        largest = max(numbers, key=lambda name: (numbers[name], self._sent[name]))
        more = numbers[largest] - numbers[group(item)]
        if more < 1 or (more == 1 and self._sent[largest] <= self._sent[group(item)]):
            return False
        self._items.remove(next(each for each in reversed(counted) if group(each) == largest))
        return True


def _network(item: Queued) -> str:
    return item.pairs[-1][1]


def _client(item: Queued) -> str:
    return item.client
