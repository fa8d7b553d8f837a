"""Places for the mail of a way: a table stands for the DNS."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mailserver.config.kinds import HostName, Network, NextHop, Port
from mailserver.config.model.outbound import Delivery, DeliveryTLS, Route
from mailserver.dns.mail_exchange import Address
from mailserver.dns.query import BadName, DNSFailure
from mailserver.net.outbound.mx_hosts import MXHosts
from mailserver.net.outbound.place import Place, place_of
from mailserver.queue.outcome import Outcome
from mailserver.queue.routing import Routes
from tests.dns.running import result_of
from tests.dns.test_mail_exchange import addresses, mx, zone

OWN = {("198.51.100.7", 25), ("127.0.0.9", 25)}
NAME = "mail.example.org"
WORLD: dict[str, object] = {
    "two.test MX": mx((20, "b.test"), (10, "a.test")),
    "a.test A": addresses("192.0.2.1"),
    "b.test A": addresses("192.0.2.2"),
    "null.test MX": mx((0, "")),
    "bare.test A": addresses("192.0.2.3"),
    "empty.test TXT": [],
    "slow.test MX": DNSFailure("the resolver does not answer in time"),
    "bad.test MX": BadName(),
    "ours.test MX": mx((10, "a.test"), (20, "here.test"), (30, "b.test")),
    "here.test A": addresses("198.51.100.7"),
    "equal.test MX": mx((10, "here.test"), (10, "a.test")),
    "named.test MX": mx((10, "a.test"), (20, NAME)),
    "only.test MX": mx((20, NAME), (30, "a.test")),
    f"{NAME} A": addresses("203.0.113.1"),
    "loopback.test A": addresses("127.0.0.1", "127.0.0.2"),
    "mapped.test AAAA": addresses("::ffff:127.0.0.1"),
    "nowhere.test AAAA": addresses("::"),
    "private.test A": addresses("10.0.0.1"),
    "mixed.test MX": mx((10, "loopback.test"), (20, "a.test")),
    "own-loopback.test A": addresses("127.0.0.9"),
    "own-mapped.test AAAA": addresses("::ffff:198.51.100.7"),
    "many.test A": addresses(*(f"192.0.2.{number}" for number in range(1, 9))),
}


def is_own(address: Address, port: int) -> bool:
    return (str(address), port) in OWN


def find(domain: str, delivery: Delivery | None = None) -> list[str] | Outcome:
    """The names of the places, or the outcome."""
    delivery = delivery or Delivery(mx=True)
    hosts = MXHosts(zone(WORLD), delivery, NAME.upper() + ".", is_own, shuffle=lambda each: each.reverse())
    found = result_of(hosts.find(Routes([], delivery).find("", domain)))
    return found if isinstance(found, Outcome) else [each.name for each in found]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("two.test", ["a.test[192.0.2.1]", "b.test[192.0.2.2]"]),
        ("bare.test", ["bare.test[192.0.2.3]"]),
        ("mixed.test", ["a.test[192.0.2.1]"]),
        ("private.test", ["private.test[10.0.0.1]"]),
        ("ours.test", ["a.test[192.0.2.1]"]),
        ("named.test", ["a.test[192.0.2.1]"]),
        ("[192.0.2.9]", ["[192.0.2.9]"]),
        ("many.test", [f"many.test[192.0.2.{number}]" for number in range(1, 6)]),
    ],
    ids=[
        "by preference",
        "implicit",
        "refused one",
        "private",
        "ours is second",
        "our name is second",
        "literal",
        "many",
    ],
)
def test_places(domain: str, expected: list[str]) -> None:
    assert find(domain) == expected


@pytest.mark.parametrize(
    ("domain", "result", "status"),
    [
        ("null.test", "failed", "5.1.10"),
        ("no.such.test", "failed", "5.1.2"),
        ("bad.test", "failed", "5.1.2"),
        ("empty.test", "failed", "5.4.4"),
        ("slow.test", "hop_failed", "4.4.3"),
        ("equal.test", "failed", "5.4.6"),
        ("only.test", "failed", "5.4.6"),
        ("own-loopback.test", "failed", "5.4.6"),
        ("own-mapped.test", "failed", "5.4.6"),
        ("[198.51.100.7]", "failed", "5.4.6"),
        ("loopback.test", "failed", "5.4.4"),
        ("mapped.test", "failed", "5.4.4"),
        ("nowhere.test", "failed", "5.4.4"),
        ("[127.0.0.1]", "failed", "5.4.4"),
        ("[IPv6:::1]", "failed", "5.4.4"),
    ],
    ids=str,
)
def test_why_there_is_none(domain: str, result: str, status: str) -> None:
    found = find(domain)
    assert isinstance(found, Outcome)
    assert (found.result, found.status) == (result, status)
    assert domain.strip("[]").lower() in found.text.lower()
    assert found.text.isascii()


def test_the_configuration_says_which_networks_are_refused() -> None:
    here = Delivery(mx=True, refuse_networks=(Network("10.0.0.0/8"),))
    assert find("loopback.test", here) == ["loopback.test[127.0.0.1]", "loopback.test[127.0.0.2]"]
    assert isinstance(find("private.test", here), Outcome)


def test_our_own_address_at_another_port_is_another_server() -> None:
    assert find("here.test", Delivery(mx=True, port=Port(2525))) == ["here.test[198.51.100.7]:2525"]


def test_ipv6_can_be_left_out() -> None:
    found = find("nowhere.test", Delivery(mx=True, ipv6=False, refuse_networks=()))
    assert isinstance(found, Outcome)
    assert found.status == "5.4.4"


def test_a_place_has_the_port_and_the_policy_of_its_domain() -> None:
    delivery = Delivery(mx=True, port=Port(26), tls=(DeliveryTLS((HostName("bare.test"),), "verified"),))
    hosts = MXHosts(zone(WORLD), delivery, NAME, is_own)
    found = result_of(hosts.find(Routes([], delivery).find("", "bare.test")))
    assert found == [Place("192.0.2.3", 26, "bare.test", "verified")]
    assert ip_address(found[0].address)


def test_a_route_asks_no_dns_and_may_be_on_loopback() -> None:
    route = Route(host=NextHop("127.0.0.1"), recipient_domains=(HostName("slow.test"),))
    world = zone(WORLD)
    hosts = MXHosts(world, Delivery(), NAME, is_own)
    assert result_of(hosts.find(Routes([route], Delivery()).find("", "slow.test"))) == [place_of(route)]
    assert world.asked == []
