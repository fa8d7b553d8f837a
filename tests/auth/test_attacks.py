"""A user whose password is guessed from many networks."""

from __future__ import annotations

import pytest

from mailserver.auth import attacks
from mailserver.auth.attacks import ATTACK, OVER_AFTER
from mailserver.auth.penalties import Penalties
from mailserver.types import Secret

ANNA = "anna@example.test"
HOME = (ANNA, "192.0.2.0/24")
NEW = (ANNA, "198.51.100.0/24")


class Site:
    def __init__(self) -> None:
        self.now = 0.0
        self.table = Penalties(lambda: self.now, 1.0, 15.0)

    def attack(self, failures: int = ATTACK, name: str = ANNA, *, start: int = 0) -> None:
        """One wrong password from each of many networks."""
        for number in range(start, start + failures):
            self.table.failed((name, f"10.0.{number}.0/24"), Secret(b"wrong%d" % number))


@pytest.fixture
def site() -> Site:
    return Site()


def test_strangers_wait_and_the_user_where_it_was_before_does_not(site: Site) -> None:
    site.table.succeeded(HOME)
    site.attack()
    assert site.table.turn(HOME) == 0
    assert site.table.turn(NEW) == 15
    # It is slowed, not locked out; and then it is known.
    site.table.succeeded(NEW)
    assert site.table.turn(NEW) == 0


def test_a_stranger_that_fails_starts_at_the_longest_delay(site: Site) -> None:
    site.attack()
    assert site.table.failed(NEW, Secret(b"x")) == 15


def test_who_mistypes_at_home_is_slowed_as_ever(site: Site) -> None:
    site.table.succeeded(HOME)
    site.attack()
    assert [site.table.failed(HOME, Secret(b"a%d" % number)) for number in range(3)] == [1, 2, 4]


def test_fewer_failures_are_no_attack(site: Site) -> None:
    site.attack(ATTACK - 1)
    assert site.table.turn(NEW) == 0
    site.attack(1, start=ATTACK)
    assert site.table.turn(NEW) == 15


def test_a_stale_password_is_no_attack(site: Site) -> None:
    for _ in range(2 * ATTACK):
        site.table.failed(NEW, Secret(b"stale"))
    assert site.table.turn((ANNA, "203.0.113.0/24")) == 0


def test_failures_at_home_are_no_attack(site: Site) -> None:
    site.table.succeeded(HOME)
    for number in range(2 * ATTACK):
        site.table.failed(HOME, Secret(b"guess%d" % number))
    assert site.table.turn(NEW) == 0


def test_other_users_are_not_slowed(site: Site) -> None:
    site.attack()
    assert site.table.turn(("ben@example.test", NEW[1])) == 0


def test_an_attack_is_over_after_a_pause(site: Site) -> None:
    site.attack()
    site.now += OVER_AFTER + 1
    assert site.table.turn(NEW) == 0
    site.attack(1)
    assert site.table.turn(NEW) == 0


def test_attempts_of_a_stranger_at_once_get_turns_one_after_another(site: Site) -> None:
    site.attack()
    assert [site.table.turn(NEW) for _ in range(3)] == [15, 30, 45]


def test_memory_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "MAX_KNOWN", 3)
    monkeypatch.setattr(attacks, "MAX_USERS", 3)
    site.table.succeeded(HOME)
    for number in range(5):
        site.table.succeeded((ANNA, f"172.16.{number}.0/24"))
        site.attack(1, f"user{number}")
    assert len(site.table._strangers.known) == 3
    assert len(site.table._strangers._counts) == 3
    site.attack()
    assert site.table.turn(HOME) == 15


def test_a_process_that_begins_learns_both(site: Site) -> None:
    site.table.succeeded(HOME)
    site.attack()
    other = Site()
    for news in site.table.all():
        other.table.take(news)
    assert other.table.turn(HOME) == 0
    assert other.table.turn(NEW) == 15


def test_other_processes_learn_of_a_success_once(site: Site) -> None:
    told: list[object] = []
    site.table.on_change = told.append
    site.table.succeeded(HOME)
    site.table.succeeded(HOME)
    assert told == [["succeeded", *HOME]]
