"""Logins that are being tried: many guesses at once cost what they cost one after another, and keep out no known user.

The problems. A failure can slow the next attempt only once it is known, and a check takes a moment: as many guesses as fit
into that moment would all be free, and so would one guess for each of a thousand users. A user's password is guessed from
a thousand networks. And whatever slows guesses must not keep the user out.

The rules. Of a pair of user and network one guess is looked at at a time; the next has its turn, and its delay, when that
is known. The same password again is no further guess, so the devices of a household that all come back with the right
one are checked together; once it was wrong it has its turn as another.

A network has PLACES; a wrong guess keeps its place for as long as its answer is due, whether its client waits for that or
not, and so does one that was refused because too many wait. Clients take turns by address.

A user that is under attack from networks which are not known for it (`attacks`) has RATE turns a second for all of them
together, and the network that has had the fewest is next (`shared_rate`). So a person on a new network is in within seconds, unless
thousands of networks guess in turn; and however many there are, the user's password is not guessed faster.

A password that was found right lately (`checked`) is looked for ahead of the turn, within a budget (`looks`): one of each pair
that is known, one of each user for all other networks. So the user's own devices come in at once while somebody guesses beside
them.

A pair that is known (`known`) needs no place and shares no rate, and its password is checked in a class of its own
(`hashing`): it waits for its own guesses, never for those of other networks.

What has not been checked is not called wrong: whoever waited for LONGEST_QUEUE is told to come again.

An account is counted under each name that the attempt may mean, found or not: a bare name, and the same with the domain
that SNI tells. So it is the same account from wherever it is tried, and nobody learns from a delay which of them exists. All
that is looked at here is the name as it was given, the network and the password's digest: a name that nobody has waits
like one that exists.

Each process has its own lines and rates, so that N workers may look at N guesses at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from mailserver.auth.interfaces import GUESSING, KNOWN, NEW, Asking
from mailserver.auth.throttling.attacks import Pair
from mailserver.auth.throttling.cache_lookups import Looks
from mailserver.auth.throttling.fair_semaphore import Lines, WaitedTooLong
from mailserver.auth.throttling.penalties import LONGEST_QUEUE, Penalties, network_of
from mailserver.auth.throttling.shared_rate import SharedRate
from mailserver.errors import TooManyLogins
from mailserver.system.children import Timer, Waiting
from mailserver.types import Secret, client_of

PLACES: Final = 20
"""Guesses of one network, of pairs that it is not known for, that are looked at or pay at once."""
LOOK_TIME: Final = 20.0
"""Seconds that a known user may wait for a look."""
RATE: Final = 2.0
"""Checks a second of a user under attack, those of all networks together that are not known for it."""
REFUSAL_DELAY: Final = 5.0
"""Seconds that the answer takes to an attempt which was refused because too many wait."""


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
        self.rates = SharedRate(1 / RATE, clock, waiting, call_later)
        self.looks = Looks(clock, waiting, call_later)

    def begin(self, names: Iterable[str], peer: IPv4Address | IPv6Address | None, evidence: Secret) -> Attempt:
        """One attempt to log in, of a user with one of these names. `evidence` tells one guess from another."""
        return Attempt(self, pairs_of(names, peer), client_of(peer), evidence)

    def asking(self, names: Iterable[str], peer: IPv4Address | IPv6Address | None) -> Asking:
        """Class and share of an attempt that is about to be made with one of these names."""
        return self.begin(names, peer, Secret(b"")).asking

    def failed(self, names: Iterable[str], peer: IPv4Address | IPv6Address | None, evidence: Secret) -> float:
        """Count a failure that needed no check. Returns the seconds that its answer is to take."""
        return max(self.penalties.failed(pair, evidence) for pair in pairs_of(names, peer))


class Attempt:
    """From its wait to its outcome: `turn`, then `failed`, `refused`, `succeeded` or none of them, and `end` always."""

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

    @property
    def is_known(self) -> bool:
        """Has the user logged in from there before?"""
        return any(map(self._attempts.penalties.known.is_known, self._pairs))

    @property
    def asking(self) -> Asking:
        """In which class its password is checked, and in whose share."""
        name, network = self._pairs[-1]
        if self.is_known:
            return Asking(name, KNOWN)
        return Asking(self._client, GUESSING if self._attempts.penalties.attacks.has_guessed(network) else NEW)

    async def look(self) -> bool:
        """May its password be compared, ahead of its turn, with what was found right lately? A known user waits for that."""
        penalties, looks = self._attempts.penalties, self._attempts.looks
        if any(penalties.was_wrong(pair, self._guess) for pair in self._pairs):
            return False
        if self.is_known:
            return await looks.wait(self._budget, self._client, LOOK_TIME)
        return looks.take(self._budget)

    def looked_right(self) -> None:
        """It was: that look is free."""
        self._attempts.looks.give_back(self._budget)

    @property
    def _budget(self) -> str:
        name, network = self._pairs[-1]
        return f"{name} {network}" if self.is_known else name

    async def turn(self) -> None:
        """Wait until it may be checked. Raises: TooManyLogins where its turn would come too late."""
        attempts = self._attempts
        until = attempts.clock() + LONGEST_QUEUE
        try:
            own = False
            # A bare name comes before the one with a domain: all take their lines in the same order.
            for pair in self._pairs:
                joined = await attempts.lines.enter(pair, self._client, until - attempts.clock(), self._guess)
                self._entered.append(pair)
                if not joined:
                    own = True
                    await self._wait(pair, until)
            if own and not self.is_known:
                await self._share(until)
        except WaitedTooLong:
            raise TooManyLogins from None
        for pair in self._pairs:
            if not attempts.penalties.was_wrong(pair, self._guess):
                attempts.lines.open(pair)

    async def _wait(self, pair: Pair, until: float) -> None:
        wait, left = self._attempts.penalties.turn(pair), max(until - self._attempts.clock(), 0.0)
        if wait > 0:
            await self._attempts.sleep(min(wait, left))
        if wait > left:
            raise WaitedTooLong

    async def _share(self, until: float) -> None:
        """Share the network's places with its neighbours, and the turns of a user under attack with all networks."""
        attempts, network = self._attempts, self._pairs[0][1]
        await attempts.networks.enter(network, self._client, until - attempts.clock())
        self._place = network
        for pair in self._pairs:
            if attempts.penalties.shares_rate(pair):
                await attempts.rates.enter(pair[0], network, until - attempts.clock())

    def failed(self) -> float:
        """It was wrong. Returns the seconds that the answer is to take."""
        for pair in self._pairs:
            # Who sends it again is no device of a household: one after another, as other guesses.
            self._attempts.lines.shut(pair)
            self._delay = max(self._delay, self._attempts.penalties.failed(pair, self._evidence))
        return self._delay

    def refused(self) -> float:
        """Too many wait, or its client is gone: it is not checked. Returns the seconds that the answer is to take.

        Known users hear it at once.
        """
        if not self.is_known:
            self._delay = REFUSAL_DELAY
            # Who comes back stands behind those who come for the first time.
            self._attempts.penalties.attacks.note(self._pairs[0][1])
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
