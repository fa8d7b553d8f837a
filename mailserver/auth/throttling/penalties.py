"""Penalties: a delay for each pair of user name and network, which grows with failed logins (no I/O, no Twisted).

Only the pair is slowed down, so nobody can lock out a user from elsewhere. If a user is under attack from many networks
(`attacks`), the first failure of a network that is not known for the user costs the longest delay. The table is bounded;
the oldest pair is dropped. The same wrong password again, as from a program with an old one, counts once; only a keyed
digest of it is kept.

Where several processes accept logins, each has the whole table: a process sends each change as a `PenaltyChange`, and the
others apply it. All of them have the same key for the digests.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any, Final, TypeAlias

from attrs import define, field

from mailserver.auth.throttling.attacks import Attacks, Pair
from mailserver.auth.throttling.known_networks import KnownNetworks
from mailserver.types import Secret, embedded_ipv4

MAX_PAIRS: Final = 10_000
"""Pairs remembered."""
FORGET_AFTER: Final = 600.0
"""Seconds after the last failure until the failures of a pair are forgotten."""
MAX_WAIT: Final = 60.0
"""Seconds that an attempt may wait for its turn; after that it is refused unchecked."""
_MAX_WRONG: Final = 16
"""Wrong passwords of a pair whose digests are kept."""

PenaltyChange: TypeAlias = list[Any]
"""A change as JSON: ["failed", name, network, digest], ["turn", name, network, seconds until the next turn],
["succeeded", name, network], or the whole state of a pair: ["pair", name, network, delay, seconds since the last
failure, seconds until the next turn, digests]. Digests are hexadecimal.
"""


def network_of(peer: IPv4Address | IPv6Address | None) -> str:
    """The /24 (IPv4) or /48 (IPv6) network of an address; one made of an IPv4 address counts as that (`embedded_ipv4`)."""
    if peer is None:
        return "local"
    if isinstance(peer, IPv6Address):
        embedded = embedded_ipv4(peer)
        if embedded is None:
            # The zone of a link-local address would otherwise split one network into many.
            return str(ip_network((int(peer), 48), strict=False))
        peer = embedded
    return str(ip_network((int(peer), 24), strict=False))


@define
class _Record:
    delay: float
    last: float
    free_at: float = 0.0
    """Time at which the next attempt of the pair may be checked."""
    wrong: set[bytes] = field(factory=set)


class Penalties:
    """The table of penalties, for the life of the process: it survives a reload of the configuration."""

    def __init__(
        self,
        clock: Callable[[], float],
        first_delay: float = 1.0,
        max_delay: float = 15.0,
        *,
        key: bytes | None = None,
        known: KnownNetworks | None = None,
    ) -> None:
        """`first_delay`: seconds for the first failure, doubled for each further one up to `max_delay`.

        `key`: for the digests, up to 64 octets; a random one if None. `known`: an empty table if None.
        """
        self._clock = clock
        self._key = key or secrets.token_bytes(32)
        self._records: OrderedDict[Pair, _Record] = OrderedDict()
        self.known = KnownNetworks() if known is None else known
        self.attacks = Attacks(clock)
        self.first_delay = first_delay
        self.max_delay = max_delay
        self.on_change: Callable[[PenaltyChange], None] = lambda _change: None
        """Called with each change that other processes must apply, too."""

    def __len__(self) -> int:
        return len(self._records)

    def take_turn(self, pair: Pair) -> float:
        """Take the next turn of a pair. Return the seconds until its attempt may be checked, 0 without failures.

        A client that disconnects instead of waiting for the answer gains nothing. For parallel attempts `login_throttle`
        takes one turn after another.
        """
        now = self._clock()
        record = self._records.get(pair)
        if record is None or now - record.last > FORGET_AFTER:
            return 0.0
        start = max(now, record.free_at)
        record.free_at = min(start, now + MAX_WAIT) + record.delay
        self.on_change(["turn", *pair, record.free_at - now])
        return start - now

    def time_to_turn(self, pair: Pair) -> float:
        """Return the seconds until an attempt of the pair may be checked, without taking the turn."""
        now = self._clock()
        record = self._records.get(pair)
        return 0.0 if record is None or now - record.last > FORGET_AFTER else max(record.free_at - now, 0.0)

    def shares_rate(self, pair: Pair) -> bool:
        """Is the user under attack, and the network not known for it?"""
        return self.attacks.is_under_attack(pair[0]) and not self.known.is_known(pair)

    def was_wrong(self, pair: Pair, digest: bytes) -> bool:
        """Is this the digest of a wrong password of the pair?"""
        record = self._records.get(pair)
        return record is not None and digest in record.wrong

    def digest(self, password: Secret) -> bytes:
        """The keyed digest by which a password is remembered."""
        return hashlib.blake2b(password.reveal(), key=self._key, digest_size=16).digest()

    def failed(self, pair: Pair, password: Secret) -> float:
        """Count a failure. Return the seconds until its answer is due."""
        digest = self.digest(password)
        delay = self._count(pair, digest)
        self.on_change(["failed", *pair, digest.hex()])
        return delay

    def succeeded(self, pair: Pair) -> None:
        """Forget the pair's failures, and note that the network is known for the user."""
        self.known.add(pair)
        if self._records.pop(pair, None) is not None:
            self.on_change(["succeeded", *pair])

    def snapshot(self) -> list[PenaltyChange]:
        """All pairs, for a process that starts."""
        now = self._clock()
        return [
            [
                "pair",
                *pair,
                record.delay,
                now - record.last,
                record.free_at - now,
                [digest.hex() for digest in record.wrong],
            ]
            for pair, record in self._records.items()
            if now - record.last <= FORGET_AFTER
        ]

    def apply(self, change: PenaltyChange) -> None:
        """Apply a change of another process. Raises: ValueError if it is malformed."""
        now = self._clock()
        match change:
            case ["failed", str(name), str(network), str(digest)]:
                self._count((name, network), bytes.fromhex(digest))
            case ["turn", str(name), str(network), (float() | int()) as free_in]:
                if (record := self._records.get((name, network))) is not None:
                    record.free_at = max(record.free_at, now + free_in)
            case ["succeeded", str(name), str(network)]:
                self._records.pop((name, network), None)
            case [
                "pair",
                str(name),
                str(network),
                (float() | int()) as delay,
                (float() | int()) as age,
                (float() | int()) as free_in,
                list(digests),
            ]:
                if (record := self._records.get((name, network))) is None:
                    record = self._add((name, network), _Record(delay=delay, last=now - age))
                    self._count_attack((name, network), len(digests))
                record.delay = max(record.delay, delay)
                record.last = max(record.last, now - age)
                record.free_at = max(record.free_at, now + free_in)
                record.wrong.update(bytes.fromhex(digest) for digest in digests[:_MAX_WRONG])
            case _:
                msg = f"malformed change of penalties: {change[:1]}"
                raise ValueError(msg)

    def _count(self, pair: Pair, digest: bytes) -> float:
        now = self._clock()
        record = self._records.get(pair)
        if record is None or now - record.last > FORGET_AFTER:
            self._records.pop(pair, None)
            first = self.max_delay if self.shares_rate(pair) else self.first_delay
            record = self._add(pair, _Record(delay=min(first, self.max_delay), last=now))
        elif digest not in record.wrong:
            record.delay = min(record.delay * 2, self.max_delay)
        if digest not in record.wrong:
            self._count_attack(pair)
        record.last = now
        record.free_at = max(record.free_at, now + record.delay)
        if len(record.wrong) >= _MAX_WRONG:
            record.wrong.clear()
        record.wrong.add(digest)
        self._records.move_to_end(pair)
        return record.delay

    def _count_attack(self, pair: Pair, failures: int = 1) -> None:
        if not self.known.is_known(pair):
            self.attacks.failed(pair, failures)

    def _add(self, pair: Pair, record: _Record) -> _Record:
        self._records[pair] = record
        if len(self._records) > MAX_PAIRS:
            self._records.popitem(last=False)
        return record
