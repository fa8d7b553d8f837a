"""Known networks: from which networks each user has logged in, remembered for 90 days and over restarts.

The problems. A flood of guesses must not keep out a user at a place where it has logged in before, whatever the flood's
size and however short a time the server has run. A list of who logs in from where is personal data. A user with many
networks must not push those of others out.

The rules. A pair of user name and network is known once a login from there has succeeded. It is kept as one keyed digest
of 8 octets and the day of its last login: the first 4 octets are of the name, so that a user's networks lie together in the
sorted array and are bounded for each user; the last 4 are of name and network. The key lies beside them in the file, so
that a copy of the digests alone tells nothing. All processes have the same key and the same table.

What a stranger can learn. Only attempts from a known network are treated as such, so that nobody outside of it sees any
difference. Whoever shares a user's network can see under load that the user has logged in from there, and no more. A name
that no user has is never known, and an existing user's unknown network is treated as that name is. A false match needs
the digest of a strange network to be one of the at most 200 of that user: 1 in 20 million.

Rejected: names and networks in clear (personal data in a file and in every process); SQLite (a query for each attempt,
where a search of the array takes 2 microseconds); a Bloom filter (it cannot forget).
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
"""Days after the last login from a network until it is unknown again."""
MAX_KNOWN: Final = 100_000
"""Pairs; those whose last login is longest ago make room."""
MAX_NETWORKS: Final = 200
"""Networks of one user; the one whose last login is longest ago makes room."""
KEY_SIZE: Final = 32
LARGEST_FILE: Final = 16 << 20
_MAGIC: Final = b"mailserver known networks 1\n"
_CHECK_SIZE: Final = 16
_DAY: Final = 86400
_LAST_DAY: Final = 0xFFFF

Row = tuple[int, int]
"""A digest, and the day (since 1970) of the last login."""


class Damaged(ValueError):
    """The octets are not those of a table."""


class KnownNetworks:
    """The table. Not to be used from several threads."""

    def __init__(self, key: bytes | None = None, wall: Callable[[], float] = time.time) -> None:
        """`key` is for the digests; a new one when None. `wall` is Unix time."""
        self.key = key or secrets.token_bytes(KEY_SIZE)
        self._wall = wall
        self._digests = array("Q")
        self._days = array("H")
        self.on_news: Callable[[list[Row]], None] = lambda _rows: None
        """Called with what a login here has changed: the first of a day from a network."""

    def __len__(self) -> int:
        return len(self._digests)

    def is_known(self, pair: Pair) -> bool:
        """Has the user logged in from that network within KEEP_DAYS?"""
        digest = self._digest(pair)
        at = bisect_left(self._digests, digest)
        found = at < len(self._digests) and self._digests[at] == digest
        return found and self._days[at] >= self._today() - KEEP_DAYS

    def welcome(self, pair: Pair) -> None:
        """The user has logged in from that network."""
        row = self._digest(pair), self._today()
        if self._note(*row):
            self.on_news([row])

    def merge(self, rows: Iterable[Row]) -> bool:
        """Take what another process has noted. True if it was new here."""
        today = self._today()
        return sum(self._note(digest, min(day, today)) for digest, day in rows) > 0

    def to_bytes(self) -> bytes:
        """The table with its key, for the file and for a worker that begins."""
        digests, days = _in_order(self._digests), _in_order(self._days)
        body = _MAGIC + self.key + len(self).to_bytes(4, "little") + digests.tobytes() + days.tobytes()
        return body + _check(body)

    def load(self, data: bytes) -> None:
        """Replace the table and the key by those of `to_bytes`, without what is too old. Raises: Damaged."""
        body, check = data[:-_CHECK_SIZE], data[-_CHECK_SIZE:]
        start = len(_MAGIC) + KEY_SIZE
        number = int.from_bytes(body[start : start + 4], "little")
        end = start + 4 + 8 * number
        if not body.startswith(_MAGIC) or _check(body) != check or len(body) != end + 2 * number:
            raise Damaged("it is not a table of known networks, or a part of one")
        digests, days = array("Q", body[start + 4 : end]), array("H", body[end:])
        oldest = self._today() - KEEP_DAYS
        self.key = body[len(_MAGIC) : start]
        rows = zip(_in_order(digests), _in_order(days), strict=True)
        self._replace([row for row in rows if row[1] >= oldest][:MAX_KNOWN])

    def _today(self) -> int:
        return min(max(int(self._wall()) // _DAY, 0), _LAST_DAY)

    def _digest(self, pair: Pair) -> int:
        name, network = (part.encode("utf-8", "surrogatepass") for part in pair)
        of_user = hashlib.blake2b(name, key=self.key, digest_size=4).digest()
        of_pair = hashlib.blake2b(name + b"\0" + network, key=self.key, digest_size=4).digest()
        return int.from_bytes(of_user + of_pair, "big")

    def _note(self, digest: int, day: int) -> bool:
        at = bisect_left(self._digests, digest)
        if at < len(self._digests) and self._digests[at] == digest:
            if self._days[at] >= day:
                return False
            self._days[at] = day
            return True
        self._make_room_of_user(digest >> 32)
        if len(self._digests) >= MAX_KNOWN:
            self._make_room()
        at = bisect_left(self._digests, digest)
        self._digests.insert(at, digest)
        self._days.insert(at, day)
        return True

    def _make_room_of_user(self, user: int) -> None:
        first, last = bisect_left(self._digests, user << 32), bisect_left(self._digests, (user + 1) << 32)
        if last - first >= MAX_NETWORKS:
            oldest = min(range(first, last), key=self._days.__getitem__)
            del self._digests[oldest], self._days[oldest]

    def _make_room(self) -> None:
        """Let a hundredth go at once: to look for the oldest takes some milliseconds."""
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


def rows_of(told: object, most: int) -> list[Row]:
    """Validate rows from another process, as JSON, at most so many. Raises: ValueError for anything else."""
    if not isinstance(told, list) or len(told) > most:
        raise ValueError("no rows of known networks")
    rows = []
    for row in told:
        match row:
            case [int(digest), int(day)] if 0 <= digest < 1 << 64 and 0 <= day <= _LAST_DAY:
                rows.append((digest, day))
            case _:
                raise ValueError("no row of known networks")
    return rows


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_SIZE).digest()


def _in_order(numbers: array[int]) -> array[int]:
    """Little-endian from the machine's order, or back."""
    numbers = numbers[:]
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
