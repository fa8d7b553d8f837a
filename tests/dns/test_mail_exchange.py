from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from mailserver.dns.mail_exchange import (
    MOST_ADDRESSES,
    MOST_HOSTS,
    Address,
    MailHost,
    NoMailDomain,
    NoRoute,
    NullMX,
    find_mail_hosts,
)
from mailserver.dns.query import Answer, BadName, DNSFailure, MailExchange, Question, encode_question
from mailserver.errors import MailError
from tests.dns.running import result_of

FAILS = DNSFailure()


class Zone:
    """A resolver that knows a table: "NAME TYPE" -> data, or a failure. Other types of its names are empty."""

    def __init__(self, **records: object) -> None:
        self.records: dict[str, object] = {}
        self.asked: list[str] = []

    async def ask(self, question: Question) -> Answer:
        encode_question(question, 1)  # refuses what is no name
        key = f"{question.name} {question.kind}"
        self.asked.append(key)
        found = self.records.get(key)
        if isinstance(found, MailError):
            raise found
        names = {each.split()[0] for each in self.records}
        if found is None:
            return Answer((), 60, exists=question.name in names)
        assert isinstance(found, list)
        return Answer(tuple(found), 60)


def zone(records: dict[str, object]) -> Zone:
    made = Zone()
    made.records = records
    return made


def mx(*pairs: tuple[int, str]) -> list[MailExchange]:
    return [MailExchange(preference, host) for preference, host in pairs]


def addresses(*texts: str) -> list[Address]:
    return [ip_address(text) for text in texts]


def hosts(
    resolver: Zone,
    domain: str = "example.test",
    *,
    ipv6: bool = True,
    refused: Callable[[Address], bool] = lambda _address: False,
) -> list[tuple[str, str]]:
    found = result_of(
        find_mail_hosts(resolver, domain, ipv6=ipv6, is_refused=refused, shuffle=lambda each: each.reverse())
    )
    return [(each.host, str(each.address)) for each in found]


def test_preferences_and_versions_in_turns() -> None:
    resolver = zone(
        {
            "example.test MX": mx((20, "far.test"), (10, "near.test")),
            "near.test AAAA": addresses("2001:db8::1", "2001:db8::2"),
            "near.test A": addresses("192.0.2.1"),
            "far.test A": addresses("192.0.2.9"),
        }
    )
    assert hosts(resolver) == [
        ("near.test", "2001:db8::1"),
        ("near.test", "192.0.2.1"),
        ("near.test", "2001:db8::2"),
        ("far.test", "192.0.2.9"),
    ]
    assert hosts(resolver, ipv6=False) == [("near.test", "192.0.2.1"), ("far.test", "192.0.2.9")]


def test_equal_preferences_are_shuffled_before_they_are_sorted() -> None:
    resolver = zone(
        {
            "example.test MX": mx((10, "a.test"), (10, "b.test"), (5, "c.test")),
            **{f"{name}.test A": addresses(f"192.0.2.{at}") for at, name in enumerate("abc")},
        }
    )
    assert [host for host, _ in hosts(resolver)] == ["c.test", "b.test", "a.test"]


def test_a_host_named_twice_counts_once_with_its_best_preference() -> None:
    resolver = zone({"example.test MX": mx((10, "a.test"), (5, "a.test")), "a.test A": addresses("192.0.2.1")})
    found = result_of(find_mail_hosts(resolver, "example.test"))
    assert found == [MailHost("a.test", ip_address("192.0.2.1"), 5)]


def test_a_domain_without_mx_is_its_own_host() -> None:
    assert hosts(zone({"example.test A": addresses("192.0.2.1")})) == [("example.test", "192.0.2.1")]


def test_the_null_mx() -> None:
    resolver = zone({"example.test MX": mx((0, "")), "example.test A": addresses("192.0.2.1")})
    with pytest.raises(NullMX) as refused:
        hosts(resolver)
    assert refused.value.smtp_reply == (556, "5.1.10")
    mixed = zone({"example.test MX": mx((0, ""), (10, "a.test")), "a.test A": addresses("192.0.2.1")})
    assert hosts(mixed) == [("a.test", "192.0.2.1")]


def test_no_domain() -> None:
    with pytest.raises(NoMailDomain) as refused:
        hosts(zone({}))
    assert refused.value.smtp_reply == (550, "5.1.2")
    with pytest.raises(BadName):
        hosts(zone({}), "a..b")


def test_an_mx_that_is_no_host_does_not_mean_the_domain_itself() -> None:
    resolver = zone(
        {"example.test MX": mx((1, "a\\.b.test"), (2, "x y.test")), "example.test A": addresses("192.0.2.1")}
    )
    with pytest.raises(NoRoute) as refused:
        hosts(resolver)
    assert refused.value.smtp_reply == (550, "5.4.4")
    assert resolver.asked == ["example.test MX"]


def test_hosts_without_addresses() -> None:
    with pytest.raises(NoRoute):
        hosts(zone({"example.test MX": mx((1, "a.test"), (2, "b.test"))}))


def test_a_failure_waits_and_is_no_absence() -> None:
    with pytest.raises(DNSFailure):
        hosts(zone({"example.test MX": FAILS, "example.test A": addresses("192.0.2.1")}))
    unknown = zone({"example.test MX": mx((1, "a.test")), "a.test A": FAILS, "a.test AAAA": FAILS})
    with pytest.raises(DNSFailure):
        hosts(unknown)
    half = zone({"example.test MX": mx((1, "a.test")), "a.test A": FAILS})
    with pytest.raises(DNSFailure):
        hosts(half)
    other = zone({"example.test MX": mx((1, "a.test")), "a.test AAAA": FAILS, "a.test A": addresses("192.0.2.1")})
    assert hosts(other) == [("a.test", "192.0.2.1")]
    later = zone(
        {"example.test MX": mx((1, "a.test"), (2, "b.test")), "a.test A": FAILS, "b.test A": addresses("192.0.2.2")}
    )
    assert hosts(later) == [("b.test", "192.0.2.2")]


def test_refused_addresses_are_never_dialled() -> None:
    resolver = zone(
        {
            "example.test MX": mx((1, "a.test"), (2, "b.test")),
            "a.test A": addresses("127.0.0.1"),
            "a.test AAAA": addresses("::ffff:127.0.0.1", "::1"),
            "b.test A": addresses("192.0.2.2"),
        }
    )
    assert hosts(resolver, refused=lambda each: each.is_loopback) == [("b.test", "192.0.2.2")]
    with pytest.raises(NoRoute):
        hosts(zone({"example.test A": addresses("127.0.0.1")}), refused=lambda each: each.is_loopback)


def test_a_refused_address_beside_a_failure_waits() -> None:
    resolver = zone(
        {"example.test MX": mx((1, "a.test"), (2, "b.test")), "a.test A": addresses("127.0.0.1"), "b.test A": FAILS}
    )
    with pytest.raises(DNSFailure):
        hosts(resolver, refused=lambda each: each.is_loopback)


def test_bounds() -> None:
    many = zone(
        {
            "example.test MX": mx(*((at, f"h{at}.test") for at in range(200))),
            **{f"h{at}.test A": addresses(f"192.0.2.{at}") for at in range(200)},
        }
    )
    assert len(hosts(many)) == MOST_ADDRESSES
    assert len(many.asked) == 1 + 2 * MOST_ADDRESSES
    empty = zone({"example.test MX": mx(*((at, f"h{at}.test") for at in range(200)))})
    with pytest.raises(NoRoute):
        hosts(empty)
    assert len(empty.asked) == 1 + 2 * MOST_HOSTS


@pytest.mark.parametrize(
    ("domain", "address"),
    [("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:db8::1]", "2001:db8::1"), ("[ipv6:2001:db8::1]", "2001:db8::1")],
    ids=["v4", "v6", "small"],
)
def test_address_literals(domain: str, address: str) -> None:
    resolver = zone({})
    assert hosts(resolver, domain) == [("", address)]
    assert resolver.asked == []


@pytest.mark.parametrize(
    "domain",
    ["[]", "[x]", "[2001:db8::1]", "[IPv6:192.0.2.1]", "[IPv6:fe80::1%eth0]", "[256.0.0.1]", "[x400:y]"],
)
def test_what_is_no_address_literal(domain: str) -> None:
    with pytest.raises(NoMailDomain):
        hosts(zone({}), domain)


def test_a_literal_of_a_refused_address() -> None:
    for domain in ("[127.0.0.1]", "[IPv6:::1]", "[IPv6:::ffff:127.0.0.1]"):
        with pytest.raises(NoRoute):
            hosts(zone({}), domain, refused=lambda each: each.is_loopback)
