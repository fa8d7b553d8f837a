"""Counts of guesses by client: the names and the wrong passwords that it has tried within WINDOW seconds.

The same wrong password again, as from a program with an old one, counts once, for whatever name. A client that tries it
again within WINDOW seconds for days has still tried one. Of SCRAM no password is seen, and each proof differs: so each name
counts as one password, and the proofs are counted besides, with a bound that a program with an old password does not reach. Names and passwords are kept as digests. The tables are bounded: by the
clients, by the digests of one client, and by all digests; the client whose last guess is the oldest is dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import define, field, frozen

LOCAL: Final = "local"
"""The peer at a Unix socket."""
WINDOW: Final = 600.0
"""Seconds for which a guess counts."""
PROOFS_OF: Final = 60.0
"""Seconds whose wrong proofs are counted together."""
MAX_CLIENTS: Final = 20_000
MAX_OF_CLIENT: Final = 100
"""Names, and passwords, that are kept of one client. Further ones are not new: they are neither counted nor logged."""
MAX_DIGESTS: Final = 100_000
"""Names and passwords of all clients, about 100 octets each."""


@frozen
class Guess:
    """A refused attempt whose password, proof or certificate was wrong."""

    peer: str
    """The client's address; "local" for a Unix socket."""
    name: str
    """The full name that was tried; logged nowhere."""
    shown: str
    """The name as logs may show it."""
    digest: str
    """A keyed digest that distinguishes one password from another, in hexadecimal."""
    protocol: str
    id: str
    """The attempt's id in the log."""
    is_proof: bool = False
    """Was it a proof of SCRAM? The digest is then that of the name."""


def peer_text(address: IPv4Address | IPv6Address | None) -> str:
    """The address for a `Guess`; an IPv4-mapped address is shown as IPv4."""
    if address is None:
        return LOCAL
    return str(address.ipv4_mapped or address) if isinstance(address, IPv6Address) else str(address)


@define
class _Client:
    names: dict[int, float] = field(factory=dict)
    """Digest -> the time of the last try, the oldest first."""
    passwords: dict[int, float] = field(factory=dict)
    """Likewise."""
    proofs: dict[int, int] = field(factory=dict)
    """Part of the time, PROOFS_OF seconds long -> wrong proofs in it, the oldest first."""


@frozen
class Counted:
    """The numbers of a client within the window."""

    is_new: bool
    """Is the guess neither a repetition nor one too many?"""
    names: int
    passwords: int
    proofs: int = 0


class GuessCounts:
    """The counts of all clients. Not thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: monotonic seconds."""
        self._clock = clock
        self._clients: OrderedDict[int, _Client] = OrderedDict()
        self._digests = 0

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def digests(self) -> int:
        """Digests of all clients."""
        return self._digests

    def add(self, client: int, name: str, password: str, *, is_proof: bool = False) -> Counted:
        """Count a guess of a client, given by its number (`banned_clients`)."""
        now = self._clock()
        found = self._clients.get(client)
        if found is None:
            found = self._clients[client] = _Client()
        self._clients.move_to_end(client)
        for table in (found.names, found.passwords):
            self._expire(table, now)
        is_new_name = self._note(found.names, hash(name), now)
        is_new_password = self._note(found.passwords, hash(password), now)
        while len(self._clients) > 1 and (len(self._clients) > MAX_CLIENTS or self._digests > MAX_DIGESTS):
            self.forget(next(iter(self._clients)))
        proofs = self._count_proofs(found.proofs, now, int(is_proof))
        return Counted(is_new_name or is_new_password, len(found.names), len(found.passwords), proofs)

    def forget(self, client: int) -> None:
        """Forget the guesses of a client."""
        found = self._clients.pop(client, None)
        if found is not None:
            self._digests -= len(found.names) + len(found.passwords)

    @staticmethod
    def _count_proofs(proofs: dict[int, int], now: float, more: int) -> int:
        """Count so many more, and return those within the window."""
        part = int(now // PROOFS_OF)
        for old in [each for each in proofs if each <= part - WINDOW // PROOFS_OF]:
            del proofs[old]
        if more:
            proofs[part] = proofs.get(part, 0) + more
        return sum(proofs.values())

    def _expire(self, table: dict[int, float], now: float) -> None:
        while table:
            oldest = next(iter(table))
            if now - table[oldest] <= WINDOW:
                break
            del table[oldest]
            self._digests -= 1

    def _note(self, table: dict[int, float], digest: int, now: float) -> bool:
        """Note a digest; is it new?"""
        if table.pop(digest, None) is not None:
            table[digest] = now
            return False
        if len(table) >= MAX_OF_CLIENT:
            return False
        table[digest] = now
        self._digests += 1
        return True
