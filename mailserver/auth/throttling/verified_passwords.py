"""Passwords that were right recently, as keyed digests in memory. The same password again needs no hash, turn or delay.

The problems. Clients log in again and again with a password that was right a minute ago, and each time a hash takes 0.3 s of
processor time. And where somebody guesses at the user's own address (a neighbour behind the same NAT, an infected
device), the user's right password waits behind the guesses.

The rules. When a password was right, a digest of user, stored entry and password is kept for KEEP_TIME, under a key that
is made at the start and exists only in memory. The stored entry is read again at each login. Where the back end provides
it (`IHashedPasswords`), a matching digest proves that the password is right, after any change of the password too, and
a disabled user is always refused. Where the back end does not, the entry counts as empty: a matching digest only spares the
login its turn and its delay, and the back end still decides; unless the configuration gives it `cache` seconds, in which a
digest passes by itself, also after the password was changed there. Networks and certificates are checked in both cases, as for
every right password.

A lookup ahead of the turn is a guess, too, and one without a cost. So token buckets limit lookups: a user at a known
network has a few at once and two a second, all other networks together as many. A lookup that finds the password right
is free. A lookup shows nothing but by a login. If a right password is then refused for its network or certificate,
the attempt takes its turn and the time of a hash, as a wrong password does.

What shows outside: a person who knows the right password can see from the time whether it was used within KEEP_TIME. A
password that came in clear text is not added when it is right.

Rejected: digests on disk (a copy would let passwords be tried at the speed of BLAKE2); unlimited lookups (an attacker could
guess as fast as it connects while the user is logged in); extending the time at each use (a stolen device would
keep a digest alive for ever).
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from mailserver.types import Secret

KEEP_TIME: Final = 600.0
"""Seconds for which the result of a hash is kept."""
MAX_USERS: Final = 20_000
"""Users with digests; the one with the oldest login is dropped."""
MAX_DIGESTS: Final = 8
"""Digests of one user: of its password, its SCRAM keys, other passwords; the oldest is dropped."""

VerifiedChange: TypeAlias = list[Any]
"""A new digest as JSON: user, digest in hexadecimal, seconds until it expires."""


class VerifiedPasswords:
    """The digests, for the life of the process."""

    def __init__(self, clock: Callable[[], float], key: bytes | None = None) -> None:
        """`clock`: monotonic seconds. `key`: up to 64 octets, the same in all workers; a random one if None."""
        self._clock = clock
        self._key = key or secrets.token_bytes(32)
        self._users: OrderedDict[str, dict[bytes, float]] = OrderedDict()
        """User -> digest -> time of expiry."""
        self.on_change: Callable[[VerifiedChange], None] = lambda _change: None
        """Called with each new digest, for the other workers."""

    def __len__(self) -> int:
        return len(self._users)

    def has_any(self, names: Iterable[str]) -> bool:
        """Was a password of one of these users right recently?"""
        return any(name in self._users for name in names)

    def contains(self, user: str, stored: str, password: Secret, within: float = KEEP_TIME) -> bool:
        """Was this password right in the last `within` seconds, for this stored entry?"""
        until = self._users.get(user, {}).get(self._digest(user, stored, password)) if within > 0 else None
        return until is not None and until - self._clock() > KEEP_TIME - within

    def add(self, user: str, stored: str, password: Secret) -> None:
        """Add a password that was right. `stored`: its entry, empty where the back end provides none."""
        digest = self._digest(user, stored, password)
        self._keep(user, digest, KEEP_TIME)
        self.on_change([user, digest.hex(), KEEP_TIME])

    def forget(self, user: str) -> None:
        """Drop the user's digests: a password that was right is now wrong."""
        self._users.pop(user, None)

    def snapshot(self) -> list[VerifiedChange]:
        """All digests, for a worker that starts."""
        now = self._clock()
        return [
            [user, digest.hex(), until - now]
            for user, digests in self._users.items()
            for digest, until in digests.items()
            if until > now
        ]

    def apply(self, change: VerifiedChange) -> None:
        """Add a digest of another worker. Raises: ValueError if it is malformed."""
        match change:
            case [str(user), str(digest), (float() | int()) as left] if 0 <= left <= KEEP_TIME:
                self._keep(user, bytes.fromhex(digest), left)
            case _:
                raise ValueError("malformed change of verified passwords")

    def _digest(self, user: str, stored: str, password: Secret) -> bytes:
        hashed = hashlib.blake2b(key=self._key, digest_size=16, person=b"checked")
        for part in (user.encode("utf-8", "surrogatepass"), stored.encode("utf-8", "surrogatepass"), password.reveal()):
            hashed.update(len(part).to_bytes(4, "big") + part)
        return hashed.digest()

    def _keep(self, user: str, digest: bytes, seconds: float) -> None:
        now = self._clock()
        digests = self._users.setdefault(user, {})
        self._users.move_to_end(user)
        until = max(now + seconds, digests.pop(digest, 0.0))
        digests[digest] = until
        for old in [each for each, end in digests.items() if end <= now][: len(digests) - 1]:
            del digests[old]
        while len(digests) > MAX_DIGESTS:
            del digests[next(iter(digests))]
        # The oldest are at the front. Drop expired ones, and as many as exceed the bound.
        while len(self._users) > MAX_USERS or max(next(iter(self._users.values())).values()) <= now:
            self._users.popitem(last=False)
