"""A bounded queue of passwords that came in clear text: networks take turns, in each network its clients.

Whoever fills a bound gives way: the network with the most waiting, or within a network or for one user the client with the
most; of as many of each the one that has sent the most lately, and of those the new one is not taken. Who has sent the least goes first,
too. So junk holds up the client that sends it, and at worst its own network, and a flood from more networks than there are places
holds up nobody who sends a password or two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from mailserver.auth.throttling.attacks import Pair

MAX_SENDERS: Final = 4096
"""Networks and clients whose number is remembered; beyond, all begin anew."""


class Queued(Protocol):
    """An item of the queue."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The network with each name that the account may have."""

    @property
    def client(self) -> str:
        """The address, or the /64 of IPv6."""


Item = TypeVar("Item", bound=Queued)


class ExposureQueue(Generic[Item]):
    """A few hundred at most: every step looks at all of them."""

    def __init__(self, limit: int, per_network: int, per_pair: int) -> None:
        """How many may wait in all, of one network, and of one user from one network."""
        self._limit = limit
        self._per_network = per_network
        self._per_pair = per_pair
        self._items: list[Item] = []
        self._served: Counter[str] = Counter()
        """Networks and clients -> the number of the turn that they had last."""
        self._turn = 0
        self._sent: Counter[str] = Counter()
        """Networks and clients -> how many they have sent."""

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> bool:
        """False where it cannot be taken."""
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
        """The next one, out of the queue."""
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
        """The lowest is next."""
        network, client = _network(item), item.client
        return self._served[network], self._sent[network], self._served[client], self._sent[client]

    def discard(self, matches: Callable[[Item], bool]) -> None:
        """Take out those that match."""
        self._items = [each for each in self._items if not matches(each)]

    def _has_room(self, item: Item, most: int, counts: Callable[[Item], bool], group: Callable[[Item], str]) -> bool:
        """Is there room for it among those that count, or does the newest of the largest group make some?"""
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
