"""The way of a recipient."""

from __future__ import annotations

import pytest

from mailserver.config.kinds import HostName, NextHop, Port
from mailserver.config.model.outbound import Delivery, DeliveryTLS, Route
from mailserver.errors import RelayRefused
from mailserver.queue.model import Target
from mailserver.queue.routing import Routes, Way, key_of

MX = Delivery(mx=True)


def names(text: str) -> tuple[HostName, ...]:
    return tuple(HostName(each) for each in text.split())


def route(host: str, senders: str = "", recipients: str = "", *, port: int = 25, user: str = "") -> Route:
    return Route(
        host=NextHop(host),
        port=Port(port),
        user=user,
        sender_domains=names(senders),
        recipient_domains=names(recipients),
    )


BOTH = route("both.test", "a.test", "z.test")
SENDER = route("sender.test", "a.test b.test")
RECIPIENT = route("recipient.test", "", "y.test z.test")
ANY = route("any.test")
ALL = [ANY, RECIPIENT, SENDER, BOTH]


@pytest.mark.parametrize(
    ("sender", "recipient", "expected"),
    [
        ("a.test", "z.test", BOTH),
        ("a.test", "y.test", SENDER),
        ("b.test", "z.test", SENDER),
        ("c.test", "z.test", RECIPIENT),
        ("c.test", "x.test", ANY),
        ("", "z.test", RECIPIENT),
        ("", "x.test", ANY),
        ("A.TEST", "Z.Test", BOTH),
        ("sub.a.test", "sub.z.test", ANY),
        ("c.test", "[192.0.2.1]", ANY),
    ],
    ids=str,
)
@pytest.mark.parametrize("order", [ALL, ALL[::-1]], ids=["general first", "special first"])
def test_the_more_special_route_is_taken(order: list[Route], sender: str, recipient: str, expected: Route) -> None:
    assert Routes(order, MX).find(sender, recipient).route is expected


def test_among_equals_the_first_is_taken() -> None:
    routes = [route("one.test", "a.test"), route("two.test", "a.test"), route("three.test"), route("four.test")]
    made = Routes(routes, Delivery())
    assert made.find("a.test", "z.test").route is routes[0]
    assert made.find("b.test", "z.test").route is routes[2]


def test_without_a_route_the_hosts_of_the_domain_take_it() -> None:
    made = Routes([RECIPIENT], MX)
    assert made.find("a.test", "X.Test") == Way("x.test", None, "x.test")
    assert made.find("a.test", "[IPv6:2001:db8::1]").key == "[ipv6:2001:db8::1]"


@pytest.mark.parametrize(
    ("delivery", "recipient"), [(Delivery(), "x.test"), (MX, "")], ids=["no delivery by MX", "no domain"]
)
def test_what_leads_nowhere_is_refused(delivery: Delivery, recipient: str) -> None:
    with pytest.raises(RelayRefused) as refused:
        Routes([RECIPIENT, SENDER], delivery).find("c.test", recipient)
    assert refused.value.smtp_reply == (550, "5.7.1")


def test_a_route_for_any_mail_takes_no_address_without_a_domain() -> None:
    with pytest.raises(RelayRefused):
        Routes([ANY], MX).find("a.test", "")


def test_keys_group_what_waits_for_one_hop_and_one_login() -> None:
    assert key_of(route("hop.test", "a.test")) == key_of(route("hop.test", "", "b.test")) == "relay:hop.test:25"
    others = {key_of(each) for each in (route("hop.test", port=26), route("hop.test", user="anna"), route("h"))}
    assert others == {"relay:hop.test:26", "relay:anna@hop.test:25", "relay:h:25"}
    Target("x@b.test", key_of(route("hop.test", user="anna@example.org"))).check()


def test_no_domain_has_the_key_of_a_hop() -> None:
    assert key_of(ANY).startswith("relay:")
    for domain in ("relay", "relay.any.test", "[IPv6:2001:db8::1]"):
        assert not Routes([], MX).find("", domain).key.startswith("relay:")


def test_tls_is_chosen_by_the_domain_of_the_recipient() -> None:
    delivery = Delivery(
        mx=True,
        tls=(DeliveryTLS(names("a.test")), DeliveryTLS(names("B.test a.test"), "verified")),
    )
    made = Routes([], delivery)
    assert [made.find("", each).tls for each in ("a.test", "b.test", "c.test")] == [
        "required",
        "verified",
        "opportunistic",
    ]


def test_a_way_costs_the_same_with_many_routes() -> None:
    class Counted(dict):  # type: ignore[type-arg]
        asked = 0

        def get(self, *arguments: object) -> object:
            self.asked += 1
            return super().get(*arguments)  # type: ignore[call-overload]

    made = Routes([route(f"h{number}.test", "", f"d{number}.test") for number in range(1000)], MX)
    counted = made._by_domains = Counted(made._by_domains)
    assert made.find("a.test", "d999.test").route is not None
    assert counted.asked <= 4
