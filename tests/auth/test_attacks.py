"""A user whose password is guessed from many networks."""

from __future__ import annotations

import pytest

from mailserver.auth.throttling import attacks
from mailserver.auth.throttling.attacks import ATTACK_FAILURES, OVER_AFTER
from mailserver.auth.throttling.penalties import Penalties
from mailserver.types import Secret

ANNA = "anna@example.test"
HOME = (ANNA, "192.0.2.0/24")
NEW = (ANNA, "198.51.100.0/24")


class Site:
    def __init__(self) -> None:
        self.now = 0.0
        self.table = Penalties(lambda: self.now, 1.0, 15.0)

    def attack(self, failures: int = ATTACK_FAILURES, name: str = ANNA, *, start: int = 0) -> None:
        """One wrong password from each of many networks."""
        for number in range(start, start + failures):
            self.table.failed((name, f"10.0.{number}.0/24"), Secret(b"wrong%d" % number))


@pytest.fixture
def site() -> Site:
    return Site()


def test_unknown_networks_share_a_rate_and_those_where_the_user_was_before_do_not(site: Site) -> None:
    site.table.succeeded(HOME)
    site.attack()
    assert not site.table.shares_rate(HOME)
    assert site.table.shares_rate(NEW)
    assert site.table.take_turn(NEW) == 0, "and its first attempt pays no delay"
    site.table.succeeded(NEW)
    assert not site.table.shares_rate(NEW)


def test_an_unknown_network_that_fails_starts_at_the_longest_delay(site: Site) -> None:
    site.attack()
    assert site.table.failed(NEW, Secret(b"x")) == 15


def test_who_mistypes_at_home_is_slowed_as_ever(site: Site) -> None:
    site.table.succeeded(HOME)
    site.attack()
    assert [site.table.failed(HOME, Secret(b"a%d" % number)) for number in range(3)] == [1, 2, 4]


def test_fewer_failures_are_no_attack(site: Site) -> None:
    site.attack(ATTACK_FAILURES - 1)
    assert not site.table.shares_rate(NEW)
    site.attack(1, start=ATTACK_FAILURES)
    assert site.table.shares_rate(NEW)


def test_a_stale_password_is_no_attack(site: Site) -> None:
    for _ in range(2 * ATTACK_FAILURES):
        site.table.failed(NEW, Secret(b"stale"))
    assert not site.table.shares_rate((ANNA, "203.0.113.0/24"))


def test_failures_at_home_are_no_attack_and_no_guessing_network(site: Site) -> None:
    site.table.succeeded(HOME)
    for number in range(2 * ATTACK_FAILURES):
        site.table.failed(HOME, Secret(b"guess%d" % number))
    assert not site.table.shares_rate(NEW)
    assert not site.table.attacks.has_guessed(HOME[1])


def test_other_users_are_not_slowed(site: Site) -> None:
    site.attack()
    assert not site.table.shares_rate(("ben@example.test", NEW[1]))


def test_an_attack_is_over_after_a_pause(site: Site) -> None:
    site.attack()
    site.now += OVER_AFTER + 1
    assert not site.table.shares_rate(NEW)
    site.attack(1)
    assert not site.table.shares_rate(NEW)


def test_a_network_that_guesses_is_remembered_for_a_while(site: Site) -> None:
    site.attack(1, "ben@example.test")
    assert site.table.attacks.has_guessed("10.0.0.0/24")
    assert not site.table.attacks.has_guessed("10.0.1.0/24")
    site.now += OVER_AFTER + 1
    assert not site.table.attacks.has_guessed("10.0.0.0/24")


def test_memory_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "MAX_NETWORKS", 3)
    monkeypatch.setattr(attacks, "MAX_USERS", 3)
    for number in range(5):
        site.attack(1, f"user{number}", start=number)
    assert len(site.table.attacks._networks) == 3
    assert len(site.table.attacks._counts) == 3


def test_a_process_that_begins_learns_of_it(site: Site) -> None:
    site.attack()
    other = Site()
    for news in site.table.snapshot():
        other.table.apply(news)
    assert other.table.shares_rate(NEW)


def test_other_processes_are_told_of_what_is_forgiven_alone(site: Site) -> None:
    told: list[object] = []
    site.table.on_change = told.append
    site.table.succeeded(HOME)
    assert told == [], "that it is known is told by the table of known networks"
    site.table.failed(HOME, Secret(b"wrong"))
    site.table.succeeded(HOME)
    site.table.succeeded(HOME)
    assert told[1:] == [["succeeded", *HOME]]
