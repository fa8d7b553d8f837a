"""Passwords found right lately, as keyed digests in memory: the same password again needs no check, no turn and no delay.

The problems. Clients log in again and again with the password that was right a minute ago, and each time a hash takes 0.3 s of
a processor. And where somebody at the user's own address guesses (a neighbour behind the same NAT, an infected device), the
user's right password waits behind the guesses.

The rules. When a password has been found right, a digest of the user, the stored entry and the password is kept for KEEP
seconds, under a key that is made at the start and is in memory alone. The stored entry is asked for anew at each login: where the back
end gives it (`IHashedPasswords`), a digest that is found says that the password is right, by construction after any change
of the password too, and whether the user is disabled is seen as ever. Where it does not, the entry counts as empty: a digest that is
found only spares the login its turn and its delay, and the back end still decides. Networks and certificates are looked
at in both cases, as for every right password.

To look for a digest ahead of the turn is a guess, too, and one that costs its maker nothing. So looks are counted (`looks`): a
user at a known network has a few at once and two a second, all other networks together as many. A look that finds the password right is
free. Nobody learns anything from a look but by logging in; where a right password is then refused for its network or certificate,
the attempt takes its turn and the time of a check, as a wrong one does.

What is told from outside: who knows the right password can see by the time whether it was used within KEEP seconds. A password
that came in clear text is not noted when it is found right.

Rejected: digests on disk (a copy would let passwords be tried at the speed of BLAKE2); looks without a bound (a password could be
guessed as fast as connections are made, while its owner is logged in); to prolong the time with each use (a stolen device
would keep a digest alive for ever).
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from mailserver.types import Secret

KEEP: Final = 600.0
"""Seconds after a check for which its result is kept."""
MAX_USERS: Final = 20_000
"""Users with digests; the one that has logged in longest ago makes room."""
MAX_DIGESTS: Final = 8
"""Digests of one user: its password, and its keys or other passwords; the oldest makes room."""

News: TypeAlias = list[Any]
"""What JSON can hold: user, digest in hexadecimal, seconds that it is still kept."""


class CheckedPasswords:
    """The digests. One for the life of the process."""

    def __init__(self, clock: Callable[[], float], key: bytes | None = None) -> None:
        """`clock` is monotonic seconds. `key`, up to 64 octets, is the same in all workers; one of its own when None."""
        self._clock = clock
        self._key = key or secrets.token_bytes(32)
        self._users: OrderedDict[str, dict[bytes, float]] = OrderedDict()
        """User -> digest -> until when."""
        self.on_change: Callable[[News], None] = lambda _news: None
        """Called with each new digest, so that other workers have it."""

    def __len__(self) -> int:
        return len(self._users)

    def mentions(self, names: Iterable[str]) -> bool:
        """Has a password of one of these users been found right lately?"""
        return any(name in self._users for name in names)

    def holds(self, user: str, stored: str, password: Secret) -> bool:
        """Has this password been found right for this entry?"""
        return self._users.get(user, {}).get(self._digest(user, stored, password), 0.0) > self._clock()

    def add(self, user: str, stored: str, password: Secret) -> None:
        """It has been found right just now. `stored`: the entry; empty where the back end gives none."""
        digest = self._digest(user, stored, password)
        self._keep(user, digest, KEEP)
        self.on_change([user, digest.hex(), KEEP])

    def forget(self, user: str) -> None:
        """One of the user's was found wrong after all."""
        self._users.pop(user, None)

    def all(self) -> list[News]:
        """What is kept, for a worker that begins."""
        now = self._clock()
        return [
            [user, digest.hex(), until - now]
            for user, digests in self._users.items()
            for digest, until in digests.items()
            if until > now
        ]

    def take(self, news: News) -> None:
        """Another worker has found one right. Raises: ValueError for nonsense."""
        match news:
            case [str(user), str(digest), (float() | int()) as left] if 0 <= left <= KEEP:
                self._keep(user, bytes.fromhex(digest), left)
            case _:
                raise ValueError("no news of a checked password")

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
        # Those at the front are the oldest: what is over goes, and what is too much.
        while len(self._users) > MAX_USERS or max(next(iter(self._users.values())).values()) <= now:
            self._users.popitem(last=False)
