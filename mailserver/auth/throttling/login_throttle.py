"""Throttling of login attempts: guesses in parallel cost as much as guesses in sequence, and known users get through.

The problems. A failure can slow down the next attempt only once it is known, and a check takes time. All guesses that fit
into that time would be free, and so would one guess for each of a thousand users. Attackers guess a user's password from
a thousand networks. And no measure against guesses may keep the user out.

The rules. For each pair of user and network one guess is checked at a time. The next guess waits for its turn, and for
its delay, until that result is known. The same password again is not another guess: the devices of a household that
all reconnect with the right password are checked together. Once it was wrong, it waits as any other guess.

A network has NETWORK_LIMIT places. A wrong guess keeps its place until its answer is due, whether its client waits for the
answer or not; so does an attempt that was refused because too many wait. Clients take turns by address.

If a user is under attack from networks that are not known for it (`attacks`), all of these networks together get
CHECKS_PER_SECOND, and the network with the fewest attempts goes first (`shared_rate`). A person on a new network gets in
within seconds, unless thousands of networks guess in turn. However many guess, they do not guess the user's password faster.

A password that was right recently is looked up ahead of the turn (`verified_passwords`). A token bucket limits these lookups
(`token_buckets`): one for each known pair, one for each user and all other networks. So the user's own devices log
in at once while somebody else guesses.

A known pair (`known_networks`) needs no place and shares no rate, and its password is checked in a class of its own
(`schemes.hash_pool`). It waits for its own guesses, never for those of other networks.

An attempt that was not checked is not called wrong: after MAX_WAIT its client is asked to try again later.

An attempt counts for each name that it may mean, whether such a user exists or not: a bare name, and the name with the
domain of the SNI host. So an account is the same account wherever it is tried, and a delay does not show which of the names
exists. Only the name as given, the network and a digest of the password count: a name without an account waits like one
that has an account.

Each process has its own semaphores and rates, so N workers may check N guesses at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from math import inf
from typing import Final

from mailserver.auth.asking import GUESSING, KNOWN, NEW, Asking
from mailserver.auth.throttling.attacks import Pair
from mailserver.auth.throttling.fair_semaphore import FairSemaphore, WaitTimedOut
from mailserver.auth.throttling.penalties import MAX_WAIT, Penalties, network_of
from mailserver.auth.throttling.shared_rate import SharedRate
from mailserver.auth.throttling.token_buckets import TokenBuckets
from mailserver.errors import TooManyLogins
from mailserver.system.children import Timer, Waiting
from mailserver.types import Secret, client_of

NETWORK_LIMIT: Final = 20
"""Attempts of one network, for pairs that are not known, that are checked or wait for their answer at a time."""
LOOKUP_TIMEOUT: Final = 20.0
"""Seconds that a known user may wait for a lookup."""
CHECKS_PER_SECOND: Final = 2.0
"""Checks of a user under attack, for all networks together that are not known for it."""
REFUSAL_DELAY: Final = 5.0
"""Seconds until the answer to an attempt that was refused because too many wait."""


def pairs_of(names: Iterable[str], peer: IPv4Address | IPv6Address | None) -> tuple[Pair, ...]:
    """The pairs that an attempt counts for: each name that the account may have, with the client's network."""
    network = network_of(peer)
    return tuple((name, network) for name in names)


class LoginThrottle:
    """The limits of this process, for its whole life. All calls are made on one thread."""

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
        self.pairs: FairSemaphore[Pair] = FairSemaphore(1, waiting, call_later)
        self.networks: FairSemaphore[str] = FairSemaphore(NETWORK_LIMIT, waiting, call_later)
        self.rate = SharedRate(1 / CHECKS_PER_SECOND, clock, waiting, call_later)
        self.lookups = TokenBuckets(clock, waiting, call_later)

    def begin(
        self,
        names: Iterable[str],
        peer: IPv4Address | IPv6Address | None,
        evidence: Secret,
        within: float = inf,
    ) -> LoginAttempt:
        """Begin an attempt by a user with one of these names. `evidence` distinguishes one guess from another.

        `within`: seconds from now in which its turn must come, besides MAX_WAIT.
        """
        return LoginAttempt(self, pairs_of(names, peer), client_of(peer), evidence, within)

    def asking(self, names: Iterable[str], peer: IPv4Address | IPv6Address | None) -> Asking:
        """Class and share of an attempt that is about to begin."""
        return self.begin(names, peer, Secret(b"")).asking

    def failed(self, names: Iterable[str], peer: IPv4Address | IPv6Address | None, evidence: Secret) -> float:
        """Count a failure without a check. Return the seconds until its answer is due."""
        return max(self.penalties.failed(pair, evidence) for pair in pairs_of(names, peer))


class LoginAttempt:
    """One attempt to log in.

    Call `wait_turn`; then at most one of `failed`, `refused` and `succeeded`; and `end` in any case.
    """

    def __init__(
        self, throttle: LoginThrottle, pairs: tuple[Pair, ...], client: str, evidence: Secret, within: float
    ) -> None:
        self._throttle = throttle
        self._pairs = pairs
        self._client = client
        self._evidence = evidence
        self._within = within
        self._until = throttle.clock() + within
        self._guess = throttle.penalties.digest(evidence)
        self._acquired: list[Pair] = []
        self._network = ""
        """The network whose place it has; empty: none."""
        self._delay = 0.0

    @property
    def is_known(self) -> bool:
        """Has the user logged in from this network before?"""
        return any(map(self._throttle.penalties.known.is_known, self._pairs))

    @property
    def asking(self) -> Asking:
        """Class and share of its password check."""
        name, network = self._pairs[-1]
        if self.is_known:
            return Asking(name, KNOWN)
        return Asking(self._client, GUESSING if self._throttle.penalties.attacks.has_guessed(network) else NEW)

    async def take_lookup(self) -> bool:
        """May its password be looked up among those that were right recently, ahead of its turn? A known user waits for that."""
        penalties, lookups = self._throttle.penalties, self._throttle.lookups
        if any(penalties.was_wrong(pair, self._guess) for pair in self._pairs):
            return False
        if self.is_known:
            return await lookups.wait(self._bucket, self._client, min(LOOKUP_TIMEOUT, self._within / 2))
        return lookups.take(self._bucket)

    def lookup_succeeded(self) -> None:
        """Give the lookup back: finding a right password is free."""
        self._throttle.lookups.give_back(self._bucket)

    @property
    def _bucket(self) -> str:
        name, network = self._pairs[-1]
        return f"{name} {network}" if self.is_known else name

    async def wait_turn(self) -> None:
        """Wait until it may be checked. Raises: TooManyLogins if its turn would come too late."""
        throttle = self._throttle
        until = min(throttle.clock() + MAX_WAIT, self._until)
        try:
            is_new_guess = False
            # The bare name comes before the name with a domain: all attempts acquire in the same order.
            for pair in self._pairs:
                joined = await throttle.pairs.acquire(
                    pair, self._client, max(until - throttle.clock(), 0.0), self._guess
                )
                self._acquired.append(pair)
                if not joined:
                    is_new_guess = True
                    await self._wait_delay(pair, until)
            if is_new_guess and not self.is_known:
                await self._wait_limits(until)
        except WaitTimedOut:
            raise TooManyLogins from None
        for pair in self._pairs:
            if not throttle.penalties.was_wrong(pair, self._guess):
                throttle.pairs.allow_joining(pair)

    async def _wait_delay(self, pair: Pair, until: float) -> None:
        penalties = self._throttle.penalties
        if penalties.time_to_turn(pair) > max(until - self._throttle.clock(), 0.0):
            # It takes no turn: otherwise a client that tries again would postpone its own turn each time.
            raise WaitTimedOut
        wait = penalties.take_turn(pair)
        if wait > 0:
            await self._throttle.sleep(wait)

    async def _wait_limits(self, until: float) -> None:
        """Wait for a place of the network and, for a user under attack, for a turn shared by all networks."""
        throttle, network = self._throttle, self._pairs[0][1]
        await throttle.networks.acquire(network, self._client, max(until - throttle.clock(), 0.0))
        self._network = network
        for pair in self._pairs:
            if throttle.penalties.shares_rate(pair):
                await throttle.rate.wait_turn(pair[0], network, max(until - throttle.clock(), 0.0))

    def failed(self) -> float:
        """Count a wrong guess. Return the seconds until its answer is due."""
        for pair in self._pairs:
            # The same wrong password again waits as other guesses do.
            self._throttle.pairs.stop_joining(pair)
            self._delay = max(self._delay, self._throttle.penalties.failed(pair, self._evidence))
        return self._delay

    def refused(self) -> float:
        """Count an attempt that is not checked, as too many wait or its client has disconnected.

        Return the seconds until its answer is due: none for a known user.
        """
        if not self.is_known:
            self._delay = REFUSAL_DELAY
            # Networks that have not been refused go first.
            self._throttle.penalties.attacks.note_failure(self._pairs[0][1])
        return self._delay

    def succeeded(self) -> None:
        """Forget the earlier failures: the login was right."""
        for pair in self._pairs:
            self._throttle.penalties.succeeded(pair)

    def end(self) -> None:
        """Release everything that it holds: the place of the network once its answer is due."""
        for pair in self._acquired:
            self._throttle.pairs.release(pair)
        if self._network:
            self._throttle.networks.release(self._network, after=self._delay)
