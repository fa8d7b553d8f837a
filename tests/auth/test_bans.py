"""Bans: what leads to one, how long it lasts, who is never banned, and what a change of the clock does."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.auth.throttling import bans as module
from mailserver.auth.throttling.ban_file import STEP, DamagedBans, from_text, to_text
from mailserver.auth.throttling.banned_clients import MAX_BANS, BannedClients, client_name, client_number
from mailserver.auth.throttling.bans import (
    ADMINISTRATOR,
    KEEP_TIMES,
    MAX_PROOFS,
    SERVER,
    Ban,
    BanRules,
    Bans,
    CannotBan,
)
from mailserver.auth.throttling.guess_counts import MAX_OF_CLIENT, WINDOW, Guess, GuessCounts
from mailserver.auth.throttling.known_networks import KnownNetworks
from mailserver.auth.throttling.penalties import network_of
from mailserver.types import client_of

ATTACKER = "192.0.2.7"
BYSTANDER = "192.0.2.8"
HOUR = 3600.0
NUMBER = client_number(ip_address(ATTACKER))


def read(data: bytes) -> list[Ban]:
    return list(chain.from_iterable(from_text(data)))


class Site:
    """A table of bans, the table of a worker, and their clocks."""

    def __init__(self, rules: BanRules | None = None, known: KnownNetworks | None = None) -> None:
        self.now = 1000.0
        self.wall = 1_800_000_000.0
        self.known = KnownNetworks() if known is None else known
        if known is None:
            self.known.add(("root", network_of(ip_address("203.0.113.99"))))
        self.bans = Bans(self.known, lambda: self.now, lambda: self.wall)
        self.bans.configure(rules or BanRules())
        self.worker = BannedClients(lambda: self.now)
        self.bans.on_change = self.worker.apply

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    def guess(self, name: str, password: str, peer: str = ATTACKER) -> Ban | None:
        return self.bans.guess(Guess(peer, name, name, password, "imap", "1.1"))[1]

    def is_banned(self, peer: str = ATTACKER) -> bool:
        banned = any(ban.client.split("/")[0] == peer for ban in self.bans.active())
        assert self.worker.is_banned(ip_address(peer)) == banned
        return banned

    def ban(self, peer: str = ATTACKER) -> Ban:
        found = [ban for number in range(10) if (ban := self.guess(f"user{number}", "secret", peer))]
        assert len(found) == 1
        return found[0]

    def again(self) -> Site:
        """The server after a restart."""
        site = Site(self.bans.rules, self.known)
        site.now, site.wall = 5.0, self.wall
        site.bans.restore(read(to_text(self.bans.snapshot()())))
        site.worker.apply(site.bans.changes())
        return site


def test_the_tenth_name_bans_and_the_bystander_is_served() -> None:
    site = Site()
    for number in range(9):
        assert site.guess(f"user{number}", "secret") is None
    assert not site.is_banned()
    ban = site.guess("user9", "secret")
    assert ban is not None
    assert ban.reason == "tried 10 names within 10 minutes"
    assert (ban.client, ban.by, ban.times, ban.until - ban.since) == (ATTACKER, SERVER, 1, HOUR)
    assert site.is_banned()
    assert not site.is_banned(BYSTANDER)


def test_the_thirtieth_password_bans_and_the_same_one_never() -> None:
    site = Site()
    for _ in range(500):
        site.guess("anna", "old")
        site.advance(1)
    for number in range(28):
        site.guess("anna", f"wrong{number}")
    site.guess("anna", "old")
    assert not site.is_banned()
    ban = site.guess("anna", "wrong28")
    assert ban is not None
    assert ban.reason == "tried 30 wrong passwords within 10 minutes"


def test_one_wrong_password_for_three_spellings_of_a_name_is_one() -> None:
    site = Site(BanRules(guesses=2, names=10))
    for name in ("anna", "anna@example.test", "anna@example.org"):
        site.guess(name, "old")
    assert not site.is_banned()
    assert site.guess("anna", "other") is not None


def test_guesses_count_for_ten_minutes() -> None:
    site = Site()
    for number in range(9):
        site.guess(f"user{number}", "secret")
    site.advance(WINDOW + 1)
    assert site.guess("user9", "secret") is None
    site = Site()
    for number in range(60):
        site.guess("anna", f"wrong{number}")
        site.advance(21)
    assert not site.is_banned(), "29 in ten minutes"


def test_a_ban_ends_and_the_next_is_four_times_as_long_up_to_a_day() -> None:
    site = Site()
    lengths = []
    for _ in range(5):
        ban = site.ban()
        lengths.append((ban.until - ban.since) / HOUR)
        site.advance(ban.until - ban.since - 1)
        assert site.is_banned()
        site.advance(1)
        assert not site.is_banned()
    assert lengths == [1, 4, 16, 24, 24]
    site.advance(KEEP_TIMES)
    ban = site.ban()
    assert (ban.times, ban.until - ban.since) == (1, HOUR)


def test_hundreds_of_bans_do_not_overflow() -> None:
    site = Site()
    for _ in range(1100):
        ban = site.bans.add(ATTACKER, "", None, force=False)
        site.advance(ban.until - ban.since)
    assert (ban.times, ban.until - ban.since) == (1100, 24 * HOUR)


def test_a_configured_time_beyond_a_day_is_not_shortened() -> None:
    site = Site(BanRules(time=48 * HOUR))
    for _ in range(2):
        ban = site.ban()
        assert ban.until - ban.since == 48 * HOUR
        site.advance(48 * HOUR)


def test_ipv6_is_banned_by_its_64_and_mapped_ipv4_as_ipv4() -> None:
    site = Site()
    for number in range(10):
        ban = site.guess(f"user{number}", "secret", f"2001:db8::{number + 1:x}")
    assert ban is not None
    assert ban.client == "2001:db8::/64"
    assert site.worker.is_banned(ip_address("2001:db8::ffff:1"))
    assert not site.worker.is_banned(ip_address("2001:db8:0:1::1"))
    site.bans.add(ATTACKER, "", 10, force=False)
    assert site.worker.is_banned(ip_address(f"::ffff:{ATTACKER}"))
    assert not site.worker.is_banned(ip_address("::c000:207")), "the same octets, and another address"


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "local", "::ffff:127.0.0.1"])
def test_loopback_and_unix_sockets_never(peer: str) -> None:
    site = Site()
    for number in range(200):
        assert site.guess(f"user{number}", f"wrong{number}", peer) is None
    assert len(site.bans) == 0
    if peer != "local":
        with pytest.raises(CannotBan, match="loopback"):
            site.bans.add(peer, "", 10, force=True)


def test_never_holds_also_for_the_administrator_and_lifts_what_is() -> None:
    site = Site(BanRules(never=(ip_network("192.0.2.0/29"), ip_network("2001:db8::1/128"))))
    for number in range(200):
        assert site.guess(f"user{number}", f"wrong{number}") is None
    with pytest.raises(CannotBan, match=r"192\.0\.2\.7 is never banned: 192\.0\.2\.0/29 is in \[bans\] never"):
        site.bans.add(ATTACKER, "", 10, force=True)
    with pytest.raises(CannotBan, match="never"):
        site.bans.add("2001:db8::2", "its /64 has an address that is never banned", 10, force=True)
    site.ban(BYSTANDER)
    assert site.bans.configure(BanRules(never=(ip_network("192.0.2.8/32"),)))[0].client == BYSTANDER
    assert not site.is_banned(BYSTANDER)


def test_all_of_ipv6_is_not_all_of_ipv4() -> None:
    site = Site(BanRules(never=(ip_network("::/0"),)))
    assert site.ban().client == ATTACKER
    with pytest.raises(CannotBan):
        site.bans.add("2001:db8::1", "", 10, force=True)
    site = Site(BanRules(never=(ip_network("0.0.0.0/0"),)))
    assert site.ban("2001:db8::1").client == "2001:db8::/64"
    with pytest.raises(CannotBan):
        site.bans.add(ATTACKER, "", 10, force=True)


def test_a_network_of_any_user_is_never_banned_unless_forced() -> None:
    site = Site()
    site.known.add(("carl@example.test", network_of(ip_address(BYSTANDER))))
    for number in range(200):
        assert site.guess(f"user{number}", f"wrong{number}") is None
    with pytest.raises(CannotBan, match=r"users have logged in from the network of 192\.0\.2\.7 within 90 days"):
        site.bans.add(ATTACKER, "", 10, force=False)
    site.bans.add(ATTACKER, "it is a scanner", 10, force=True)
    assert site.is_banned()
    site.bans.users_came([site.known.network_digest(network_of(ip_address(ATTACKER)))])
    assert site.is_banned(), "the administrator's stays"


def test_a_login_lifts_the_bans_of_its_network() -> None:
    site = Site()
    site.ban()
    site.ban("198.51.100.1")
    assert site.bans.users_came([site.known.network_digest("203.0.113.0/24")]) == []
    lifted = site.bans.users_came([site.known.network_digest(network_of(ip_address(BYSTANDER)))])
    assert [ban.client for ban in lifted] == [ATTACKER]
    assert not site.is_banned()
    assert site.is_banned("198.51.100.1")


def test_nobody_is_banned_by_the_server_where_it_is_off() -> None:
    site = Site(BanRules(enabled=False))
    for number in range(200):
        assert site.guess(f"user{number}", f"wrong{number}") is None
    site.bans.add(ATTACKER, "", 10, force=False)
    assert site.is_banned()


def test_a_ban_can_be_removed_and_its_count_begins_anew() -> None:
    site = Site()
    site.ban()
    assert site.bans.remove(ATTACKER) is not None
    assert not site.is_banned()
    assert site.bans.remove(ATTACKER) is None
    assert site.ban().times == 1


@pytest.mark.parametrize("client", ["", "x", "192.0.2.0/24", "2001:db8::/48", "0.0.0.0/0", "192.0.2.7 or so"])
def test_what_is_no_client_is_refused(client: str) -> None:
    site = Site()
    with pytest.raises(CannotBan):
        site.bans.add(client, "", 10, force=True)
    with pytest.raises(CannotBan):
        site.bans.remove(client)


def test_a_restart_keeps_bans_and_how_often() -> None:
    site = Site()
    site.ban()
    site.bans.add("2001:db8::5", "a scanner", 100, force=False)
    site.advance(50)
    site = site.again()
    assert [(ban.client, ban.by, ban.reason) for ban in site.bans.active()] == [
        (ATTACKER, SERVER, "tried 10 names within 10 minutes"),
        ("2001:db8::/64", ADMINISTRATOR, "a scanner"),
    ]
    site.advance(51)
    assert site.worker.is_banned(ip_address(ATTACKER))
    assert not site.worker.is_banned(ip_address("2001:db8::5"))
    site.advance(HOUR)
    site = site.again()
    assert not site.is_banned()
    ban = site.ban()
    assert (ban.times, ban.until - ban.since) == (2, 4 * HOUR)


def test_a_restart_keeps_no_ban_that_may_no_longer_be() -> None:
    site = Site()
    site.ban()
    site.ban("198.51.100.1")
    site.bans._rules = BanRules(never=(ip_network("192.0.2.0/24"),))
    site.known.add(("anna", "198.51.100.0/24"))
    assert site.again().bans.active() == []


@pytest.mark.parametrize("jump", [-10 * 365 * 86_400.0, -HOUR, HOUR, 10 * 365 * 86_400.0])
def test_a_jump_of_the_clock_moves_no_ban(jump: float) -> None:
    site = Site()
    site.ban()
    site.wall += jump
    site.advance(HOUR - 1)
    assert site.is_banned()
    site = site.again()
    assert site.is_banned(), "the file has ends by the present clock"
    site.advance(2)
    assert not site.is_banned()


@pytest.mark.parametrize("jump", [-10 * 365 * 86_400.0, -HOUR])
def test_a_clock_set_back_while_the_server_is_stopped_makes_no_ban_longer_than_it_was(jump: float) -> None:
    site = Site()
    site.ban()
    site.advance(100)
    saved = to_text(site.bans.snapshot()())
    again = Site()
    again.wall = site.wall + jump
    again.bans.restore(read(saved))
    again.worker.apply(again.bans.changes())
    again.advance(HOUR - 101)
    assert again.is_banned()
    again.advance(102)
    assert not again.is_banned()


def test_a_file_cannot_ban_for_longer_than_the_server_does() -> None:
    site = Site()
    site.bans.restore([Ban(NUMBER, "", SERVER, site.wall, site.wall + 1e12, 1)])
    site.advance(24 * HOUR + 1)
    assert len(site.bans) == 0


@pytest.mark.parametrize("cut", [0, 1, 20, 60, -1, -2])
def test_a_damaged_file_is_noticed(cut: int) -> None:
    site = Site()
    site.ban()
    data = to_text(site.bans.snapshot()())
    damaged = (
        data[:cut] if cut not in (-1, -2) else data.replace(b"192.0.2.7", b"192.0.2.x") if cut == -1 else data + data
    )
    with pytest.raises(DamagedBans):
        read(damaged)


def test_a_file_of_nonsense_is_damaged() -> None:
    head = b'{"mailserver bans": 1, "rows": 1}\n'
    row = b'{"client": "192.0.2.7", "since": 1, "until": %b, "times": %b, "by": "server", "reason": ""}\n'
    assert read(head + row % (b"2", b"1"))
    for until, times in (
        (b"NaN", b"1"),
        (b"Infinity", b"1"),
        (b"1e999", b"1"),
        (b'"2"', b"1"),
        (b"2", b"0"),
        (b"2", b"1.5"),
    ):
        with pytest.raises(DamagedBans):
            read(head + row % (until, times))
    with pytest.raises(DamagedBans):
        read(b"[" * 200_000)


def test_the_table_is_bounded_and_those_that_end_first_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BANS", 200)
    site = Site()
    for number in range(300):
        site.bans.add(f"198.51.{number // 250}.{number % 250}", "", 1000 + number, force=False)
        assert len(site.bans) <= 200
    left = {ban.client for ban in site.bans.active()}
    assert f"198.51.{299 // 250}.{299 % 250}" in left
    assert "198.51.0.0" not in left
    assert len(site.worker) == len(left)


def test_a_hundred_thousand_bans_take_few_octets_and_a_search_of_17_steps() -> None:
    table = BannedClients(lambda: 0.0)
    table.apply([(number, 60.0) for number in range(0, 2 * MAX_BANS, 2)])
    assert len(table) == MAX_BANS
    assert table._clients.itemsize * len(table) + table._ends.itemsize * len(table) == 16 * MAX_BANS
    assert table.is_banned(ip_address(2 * MAX_BANS - 2))
    assert not table.is_banned(ip_address(2 * MAX_BANS - 1))
    table.apply([(1, 120.0)])
    assert len(table) == MAX_BANS * 99 // 100, "those that end first have gone, some at once"
    assert table.is_banned(ip_address("0.0.0.1"))


def test_the_worker_is_called_for_new_bans_alone() -> None:
    called: list[None] = []
    table = BannedClients(lambda: 0.0)
    table.on_banned = lambda: called.append(None)
    table.apply([(1, 60.0)])
    table.apply([(1, 0.0), (2, -1.0)])
    assert len(called) == 1
    assert len(table) == 0


def test_guesses_are_new_once_and_bounded_for_each_client() -> None:
    counts = GuessCounts(lambda: 0.0)
    assert counts.add(1, "anna", "1").is_new
    assert not counts.add(1, "anna", "1").is_new
    assert counts.add(1, "ben", "1").is_new
    for number in range(2 * MAX_OF_CLIENT):
        counts.add(1, f"user{number}", f"wrong{number}")
    assert not counts.add(1, "one more", "one more").is_new
    assert counts.digests == 2 * MAX_OF_CLIENT
    counts.forget(1)
    assert counts.digests == len(counts) == 0


def test_counts_are_bounded_over_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailserver.auth.throttling.guess_counts.MAX_CLIENTS", 50)
    monkeypatch.setattr("mailserver.auth.throttling.guess_counts.MAX_DIGESTS", 80)
    counts = GuessCounts(lambda: 0.0)
    for number in range(500):
        counts.add(number, "anna", "1")
        counts.add(number, "anna", "2")
        assert len(counts) <= 50
        assert counts.digests <= 80
    assert not counts.add(499, "anna", "1").is_new, "the latest are kept"


@pytest.mark.parametrize("client", ["192.0.2.7", "0.0.0.1", "255.255.255.255", "2001:db8::/64", "2001:db8:0:1::/64"])
def test_numbers_are_of_one_client_each(client: str) -> None:
    assert client_name(client_number(ip_address(client.partition("/")[0]))) == client


def test_the_digests_of_networks_are_bounded_and_none_with_a_ban_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BANS", 100)
    site = Site()
    for number in range(1000):
        site.ban(f"11.{number >> 8}.{number & 255}.1")
        assert len(site.bans._networks) <= 200
    for ban in site.bans.active():
        network = network_of(ip_address(ban.client))
        assert [lifted.client for lifted in site.bans.users_came([site.known.network_digest(network)])] == [ban.client]


def test_a_login_lifts_all_bans_of_a_network_of_ipv6() -> None:
    site = Site()
    for client in ("2001:db8::1", "2001:db8:0:ffff::1", "2001:db8:1::1"):
        site.ban(client)
    lifted = site.bans.users_came([site.known.network_digest("2001:db8::/48")])
    assert {ban.client for ban in lifted} == {"2001:db8::/64", "2001:db8:0:ffff::/64"}


EMBEDDED = {
    "mapped": "::ffff:192.0.2.7",
    "nat64": "64:ff9b::c000:207",
    "local-nat64": "64:ff9b:1::c000:207",
    "6to4": "2002:c000:207::1",
    "6to4-elsewhere-in-the-site": "2002:c000:207:7::99",
    "teredo": "2001:0:4136:e378:8000:63bf:3fff:fdf8",
}


@pytest.mark.parametrize("peer", EMBEDDED.values(), ids=EMBEDDED)
def test_an_address_made_of_an_ipv4_address_is_banned_as_that_one_and_no_neighbour_is(peer: str) -> None:
    site = Site()
    assert site.ban(peer).client == ATTACKER
    assert site.worker.is_banned(ip_address(peer))
    assert site.worker.is_banned(ip_address(ATTACKER))
    assert client_of(ip_address(peer)) == ATTACKER
    assert network_of(ip_address(peer)) == "192.0.2.0/24"
    for neighbour in ("64:ff9b::c000:208", "2002:c000:208::1", "2001:0:4136:e378:8000:63bf:3fff:fdf7", BYSTANDER):
        assert not site.worker.is_banned(ip_address(neighbour))


def test_addresses_of_the_local_link_are_never_banned_as_one_and_are_counted_apart() -> None:
    site = Site(BanRules(private=True))
    for number in range(50):
        assert site.guess(f"user{number}", "secret", "fe80::1%eth0") is None
    assert site.bans.active() == []
    for peer in ("fe80::1", "fe80::/64", "febf::1"):
        with pytest.raises(CannotBan, match="local link"):
            site.bans.add(peer, "", None, force=True)
    assert client_of(ip_address("fe80::1%eth0")) == client_of(ip_address("fe80::1%eth1")) == "fe80::1"
    assert client_of(ip_address("fe80::2")) == "fe80::2"
    assert site.ban("fec0::1").client == "fec0::/64"


@pytest.mark.parametrize(
    ("never", "exempt", "others"),
    [
        ("64:ff9b::/96", (), (ATTACKER, "64:ff9b::c000:207")),
        ("2002::/16", (), (ATTACKER, "2002:c000:207::1")),
        ("2001::/32", (), (ATTACKER, "2001:0:4136:e378:8000:63bf:3fff:fdf8")),
        ("2002:c000:207::/48", (ATTACKER, "2002:c000:207:9::1"), (BYSTANDER,)),
        ("64:ff9b::c000:207/128", (ATTACKER,), (BYSTANDER,)),
        ("::ffff:192.0.2.0/120", (ATTACKER, BYSTANDER), ("192.0.3.1",)),
        ("2001:db8::/32", ("2001:db8:1::1",), (ATTACKER, "2001:db9::1")),
        ("::/0", ("2001:db8:1::1",), (ATTACKER,)),
    ],
    ids=["nat64", "6to4", "teredo", "6to4-site", "nat64-one", "mapped", "network", "all-of-ipv6"],
)
def test_networks_of_never(never: str, exempt: tuple[str, ...], others: tuple[str, ...]) -> None:
    for peer in exempt:
        site = Site(BanRules(never=(ip_network(never),)))
        assert not [ban for number in range(20) if (ban := site.guess(f"user{number}", "secret", peer))], peer
    for peer in others:
        Site(BanRules(never=(ip_network(never),))).ban(peer)


@pytest.mark.parametrize(
    "peer",
    [
        "10.1.2.3",
        "172.17.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.1.1",
        "fd00::1",
        "64:ff9b::a00:1",
    ],
)
def test_the_server_bans_a_private_address_only_by_configuration_the_administrator_does(peer: str) -> None:
    site = Site()
    for number in range(50):
        assert site.guess(f"user{number}", f"wrong{number}", peer) is None
    ban = site.bans.add(peer, "", None, force=False)
    assert site.worker.is_banned(ip_address(peer))
    assert ban.by == ADMINISTRATOR
    Site(BanRules(private=True)).ban(peer)


@pytest.mark.parametrize(
    "peer", ["172.32.0.1", "11.0.0.1", "100.128.0.1", "9.255.255.255", "fbff:ffff:ffff:ffff::1", "fe00::1"]
)
def test_neighbours_of_private_networks_are_banned(peer: str) -> None:
    Site().ban(peer)


def test_bans_of_private_addresses_end_when_the_configuration_spares_them() -> None:
    site = Site(BanRules(private=True))
    site.ban("10.1.2.3")
    site.bans.add("10.1.2.4", "", None, force=False)
    rows = read(to_text(site.bans.snapshot()()))
    assert [ban.client for ban in site.bans.configure(BanRules())] == ["10.1.2.3"]
    assert not site.worker.is_banned(ip_address("10.1.2.3"))
    other = Site()
    other.bans.restore(rows)
    assert [ban.client for ban in other.bans.active()] == ["10.1.2.4"]


def test_nobody_is_banned_before_the_first_user_is_known() -> None:
    """All of a proxy's clients may come from one address, and none of them has logged in yet."""
    site = Site(known=KnownNetworks())
    for number in range(50):
        assert site.guess(f"user{number}", f"wrong{number}") is None
    site.known.add(("anna", "198.51.100.0/24"))
    assert site.guess("user50", "wrong50") is not None
    proxy = Site(known=KnownNetworks())
    proxy.known.add(("anna", network_of(ip_address(ATTACKER))))
    for number in range(50):
        assert proxy.guess(f"user{number}", f"wrong{number}") is None


def proof(site: Site, name: str, peer: str = ATTACKER) -> Ban | None:
    return site.bans.guess(Guess(peer, name, name, f"digest of {name}", "imap", "1.1", is_proof=True))[1]


def test_the_hundredth_wrong_proof_within_ten_minutes_bans_also_for_one_name() -> None:
    site = Site()
    for _ in range(MAX_PROOFS - 1):
        assert proof(site, "anna") is None
        site.advance(5)
    ban = proof(site, "anna")
    assert ban is not None
    assert ban.reason == "tried 100 wrong proofs within 10 minutes"
    assert site.is_banned()


def test_two_programs_with_an_old_password_prove_too_rarely_for_a_ban() -> None:
    """The delay of a pair is 15 seconds after some failures, and both programs try again at once, for a day."""
    site = Site()
    for _ in range(24 * 240):
        for name in ("anna", "ben"):
            assert proof(site, name) is None
        site.advance(15)


def test_proofs_ban_nobody_in_a_network_of_a_user_nor_old_ones() -> None:
    site = Site()
    for _ in range(MAX_PROOFS - 1):
        proof(site, "anna")
    site.advance(WINDOW + 60)
    assert proof(site, "anna") is None
    for _ in range(10):
        assert site.guess("anna", "old") is None
    site.known.add(("carla", network_of(ip_address(ATTACKER))))
    for _ in range(3 * MAX_PROOFS):
        assert proof(site, "anna") is None


def test_a_file_is_read_in_steps_of_a_bounded_number_and_later_bans_stay() -> None:
    site = Site()
    for number in range(2 * STEP + 1):
        site.bans.add(f"11.0.{number >> 8}.{number & 255}", "", 60.0 + number, force=False)
    text = to_text(site.bans.snapshot()())
    assert [len(rows) for rows in from_text(text)] == [STEP, STEP, 1]
    other = Site()
    other.bans.add("11.0.0.1", "since then", 9999, force=False)
    for rows in from_text(text):
        other.worker.apply(other.bans.restore(rows))
    assert len(other.bans) == 2 * STEP + 1
    assert [ban.reason for ban in other.bans.active() if ban.client == "11.0.0.1"] == ["since then"]
    assert all(other.worker.is_banned(ip_address(ban.client)) for ban in other.bans.active())


def test_a_file_that_is_damaged_behind_its_first_steps_gives_those() -> None:
    site = Site()
    for number in range(2 * STEP):
        site.bans.add(f"11.0.{number >> 8}.{number & 255}", "", None, force=False)
    lines = to_text(site.bans.snapshot()()).splitlines()
    lines[-1] = b'{"client":"nobody"}'
    steps = from_text(b"\n".join(lines))
    assert len(next(steps)) == STEP
    with pytest.raises(DamagedBans):
        next(steps)


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**32 - 1))
def test_the_network_of_a_number_is_that_of_its_addresses(address: int, other: int) -> None:
    for each in (IPv6Address(address), IPv6Address(address >> 64 << 64 & ~(0xFFFF << 80)), IPv4Address(other)):
        if number := client_number(each):
            assert module._network_name(number) == network_of(each)
