"""Users whose password is guessed from many networks: strangers to the user wait, networks it has logged in from do not.

The delay of a pair is nothing to who has a thousand networks. So failures are counted for each user over all networks
from which it has not logged in yet; where they are many, a stranger waits the longest delay before the first check
already. It is not refused, so the user gets in from a new network too, and nobody else can lock it out.

What is known is so while the process lives: after a start every network is a stranger once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from attrs import define

ATTACK: Final = 30
"""Wrong passwords of strangers that make an attack."""
OVER_AFTER: Final = 600.0
"""Seconds after the last of them until it is over."""
MAX_USERS: Final = 10_000
"""Names for which failures are counted."""
MAX_KNOWN: Final = 20_000
"""Pairs of user and network remembered; who has not logged in for longest makes room."""

Pair = tuple[str, str]
"""Normalised name, network."""


@define
class _Count:
    failures: int
    last: float


class Strangers:
    """Who has logged in from where, and whose password strangers guess."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: OrderedDict[Pair, None] = OrderedDict()
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    @property
    def known(self) -> list[Pair]:
        """Where users have logged in from, the longest ago first."""
        return list(self._known)

    def is_known(self, pair: Pair) -> bool:
        """Has the user logged in from there?"""
        return pair in self._known

    def welcome(self, pair: Pair) -> bool:
        """The user has logged in from there. Was that new?"""
        is_new = pair not in self._known
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return is_new

    def failed(self, pair: Pair, failures: int = 1) -> None:
        """So many wrong passwords came from there."""
        if pair in self._known:
            return
        now = self._clock()
        count = self._counts.get(pair[0])
        if count is None or now - count.last > OVER_AFTER:
            count = self._counts[pair[0]] = _Count(0, now)
        count.failures += failures
        count.last = now
        self._counts.move_to_end(pair[0])
        if len(self._counts) > MAX_USERS:
            self._counts.popitem(last=False)

    def must_wait(self, pair: Pair) -> bool:
        """Is the user under attack, and the network a stranger to it?"""
        count = self._counts.get(pair[0])
        under_attack = count is not None and count.failures >= ATTACK and self._clock() - count.last <= OVER_AFTER
        return under_attack and pair not in self._known
