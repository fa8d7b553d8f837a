"""Logins that are being tried: many guesses at once cost what they cost one after another.

The problem. A failure can slow the next attempt only once it is known, and a check takes a moment: as many guesses as fit
into that moment would all be free, and so would one guess for each of a thousand users.

The rules. Of a pair of user and network one guess is looked at at a time; the next has its turn, and its delay, when that
is known. The same password again is no further guess, so the devices of a household that all come back with the right
one are checked together; once it was wrong it has its turn as another. A network has PLACES; a wrong guess keeps its
place for as long as its answer is due, whether its client waits for that or not. Who has logged in from there before
needs no place, so that no neighbour is in the way. Clients take turns by address. Who waited for LONGEST_QUEUE is refused
unchecked.

An account is counted under each name that the attempt may mean, found or not: a bare name, and the same with the domain
that SNI tells. So it is the same account from wherever it is tried, and nobody learns from a delay which of them exists.

Each process has its own lines, so that N workers may look at N guesses at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from mailserver.auth.attacks import Pair
from mailserver.auth.lines import Lines, WaitedTooLong
from mailserver.auth.penalties import LONGEST_QUEUE, Penalties, network_of
from mailserver.children import Timer, Waiting
from mailserver.errors import AuthFailed, AuthUnavailable
from mailserver.types import Secret, client_of

PLACES: Final = 20
"""Guesses of one network, of pairs that it is not known for, that are looked at or pay at once."""


def pairs_of(names: Iterable[str], peer: IPv4Address | IPv6Address | None) -> tuple[Pair, ...]:
    """What an attempt counts for: the client's network with each name that the account may have."""
    network = network_of(peer)
    return tuple((name, network) for name in names)


class Attempts:
    """Those of this process; one for its life. All calls are made on one thread."""

    def __init__(
        self,
        penalties: Penalties,
        sleep: Callable[[float], Awaitable[object]],
        clock: Callable[[], float],
        waiting: Callable[[], Waiting],
        call_later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        """`clock` is monotonic seconds."""
        self.penalties = penalties
        self.sleep = sleep
        self.clock = clock
        self.lines: Lines[Pair] = Lines(1, waiting, call_later)
        self.networks: Lines[str] = Lines(PLACES, waiting, call_later)

    def begin(self, names: Iterable[str], peer: IPv4Address | IPv6Address | None, evidence: Secret) -> Attempt:
        """One attempt to log in, of a user with one of these names. `evidence` tells one guess from another."""
        return Attempt(self, pairs_of(names, peer), client_of(peer), evidence)

    def failed(self, names: Iterable[str], peer: IPv4Address | IPv6Address | None, evidence: Secret) -> float:
        """Count a failure that needed no check. Returns the seconds that its answer is to take."""
        return max(self.penalties.failed(pair, evidence) for pair in pairs_of(names, peer))


class Attempt:
    """From its wait to its outcome: `turn`, then `failed` or `succeeded` or neither, and `end` always."""

    def __init__(self, attempts: Attempts, pairs: tuple[Pair, ...], client: str, evidence: Secret) -> None:
        self._attempts = attempts
        self._pairs = pairs
        self._client = client
        self._evidence = evidence
        self._guess = attempts.penalties.digest(evidence)
        self._entered: list[Pair] = []
        self._place = ""
        """The network that it has a place of; empty: none."""
        self._delay = 0.0

    async def turn(self) -> None:
        """Wait until it may be checked.

        Raises: AuthFailed where its turn is too late, AuthUnavailable where its network has no place for it so long.
        """
        attempts = self._attempts
        until = attempts.clock() + LONGEST_QUEUE
        own = False
        # A bare name comes before the one with a domain: all take their lines in the same order.
        for pair in self._pairs:
            try:
                joined = await attempts.lines.enter(pair, self._client, until - attempts.clock(), self._guess)
            except WaitedTooLong:
                raise AuthFailed from None
            self._entered.append(pair)
            if not joined:
                own = True
                await self._wait(pair, until)
        if own and not any(map(attempts.penalties.is_known, self._pairs)):
            network = self._pairs[0][1]
            try:
                await attempts.networks.enter(network, self._client, until - attempts.clock())
            except WaitedTooLong:
                raise AuthUnavailable from None
            self._place = network
        for pair in self._pairs:
            if not attempts.penalties.was_wrong(pair, self._guess):
                attempts.lines.open(pair)

    async def _wait(self, pair: Pair, until: float) -> None:
        wait, left = self._attempts.penalties.turn(pair), max(until - self._attempts.clock(), 0.0)
        if wait > 0:
            await self._attempts.sleep(min(wait, left))
        if wait > left:
            raise AuthFailed

    def failed(self) -> float:
        """It was wrong. Returns the seconds that the answer is to take."""
        for pair in self._pairs:
            # Who sends it again is no device of a household: one after another, as other guesses.
            self._attempts.lines.shut(pair)
            self._delay = max(self._delay, self._attempts.penalties.failed(pair, self._evidence))
        return self._delay

    def succeeded(self) -> None:
        """It was right: what failed before is forgotten."""
        for pair in self._pairs:
            self._attempts.penalties.succeeded(pair)

    def end(self) -> None:
        """Let the next ones in."""
        for pair in self._entered:
            self._attempts.lines.leave(pair)
        if self._place:
            self._attempts.networks.leave(self._place, after=self._delay)
