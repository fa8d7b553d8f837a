"""Attacks: users whose password is guessed from many networks, and networks that guess.

The delay of a pair is nothing to an attacker with a thousand networks. So failures are counted for each user over all networks
from which it has not logged in yet. Where they are many, the attempts of all such networks share a rate (`attempts`). None is
refused for it, so that the user gets in from a new network too, and nobody else can lock it out.

A network is remembered whose attempt has failed lately, whoever's password it was: where checks wait, those of other networks
go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from attrs import define

ATTACK: Final = 30
"""Wrong passwords from unknown networks that make an attack."""
OVER_AFTER: Final = 600.0
"""Seconds after the last of them until it is over, and until a network is no longer one that guesses."""
MAX_USERS: Final = 10_000
"""Names for which failures are counted."""
MAX_NETWORKS: Final = 20_000
"""Networks remembered that guess."""

Pair = tuple[str, str]
"""Normalised name, network."""


@define
class _Count:
    failures: int
    last: float


class Attacks:
    """Counts of wrong passwords from networks that are not known for the user."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._networks: OrderedDict[str, float] = OrderedDict()

    def failed(self, pair: Pair, failures: int = 1) -> None:
        """Count so many wrong passwords from an unknown network."""
        name, network = pair
        now = self._clock()
        count = self._counts.get(name)
        if count is None or now - count.last > OVER_AFTER:
            count = self._counts[name] = _Count(0, now)
        count.failures += failures
        count.last = now
        self._counts.move_to_end(name)
        if len(self._counts) > MAX_USERS:
            self._counts.popitem(last=False)
        self.note(network)

    def note(self, network: str) -> None:
        """An attempt from that network, for a user that it is not known for, was wrong, or was refused as too many wait."""
        self._networks[network] = self._clock()
        self._networks.move_to_end(network)
        if len(self._networks) > MAX_NETWORKS:
            self._networks.popitem(last=False)

    def is_under_attack(self, name: str) -> bool:
        """Are many wrong passwords tried for that name?"""
        count = self._counts.get(name)
        return count is not None and count.failures >= ATTACK and self._clock() - count.last <= OVER_AFTER

    def has_guessed(self, network: str) -> bool:
        """Has an attempt from that network failed lately, as `note` says?"""
        last = self._networks.get(network)
        return last is not None and self._clock() - last <= OVER_AFTER
