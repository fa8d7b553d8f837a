"""What failed logins cost: a delay that grows for each pair of user name and network (no I/O, no Twisted).

Only the pair is slowed, so that nobody is locked out by others. Where a user is under attack from many networks
(`attacks`), the first failure of a network that is not known for the user costs the longest delay. The table is bounded; its
oldest pair makes room. A wrong password that is repeated, as a program with a stale one does, counts once; only a keyed
digest of it is kept.

Where several processes take logins, each has the table: what one does to it, it tells as `News`, and the others do the
same. The key of the digests is then the same in all of them.
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
from mailserver.types import Secret

MAX_PAIRS: Final = 10_000
"""Pairs remembered."""
FORGET_AFTER: Final = 600.0
"""Seconds after the last failure until a pair starts anew."""
LONGEST_QUEUE: Final = 60.0
"""Seconds that an attempt may wait for its turn; beyond, it is refused unchecked."""
_MAX_WRONG: Final = 16

News: TypeAlias = list[Any]
"""What JSON can hold: ["failed", name, network, digest], ["turn", name, network, seconds until it is free],
["succeeded", name, network], or all that is known of a pair: ["pair", name, network, delay, seconds since the last
failure, seconds until it is free, digests]. Digests are hexadecimal.
"""


def network_of(peer: IPv4Address | IPv6Address | None) -> str:
    """The /24 or /48 that an address shares with its neighbours; an IPv4-mapped one counts as IPv4."""
    if peer is None:
        return "local"
    if isinstance(peer, IPv6Address):
        if peer.ipv4_mapped is None:
            # The zone of a link-local address would otherwise split one network into many.
            return str(ip_network((int(peer), 48), strict=False))
        peer = peer.ipv4_mapped
    return str(ip_network((int(peer), 24), strict=False))


@define
class _Record:
    delay: float
    last: float
    free_at: float = 0.0
    """When the next attempt of the pair may be checked."""
    wrong: set[bytes] = field(factory=set)


class Penalties:
    """The table. One for the life of the process: a reload of the configuration must not forgive."""

    def __init__(
        self,
        clock: Callable[[], float],
        first: float = 1.0,
        most: float = 15.0,
        *,
        key: bytes | None = None,
        known: KnownNetworks | None = None,
    ) -> None:
        """`first` seconds for the first failure, doubled for each further one up to `most`.

        `key` is for the digests, up to 64 octets; one of its own when None. `known`: an empty table when None.
        """
        self._clock = clock
        self._key = key or secrets.token_bytes(32)
        self._records: OrderedDict[Pair, _Record] = OrderedDict()
        self.known = KnownNetworks() if known is None else known
        self.attacks = Attacks(clock)
        self.first = first
        self.most = most
        self.on_change: Callable[[News], None] = lambda _news: None
        """Called with whatever happens here that other processes should do, too."""

    def turn(self, pair: Pair) -> float:
        """Take the next turn of a pair: seconds until its attempt may be checked, 0 for a pair without failures.

        Who hangs up instead of waiting for the answer is no faster for it. Who asks many times at once is held by
        `attempts`, which asks here for one after another.
        """
        now = self._clock()
        record = self._records.get(pair)
        if record is None or now - record.last > FORGET_AFTER:
            return 0.0
        start = max(now, record.free_at)
        record.free_at = min(start, now + LONGEST_QUEUE) + record.delay
        self.on_change(["turn", *pair, record.free_at - now])
        return start - now

    def shares_rate(self, pair: Pair) -> bool:
        """Is the user under attack, and the network not known for it?"""
        return self.attacks.is_under_attack(pair[0]) and not self.known.is_known(pair)

    def was_wrong(self, pair: Pair, digest: bytes) -> bool:
        """Is it one of the pair's wrong passwords that are remembered?"""
        record = self._records.get(pair)
        return record is not None and digest in record.wrong

    def digest(self, password: Secret) -> bytes:
        """What is kept of a password, and tells two from each other."""
        return hashlib.blake2b(password.reveal(), key=self._key, digest_size=16).digest()

    def failed(self, pair: Pair, password: Secret) -> float:
        """Count a failure. Returns the seconds that its answer is to take."""
        digest = self.digest(password)
        delay = self._count(pair, digest)
        self.on_change(["failed", *pair, digest.hex()])
        return delay

    def succeeded(self, pair: Pair) -> None:
        """Forget the pair's failures; the network is known for the user from now on."""
        self.known.welcome(pair)
        if self._records.pop(pair, None) is not None:
            self.on_change(["succeeded", *pair])

    def all(self) -> list[News]:
        """Every pair, for a process that begins."""
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

    def take(self, news: News) -> None:
        """What another process did. Raises: ValueError if it is none of the kinds."""
        now = self._clock()
        match news:
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
                msg = f"no news of penalties: {news[:1]}"
                raise ValueError(msg)

    def _count(self, pair: Pair, digest: bytes) -> float:
        now = self._clock()
        record = self._records.get(pair)
        if record is None or now - record.last > FORGET_AFTER:
            self._records.pop(pair, None)
            first = self.most if self.shares_rate(pair) else self.first
            record = self._add(pair, _Record(delay=min(first, self.most), last=now))
        elif digest not in record.wrong:
            record.delay = min(record.delay * 2, self.most)
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

    def __len__(self) -> int:
        return len(self._records)
