"""Known networks: the networks from which each user has logged in, remembered for 90 days and over restarts.

The problems. A flood of guesses must not keep a user out at a place where it has logged in before, however large the
flood, and however recently the server has started. A list of users and the places of their logins is personal data. A user
with many networks must not displace those of other users.

The rules. A pair of user name and network is known after a successful login. It is stored as a keyed digest of 8 octets
and the day of its last login. The first 4 octets depend on the name alone, so a user's networks are adjacent in the
sorted array and can be limited for each user; the last 4 depend on name and network. The network has a row of its own,
as of a user without a name: a network from which anybody has logged in is never banned (`bans`). A user at its limit of
networks adds no further ones there. The key is stored in the same file: a copy of the digests alone reveals nothing. All
processes have the same key and the same table.

What an attacker can learn. Only attempts from a known network are treated as such; outside of it no difference shows. A
person in the same network can see under load that the user has logged in from there, and nothing else. A name without an account is
never known, and is treated like an existing user's unknown network. A false match requires that the digest of another
network equals one of the user's at most 200: 1 in 20 million.

Rejected: names and networks in clear (personal data in a file and in every process); SQLite (a query for each attempt,
where a search of the array takes 2 microseconds); a Bloom filter (entries cannot be removed).
"""

from __future__ import annotations

import hashlib
import secrets
import sys
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from mailserver.auth.throttling.attacks import Pair

KEEP_DAYS: Final = 90
"""Days after the last login from a network until it is no longer known."""
MAX_KNOWN: Final = 100_000
"""Rows in the table; those with the oldest last login are dropped."""
MAX_NETWORKS: Final = 200
"""Networks of one user; the one with the oldest last login is dropped."""
MAX_OF_ANYBODY: Final = 20_000
"""Networks that anybody has logged in from; the one with the oldest last login is dropped."""
KEY_SIZE: Final = 32
LARGEST_FILE: Final = 16 << 20
_MAGIC: Final = b"mailserver known networks 1\n"
_CHECKSUM_SIZE: Final = 16
_DAY: Final = 86400
_LAST_DAY: Final = 0xFFFF
_ANYBODY: Final = "\0"
"""The name in the rows of networks alone: no user has it (`schemes.passwd.normalise`)."""

Row = tuple[int, int]
"""A digest, and the day (since 1970) of the last login."""


class DamagedTable(ValueError):
    """The octets are not a whole table."""


class KnownNetworks:
    """The table of known networks. Not thread-safe."""

    def __init__(self, key: bytes | None = None, wall: Callable[[], float] = time.time) -> None:
        """`key`: for the digests; a random one if None. `wall`: Unix time."""
        self.key = key or secrets.token_bytes(KEY_SIZE)
        self._wall = wall
        self._digests = array("Q")
        self._days = array("H")
        self.on_change: Callable[[list[Row]], None] = lambda _rows: None
        """Called with the rows that a login here has changed: only the first one from a network each day."""

    def __len__(self) -> int:
        return len(self._digests)

    def is_known(self, pair: Pair) -> bool:
        """Has the user logged in from that network within KEEP_DAYS?"""
        return self._is_kept(self._digest(pair))

    def is_network_known(self, network: str) -> bool:
        """Has any user logged in from that network within KEEP_DAYS?"""
        return self._is_kept(self.network_digest(network))

    def is_digest_known(self, digest: int) -> bool:
        """Likewise, by the network's `network_digest`."""
        return self._is_kept(digest)

    def add(self, pair: Pair) -> None:
        """Note that the user has logged in from that network."""
        digest, today = self._digest(pair), self._today()
        has_room = self._count_of_user(digest >> 32) < MAX_NETWORKS or self.is_known(pair)
        rows = [(digest, today)]
        if has_room or self.is_network_known(pair[1]):
            rows.append((self.network_digest(pair[1]), today))
        if changed := [row for row in rows if self._note(*row)]:
            self.on_change(changed)

    def merge(self, rows: Iterable[Row]) -> bool:
        """Merge rows of another process. Return True if they changed anything here."""
        today = self._today()
        return sum(self._note(digest, min(day, today)) for digest, day in rows) > 0

    def to_bytes(self) -> bytes:
        """Serialize the table and its key, for the file and for a worker that starts."""
        digests, days = _little_endian(self._digests), _little_endian(self._days)
        body = _MAGIC + self.key + len(self).to_bytes(4, "little") + digests.tobytes() + days.tobytes()
        return body + _checksum(body)

    def load(self, data: bytes) -> None:
        """Replace table and key by serialized ones (`to_bytes`), without expired rows. Raises: DamagedTable."""
        body, checksum = data[:-_CHECKSUM_SIZE], data[-_CHECKSUM_SIZE:]
        start = len(_MAGIC) + KEY_SIZE
        number = int.from_bytes(body[start : start + 4], "little")
        end = start + 4 + 8 * number
        if not body.startswith(_MAGIC) or _checksum(body) != checksum or len(body) != end + 2 * number:
            raise DamagedTable("not a whole table of known networks")
        digests, days = array("Q", body[start + 4 : end]), array("H", body[end:])
        oldest = self._today() - KEEP_DAYS
        self.key = body[len(_MAGIC) : start]
        rows = zip(_little_endian(digests), _little_endian(days), strict=True)
        self._replace([row for row in rows if row[1] >= oldest][:MAX_KNOWN])

    def network_digest(self, network: str) -> int:
        """The digest of a network's own row."""
        return self._digest((_ANYBODY, network))

    def _today(self) -> int:
        return min(max(int(self._wall()) // _DAY, 0), _LAST_DAY)

    def _digest(self, pair: Pair) -> int:
        name, network = (part.encode("utf-8", "surrogatepass") for part in pair)
        of_user = hashlib.blake2b(name, key=self.key, digest_size=4).digest()
        of_pair = hashlib.blake2b(name + b"\0" + network, key=self.key, digest_size=4).digest()
        return int.from_bytes(of_user + of_pair, "big")

    def _is_kept(self, digest: int) -> bool:
        at = bisect_left(self._digests, digest)
        found = at < len(self._digests) and self._digests[at] == digest
        return found and self._days[at] >= self._today() - KEEP_DAYS

    def _note(self, digest: int, day: int) -> bool:
        at = bisect_left(self._digests, digest)
        if at < len(self._digests) and self._digests[at] == digest:
            if self._days[at] >= day:
                return False
            self._days[at] = day
            return True
        self._drop_oldest_of_user(digest >> 32, MAX_OF_ANYBODY if digest >> 32 == self._anybody else MAX_NETWORKS)
        if len(self._digests) >= MAX_KNOWN:
            self._drop_oldest()
        at = bisect_left(self._digests, digest)
        self._digests.insert(at, digest)
        self._days.insert(at, day)
        return True

    @property
    def _anybody(self) -> int:
        """The first 4 octets of networks' own rows."""
        return self.network_digest("") >> 32

    def _range_of_user(self, user: int) -> tuple[int, int]:
        return bisect_left(self._digests, user << 32), bisect_left(self._digests, (user + 1) << 32)

    def _count_of_user(self, user: int) -> int:
        first, last = self._range_of_user(user)
        return last - first

    def _drop_oldest_of_user(self, user: int, limit: int) -> None:
        first, last = self._range_of_user(user)
        if last - first >= limit:
            oldest = min(range(first, last), key=self._days.__getitem__)
            del self._digests[oldest], self._days[oldest]

    def _drop_oldest(self) -> None:
        """Drop a hundredth of the table at once, as the search for the oldest rows takes some milliseconds."""
        excess = max(1, MAX_KNOWN // 100)
        going: dict[int, int] = {}
        for day, number in sorted(Counter(self._days).items()):
            going[day] = min(number, excess - sum(going.values()))
        rows = []
        for row in zip(self._digests, self._days, strict=True):
            if going[row[1]]:
                going[row[1]] -= 1
            else:
                rows.append(row)
        self._replace(rows)

    def _replace(self, rows: list[Row]) -> None:
        self._digests = array("Q", (digest for digest, _day in rows))
        self._days = array("H", (day for _digest, day in rows))


def validate_rows(value: object, limit: int) -> list[Row]:
    """Validate rows of another process, decoded from JSON, at most `limit`. Raises: ValueError."""
    if not isinstance(value, list) or len(value) > limit:
        raise ValueError("malformed rows of known networks")
    rows = []
    for row in value:
        match row:
            case [int(digest), int(day)] if 0 <= digest < 1 << 64 and 0 <= day <= _LAST_DAY:
                rows.append((digest, day))
            case _:
                raise ValueError("malformed row of known networks")
    return rows


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_SIZE).digest()


def _little_endian(numbers: array[int]) -> array[int]:
    """Convert from the machine's byte order to little-endian, or back."""
    numbers = numbers[:]
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
