"""What failed logins cost: a delay that grows for each pair of user name and network (no I/O, no Twisted).

Only the pair is slowed, so nobody is locked out by others. The table is bounded; its oldest pair makes room. A wrong
password that is repeated, as a program with a stale one does, counts once; only a keyed digest of it is kept.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

from attrs import define, field

from mailserver.types import Secret

MAX_PAIRS: Final = 10_000
"""Pairs remembered."""
FORGET_AFTER: Final = 600.0
"""Seconds after the last failure until a pair starts anew."""
LONGEST_QUEUE: Final = 60.0
"""Seconds that an attempt may wait for its turn; beyond, it is refused unchecked."""
_MAX_WRONG: Final = 16

Pair = tuple[str, str]
"""Normalised name, network."""


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

    def __init__(self, clock: Callable[[], float], first: float = 1.0, most: float = 15.0) -> None:
        """`first` seconds for the first failure, doubled for each further one up to `most`."""
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._records: OrderedDict[Pair, _Record] = OrderedDict()
        self.first = first
        self.most = most

    def turn(self, pair: Pair) -> float:
        """Take the next turn of a pair: seconds until its attempt may be checked, 0 for a pair without failures.

        Who hangs up instead of waiting for the answer is no faster for it, nor is who asks many times at once.
        """
        now = self._clock()
        record = self._records.get(pair)
        if record is None or now - record.last > FORGET_AFTER:
            return 0.0
        start = max(now, record.free_at)
        record.free_at = min(start, now + LONGEST_QUEUE) + record.delay
        return start - now

    def failed(self, pair: Pair, password: Secret) -> float:
        """Count a failure. Returns the seconds that its answer is to take."""
        now = self._clock()
        digest = hashlib.blake2b(password.reveal(), key=self._key, digest_size=16).digest()
        record = self._records.get(pair)
        if record is None or now - record.last > FORGET_AFTER:
            record = self._records[pair] = _Record(delay=min(self.first, self.most), last=now)
        elif digest not in record.wrong:
            record.delay = min(record.delay * 2, self.most)
        record.last = now
        record.free_at = max(record.free_at, now + record.delay)
        if len(record.wrong) >= _MAX_WRONG:
            record.wrong.clear()
        record.wrong.add(digest)
        self._records.move_to_end(pair)
        if len(self._records) > MAX_PAIRS:
            self._records.popitem(last=False)
        return record.delay

    def succeeded(self, pair: Pair) -> None:
        """Forget the pair's failures."""
        self._records.pop(pair, None)

    def __len__(self) -> int:
        return len(self._records)
