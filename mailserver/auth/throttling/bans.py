"""Bans: addresses that have guessed too much, which are refused for a while by all processes.

The problems. Delays make guesses slow, and each still costs a connection and a hash. A ban that is wrong shuts out people:
those of an office behind one address, or everybody behind a reverse proxy that sends no PROXY header.

The rules. A client (an IPv4 address, or the /64 of IPv6) is banned when it has tried too many names, too many wrong passwords
or too many proofs within the window of `guess_counts`. It is never banned if any user is known from its network
(`known_networks`), if it is in `never`, at loopback and on the local link. The server itself bans no private address,
as that may be a proxy's, unless `private` says so; and nobody until the first user is known from anywhere, as
until then a proxy cannot be told from an attacker. A login lifts the bans of its network, except those of the administrator. The first ban
lasts `time`, each further one within KEEP_TIMES after the last four times as long, up to MAX_TIME.

In the process, bans end by the monotonic clock: a change of the system's clock moves none. A file has the system's time. A ban
that is read lasts no longer than it would have lasted in all, so a clock that was set back extends none beyond that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from attrs import evolve, frozen

from mailserver.auth.throttling.banned_clients import (
    FIRST_OF_IPV6,
    MAX_BANS,
    BanChange,
    client_name,
    client_number,
)
from mailserver.auth.throttling.guess_counts import LOCAL, WINDOW, Guess, GuessCounts
from mailserver.auth.throttling.known_networks import KnownNetworks

MAX_TIME: Final = 86_400.0
"""Seconds of the longest ban that the server makes by itself, unless the first one is longer."""
MAX_ADDED_TIME: Final = 366 * 86_400.0
"""Seconds of the longest ban that the administrator can add."""
KEEP_TIMES: Final = 7 * 86_400.0
"""Seconds after the end of a ban for which it still makes the next one longer."""
FACTOR: Final = 4
MAX_EXPONENT: Final = 30
"""The power of FACTOR, at most: a larger one would overflow."""
MAX_REASON: Final = 200
"""Characters of a reason."""
SERVER: Final = "server"
ADMINISTRATOR: Final = "administrator"

Network = IPv4Network | IPv6Network


class CannotBan(ValueError):
    """A client cannot be banned; the text says why."""


@frozen
class BanRules:
    """Settings of the server's own bans, and the networks that are never banned."""

    enabled: bool = True
    never: tuple[Network, ...] = ()
    names: int = 10
    guesses: int = 30
    time: float = 3600.0
    private: bool = False
    """Ban private addresses, too."""


@frozen
class Ban:
    """A ban, or one that has ended and makes the next one longer."""

    number: int
    """The client's (`banned_clients`)."""
    reason: str
    by: str
    """SERVER or ADMINISTRATOR."""
    since: float
    """Unix time."""
    until: float
    """Unix time, like `since` by the clock as it was when the ban was made."""
    times: int
    """How often the client was banned, with this ban."""
    end: float = 0.0
    """Monotonic time."""

    @property
    def client(self) -> str:
        """An IPv4 address, or a /64 of IPv6."""
        return client_name(self.number)

    def by_clock(self, now: float, wall: float) -> Ban:
        """The ban with beginning and end by the system's clock as it is now, which may have been set since."""
        until = wall + (self.end - now)
        return evolve(self, since=until - (self.until - self.since), until=until)


class Bans:
    """The bans of the server and the guesses that lead to them. Not thread-safe."""

    def __init__(self, known: KnownNetworks, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        """`known`: networks that users have logged in from. `clock`: monotonic seconds. `wall`: Unix time."""
        self._known = known
        self._clock = clock
        self._wall = wall
        self._bans: dict[int, Ban] = {}
        self._networks: dict[int, int] = {}
        """Digest of a network -> its first client, of those with bans of the server; and of some that had one."""
        self._rules = BanRules()
        self._never: list[tuple[int, int, Network]] = []
        self.counts = GuessCounts(clock)
        self.on_change: Callable[[list[BanChange]], None] = lambda _changes: None
        """Called with the changes that the processes that serve must apply."""

    def __len__(self) -> int:
        now = self._clock()
        return sum(ban.end > now for ban in self._bans.values())

    @property
    def rules(self) -> BanRules:
        """The settings."""
        return self._rules

    def configure(self, rules: BanRules) -> list[Ban]:
        """Use other settings. Return the bans that are lifted, as they are of clients that are now never banned."""
        self._rules = rules
        self._never = [(*_clients_of(network), network) for network in rules.never]
        now = self._clock()
        return self._lift(ban for ban in self._bans.values() if ban.end > now and self._is_spared(ban))

    def active(self) -> list[Ban]:
        """The bans that have not ended, the latest first, with times by the system's present clock."""
        now, wall = self._clock(), self._wall()
        found = [ban.by_clock(now, wall) for ban in self._bans.values() if ban.end > now]
        return sorted(found, key=lambda ban: -ban.since)

    def shown(self, ban: Ban) -> Ban:
        """A ban with times by the system's present clock."""
        return ban.by_clock(self._clock(), self._wall())

    def seconds_left(self, ban: Ban) -> float:
        """The seconds until a ban ends."""
        return max(0.0, ban.end - self._clock())

    def snapshot(self) -> Callable[[], list[Ban]]:
        """Return a function that makes the rows of the file, also in a thread: bans, and ended ones that still count."""
        now, wall, bans = self._clock(), self._wall(), list(self._bans.values())
        return lambda: [ban.by_clock(now, wall) for ban in bans if ban.end > now - KEEP_TIMES]

    def changes(self) -> list[BanChange]:
        """All bans, for a process that begins."""
        now = self._clock()
        return [(ban.number, ban.end - now) for ban in self._bans.values() if ban.end > now]

    def restore(self, bans: Iterable[Ban]) -> list[BanChange]:
        """Take bans of a file, whose `end` is not used, except those that may no longer be, and clients banned since.

        Return the changes for processes that serve already; `on_change` is not called.
        """
        now, wall = self._clock(), self._wall()
        changes: list[BanChange] = []
        for ban in bans:
            whole = max(0.0, ban.until - ban.since)
            if ban.by == SERVER:
                whole = min(whole, max(MAX_TIME, self._rules.time))
            end = now + max(min(ban.until - wall, whole, MAX_ADDED_TIME), -KEEP_TIMES)
            if ban.number in self._bans or self._is_spared(ban):
                continue
            digest = self._known.network_digest(_network_name(ban.number)) if ban.by == SERVER else None
            if digest is None or not self._known.is_digest_known(digest):
                since, until, times = ban.since, ban.until, ban.times
                self._add(Ban(ban.number, ban.reason, ban.by, since, until, times, end), digest)
                if end > now:
                    changes.append((ban.number, end - now))
        return changes

    def guess(self, guess: Guess) -> tuple[bool, Ban | None]:
        """Count a guess. Return whether it is new, and the ban that it leads to. Raises: ValueError for no address."""
        number = 0 if guess.peer == LOCAL else client_number(ip_address(guess.peer))
        counted = self.counts.add(number, guess.name, guess.digest, is_proof=guess.is_proof)
        rules = self._rules
        if not rules.enabled or self._is_banned(number):
            return counted.is_new, None
        if counted.names >= rules.names:
            reason = f"tried {counted.names} names within {WINDOW / 60:.0f} minutes"
        elif counted.passwords >= rules.guesses:
            reason = f"tried {counted.passwords} wrong passwords within {WINDOW / 60:.0f} minutes"
        elif counted.proofs >= MAX_PROOFS:
            reason = f"tried {counted.proofs} wrong proofs within {WINDOW / 60:.0f} minutes"
        else:
            return counted.is_new, None
        if not len(self._known) or self._exemption(number) or self._is_private(number):
            return counted.is_new, None
        if self._known.is_network_known(_network_name(number)):
            return counted.is_new, None
        return counted.is_new, self._ban(number, reason, SERVER, self._next_time(number))

    def add(self, client: str, reason: str, seconds: float | None, *, force: bool) -> Ban:
        """Ban a client for the administrator, for `seconds` or as long as the server would. Raises: CannotBan.

        `force`: also where a user is known from its network.
        """
        number = parse_client(client)
        if fault := self._exemption(number):
            raise CannotBan(f"{client} is never banned: {fault}")
        if not force and self._known.is_network_known(_network_name(number)):
            raise CannotBan(
                f"users have logged in from the network of {client_name(number)} within 90 days, and would be shut out;"
                " --force bans it all the same"
            )
        return self._ban(number, reason, ADMINISTRATOR, self._next_time(number) if seconds is None else seconds)

    def remove(self, client: str) -> Ban | None:
        """Lift a ban and forget it. Return it; None if there is none. Raises: CannotBan."""
        ban = self._bans.get(parse_client(client))
        if ban is None or ban.end <= self._clock():
            return None
        self._lift([ban])
        return ban

    def users_came(self, digests: Iterable[int]) -> list[Ban]:
        """Lift the server's bans in networks that are known now; `digests` are rows of `known_networks`."""
        now = self._clock()
        found = [
            ban
            for digest in digests
            if (first := self._networks.get(digest)) is not None
            for number in range(first, first + _clients_in_network(first))
            if (ban := self._bans.get(number)) is not None and ban.by == SERVER and ban.end > now
        ]
        return self._lift(found)

    # --- Inside

    def _is_banned(self, number: int) -> bool:
        ban = self._bans.get(number)
        return ban is not None and ban.end > self._clock()

    def _is_spared(self, ban: Ban) -> bool:
        """Is it a ban that would not be made now?"""
        return bool(self._exemption(ban.number)) or (ban.by == SERVER and self._is_private(ban.number))

    def _is_private(self, number: int) -> bool:
        """Is it an address that the server itself does not ban, as many clients may come through it?"""
        return not self._rules.private and any(first <= number <= last for first, last in _PRIVATE)

    def _exemption(self, number: int) -> str:
        """Why a client is never banned; empty if it may be."""
        if number == 0 or number >> 24 == _LOOPBACK:
            return "it is this machine (loopback), or an address of the local link"
        for first, last, network in self._never:
            if first <= number <= last:
                return f"{network} is in [bans] never, or in proxy_from of a listener"
        return ""

    def _next_time(self, number: int) -> float:
        """Seconds of the client's next ban."""
        most = max(MAX_TIME, self._rules.time)
        return min(self._rules.time * float(FACTOR ** min(self._times(number), MAX_EXPONENT)), most)

    def _times(self, number: int) -> int:
        """How often the client was banned lately."""
        ban = self._bans.get(number)
        return 0 if ban is None or ban.end <= self._clock() - KEEP_TIMES else ban.times

    def _ban(self, number: int, reason: str, by: str, seconds: float) -> Ban:
        now, wall = self._clock(), self._wall()
        ban = Ban(number, reason[:MAX_REASON], by, wall, wall + seconds, self._times(number) + 1, now + seconds)
        self._add(ban)
        self.counts.forget(number)
        self.on_change([(number, seconds)])
        return ban

    def _add(self, ban: Ban, digest: int | None = None) -> None:
        """`digest`: of the client's network, if it was computed."""
        if ban.number not in self._bans and len(self._bans) >= MAX_BANS:
            self._make_room()
        self._bans[ban.number] = ban
        if ban.by == SERVER:
            self._note_network(ban.number, digest)

    def _note_network(self, number: int, digest: int | None = None) -> None:
        if len(self._networks) >= 2 * MAX_BANS:
            # Those without a ban go with the others, which are noted again.
            self._networks.clear()
            for ban in self._bans.values():
                if ban.by == SERVER:
                    self._note_network(ban.number)
        if digest is None:
            digest = self._known.network_digest(_network_name(number))
        self._networks[digest] = number - number % _clients_in_network(number)

    def _make_room(self) -> None:
        """Drop a hundredth of the table, those that end first: the search takes some tens of milliseconds."""
        now = self._clock()
        oldest = sorted(self._bans.values(), key=lambda ban: ban.end)[: MAX_BANS // 100]
        for ban in oldest:
            del self._bans[ban.number]
        self.on_change([(ban.number, 0.0) for ban in oldest if ban.end > now])

    def _lift(self, bans: Iterable[Ban]) -> list[Ban]:
        lifted = list(bans)
        for ban in lifted:
            del self._bans[ban.number]
            self.counts.forget(ban.number)
        if lifted:
            self.on_change([(ban.number, 0.0) for ban in lifted])
        return lifted


MAX_PROOFS: Final = 100
"""Wrong proofs of SCRAM within the window. An old password in two programs makes fewer: the delay of their pair is 15 s."""
_LOOPBACK: Final = 127
_LARGER: Final = "a ban is of one IPv4 address or one /64 of IPv6; refuse larger networks in the firewall"


def parse_client(text: str) -> int:
    """The number of the client that somebody names: an address, or the /64 of one. Raises: CannotBan."""
    address, _, length = text.strip().partition("/")
    try:
        parsed = ip_address(address)
    except ValueError:
        raise CannotBan(f"{text[:60]!r} is no IP address") from None
    if length not in ("", str(parsed.max_prefixlen), *(["64"] if parsed.version == 6 else [])):
        raise CannotBan(_LARGER)
    return client_number(parsed)


def _clients_of(network: Network) -> tuple[int, int]:
    """The first and the last client that have an address in a network.

    Of IPv6 networks whose addresses are made of IPv4 ones (`embedded_ipv4`), only one that is a single client's counts, or
    is below ::ffff:0:0/96: the others would be all of IPv4.
    """
    first, last = client_number(network.network_address), client_number(network.broadcast_address)
    if isinstance(network, IPv6Network):
        is_mapped = network.network_address.ipv4_mapped is not None
        if last < FIRST_OF_IPV6 and (first == last or is_mapped):
            return first, last
        return max(int(network.network_address) >> 64, FIRST_OF_IPV6), int(network.broadcast_address) >> 64
    return first, last


def _clients_in_network(number: int) -> int:
    """How many clients a network of `penalties.network_of` has: addresses in a /24, or /64 in a /48."""
    return 256 if number < FIRST_OF_IPV6 else 65_536


def _network_name(number: int) -> str:
    """The network of a client, as `penalties.network_of` has it, in a tenth of the time."""
    if number >= FIRST_OF_IPV6:
        groups = f"{number >> 48:x}:{number >> 32 & 0xFFFF:x}:{number >> 16 & 0xFFFF:x}"
        while groups.endswith(":0"):
            groups = groups[:-2]
        return f"{groups}::/48"
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.0/24"


_PRIVATE: Final = tuple(
    _clients_of(ip_network(each))
    # RFC 1918, RFC 6598, RFC 3927, RFC 4193.
    for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7")
)
