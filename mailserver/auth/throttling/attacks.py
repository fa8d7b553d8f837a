"""Attacks: users whose password is guessed from many networks, and networks that guess.

An attacker with a thousand networks does not feel the delay of a pair. So failures are counted for each user, over all
networks from which it has not logged in before. If they are many, the attempts of all these networks share a rate
(`login_throttle`). None is refused: the user gets in from a new network, too, and nobody can lock it out.

Networks with recent failures are remembered, for whatever user: checks for other networks go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from attrs import define

ATTACK_FAILURES: Final = 30
"""Wrong passwords from unknown networks that make an attack."""
OVER_AFTER: Final = 600.0
"""Seconds after the last failure until the attack is over, and until a network is no longer a guessing one."""
MAX_USERS: Final = 10_000
"""Names for which failures are counted."""
MAX_NETWORKS: Final = 20_000
"""Guessing networks remembered."""

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
        """Count wrong passwords from an unknown network."""
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
        self.note_failure(network)

    def note_failure(self, network: str) -> None:
        """Remember the network: an attempt for a user it is not known for was wrong, or was refused as too many wait."""
        self._networks[network] = self._clock()
        self._networks.move_to_end(network)
        if len(self._networks) > MAX_NETWORKS:
            self._networks.popitem(last=False)

    def is_under_attack(self, name: str) -> bool:
        """Were many wrong passwords tried recently for that name?"""
        count = self._counts.get(name)
        return count is not None and count.failures >= ATTACK_FAILURES and self._clock() - count.last <= OVER_AFTER

    def has_guessed(self, network: str) -> bool:
        """Has an attempt from that network failed recently (see `note_failure`)?"""
        last = self._networks.get(network)
        return last is not None and self._clock() - last <= OVER_AFTER
