"""Passwords found right lately: what passes at once, what is asked all the same, and what a look costs."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from mailserver.auth.interfaces import IAuthBackend, User
from mailserver.auth.limits import Limits
from mailserver.auth.throttling import token_buckets, verified_passwords
from mailserver.auth.throttling.penalties import MAX_WAIT
from mailserver.auth.throttling.token_buckets import BURST, REFILL_INTERVAL, TokenBuckets
from mailserver.auth.throttling.verified_passwords import KEEP_TIME, MAX_DIGESTS, VerifiedPasswords
from mailserver.errors import AuthFailed, TooManyLogins
from mailserver.types import Secret
from tests.auth.test_login_throttle import ANNA, HASHING, Site
from tests.auth.test_service import Hashed

RIGHT = Secret(b"right")


class Table:
    def __init__(self) -> None:
        self.now = 0.0
        self.checked = VerifiedPasswords(lambda: self.now, b"k" * 32)


# --- The digests


def test_a_digest_is_of_user_entry_and_password_and_ends_with_its_time() -> None:
    table = Table()
    table.checked.add(ANNA, "{X}1", RIGHT)
    assert table.checked.contains(ANNA, "{X}1", RIGHT)
    for user, stored, password in (
        (ANNA, "{X}2", b"right"),
        (ANNA, "{X}1", b"wrong"),
        ("ben@example.test", "{X}1", b"right"),
        (ANNA, "{X}", b"1right"),
    ):
        assert not table.checked.contains(user, stored, Secret(password))
    table.now += KEEP_TIME
    assert not table.checked.contains(ANNA, "{X}1", RIGHT)


def test_no_password_is_kept() -> None:
    table = Table()
    told: list[Any] = []
    table.checked.on_change = told.append
    table.checked.add(ANNA, "{X}1", Secret(b"hunter2hunter2"))
    assert "hunter2" not in repr([table.checked.__dict__, told, table.checked.snapshot()])
    other = VerifiedPasswords(lambda: 0.0)
    other.apply(told[0])
    assert not other.contains(ANNA, "{X}1", Secret(b"hunter2hunter2")), "another key"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified_passwords, "MAX_USERS", 3)
    table = Table()
    for number in range(2 * MAX_DIGESTS):
        table.checked.add(ANNA, "{X}", Secret(b"%d" % number))
    assert len(table.checked.snapshot()) == MAX_DIGESTS
    assert table.checked.contains(ANNA, "{X}", Secret(b"%d" % (2 * MAX_DIGESTS - 1)))
    for number in range(5):
        table.checked.add(f"user{number}", "{X}", RIGHT)
    assert len(table.checked) == 3
    assert not table.checked.has_any([ANNA])
    table.now += KEEP_TIME
    table.checked.add("late", "{X}", RIGHT)
    assert len(table.checked) == 1


def test_workers_tell_each_other() -> None:
    one, other = Table(), Table()
    one.checked.on_change = other.checked.apply
    one.checked.add(ANNA, "{X}1", RIGHT)
    assert other.checked.contains(ANNA, "{X}1", RIGHT)
    begun = Table()
    one.now += KEEP_TIME - 10
    for news in one.checked.snapshot():
        begun.checked.apply(news)
    assert begun.checked.contains(ANNA, "{X}1", RIGHT)
    begun.now += 10
    assert not begun.checked.contains(ANNA, "{X}1", RIGHT), "it is kept no longer there"


@pytest.mark.parametrize(
    "news", [[], [ANNA], [ANNA, "zz", 1.0], [ANNA, "00", KEEP_TIME + 1], [ANNA, "00", -1], [1, "00", 1]]
)
def test_nonsense_is_refused(news: list[Any]) -> None:
    table = Table()
    with pytest.raises(ValueError):  # noqa: PT011 - two texts
        table.checked.apply(news)
    assert len(table.checked) == 0


# --- The looks


class Budgets:
    def __init__(self) -> None:
        self.clock = Clock()
        self.looks = TokenBuckets(self.clock.seconds, Deferred, self.clock.callLater)
        self.had: list[str] = []

    def wait(self, share: str, longest: float = 20.0) -> Deferred[bool]:
        async def wait() -> bool:
            if await self.looks.wait("key", share, longest):
                self.had.append(share)
                return True
            return False

        return Deferred.fromCoroutine(wait())


def test_some_at_once_then_at_a_rate_and_in_order() -> None:
    budgets = Budgets()
    waiting = [budgets.wait(str(number)) for number in range(BURST + 4)]
    assert len(budgets.had) == BURST
    budgets.clock.pump([0.01] * round(2 * REFILL_INTERVAL / 0.01 + 5))
    assert budgets.had == [str(number) for number in range(BURST + 2)]
    budgets.clock.pump([0.5] * 60)
    assert all(each.called for each in waiting)
    assert [budgets.looks.take("key") for _ in range(BURST + 1)] == [True] * BURST + [False]
    assert budgets.clock.getDelayedCalls() == []


def test_who_waits_too_long_has_none_and_who_hangs_up_takes_none() -> None:
    budgets = Budgets()
    for _ in range(BURST):
        budgets.looks.take("key")
    gone = budgets.wait("gone")
    late = [budgets.wait(str(number), 1.2) for number in range(4)]
    gone.addErrback(lambda _failure: None)
    gone.cancel()
    budgets.clock.pump([0.1] * 30)
    assert budgets.had == ["0", "1"]
    assert [each.result for each in late] == [True, True, False, False]


def test_clients_take_turns_and_a_free_look_goes_to_the_next() -> None:
    budgets = Budgets()
    for _ in range(BURST):
        budgets.looks.take("key")
    for share in ("many", "many", "many", "one"):
        budgets.wait(share)
    for _ in range(2):
        budgets.looks.give_back("key")
    budgets.clock.advance(0)
    assert budgets.had == ["many", "one"]


def test_budgets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_buckets, "MAX_KEYS", 3)
    budgets = Budgets()
    for number in range(10):
        budgets.looks.take(str(number))
    assert len(budgets.looks._buckets) <= 3


# --- Logins


def logged_in(site: Site, **where: str) -> User:
    login = site.login("right", **where)
    site.pass_time(2 * HASHING)
    assert isinstance(login.result, User)
    return login.result


def test_the_same_password_passes_at_once_beside_guesses_from_its_own_address() -> None:
    site = Site()
    logged_in(site)
    for number in range(12):
        site.login(f"wrong{number}")
    site.pass_time(30)
    checks = len(site.checked)
    again = site.login("right")
    assert isinstance(again.result, User), "no turn, no delay and no hash"
    assert len(site.checked) == checks


def test_twelve_guesses_in_the_same_moment_keep_it_waiting_for_a_look_alone() -> None:
    site = Site()
    logged_in(site)
    for number in range(3 * BURST):
        site.login(f"wrong{number}")
    again = site.login("right")
    assert not again.called
    site.pass_time(2 * BURST * REFILL_INTERVAL + 1)
    assert isinstance(again.result, User)


def test_guesses_from_elsewhere_have_the_budget_of_all_unknown_networks_together() -> None:
    site = Site()
    logged_in(site)
    for network in range(BURST):
        site.login("wrong0", peer=f"10.0.{network}.1")
        site.login("wrong1", peer=f"10.0.{network}.1")
    late = site.login("wrong2", peer="10.0.0.1")
    right = site.login("right", peer="10.0.0.1")
    site.pass_time(0.9)
    assert not right.called, "no look is left: it has its turn behind the guesses"
    assert not late.called
    away = site.login("right", peer="203.0.113.1")
    assert isinstance(away.result, User), "a new network without a guess: its turn is now, and nothing is hashed"


def test_a_changed_password_is_checked_anew() -> None:
    site = Site()
    logged_in(site)
    site.service._check._listing[0].backend.entries[ANNA] = "{PLAIN}new"
    again = site.login("right")
    site.pass_time(2)
    assert again.result is AuthFailed
    assert site.checked == [b"right", b"right"]


def test_a_disabled_user_is_refused_all_the_same() -> None:
    site = Site()
    logged_in(site)
    site.service._check._listing[0].backend.entries[ANNA] = None
    again = site.login("right")
    site.pass_time(2)
    assert again.result is AuthFailed


class Restricted(Hashed):
    """Users that may log in from one network."""

    def find_user(self, name: str) -> User | None:
        return User(name, limits=Limits(networks=("192.0.2.0/24",))) if name in self.entries else None


@pytest.mark.parametrize("failures", [0, 3])
def test_a_right_password_from_a_network_that_is_not_allowed_takes_the_time_of_a_wrong_one(failures: int) -> None:
    took = {}
    for password in ("right", "wrong"):
        site = Site()
        site.service = site.make(Restricted({ANNA: "{PLAIN}right"}))
        logged_in(site)
        for number in range(failures):
            site.seconds_of(site.login(f"w{number}", peer="198.51.100.1"))
        before = len(site.checked)
        began = site.clock.seconds()
        login = site.login(password, peer="198.51.100.1")
        while not login.called:
            site.clock.advance(0.05)
        assert login.result is AuthFailed
        took[password] = round(site.clock.seconds() - began, 2), len(site.checked) - before
    assert took["right"] == took["wrong"]


@implementer(IAuthBackend)
class Elsewhere:
    """A back end that gives no entry."""

    def __init__(self) -> None:
        self.password = b"right"
        self.asked = 0

    def find_user(self, name: str) -> User | None:
        return User(name) if name == ANNA else None

    def verify_password(self, user: User, password: Secret) -> bool:
        self.asked += 1
        return password.reveal() == self.password


def test_a_back_end_that_compares_by_itself_decides_and_only_the_turn_is_spared() -> None:
    site = Site()
    backend = Elsewhere()
    site.service = site.make(backend)
    logged_in(site)
    for number in range(12):
        site.login(f"wrong{number}")
    site.pass_time(30)
    asked = backend.asked
    again = site.login("right")
    assert isinstance(again.result, User)
    assert backend.asked == asked + 1
    backend.password = b"changed"
    for number in range(12):
        site.login(f"more{number}")
    site.pass_time(30)
    stale = site.login("right")
    site.pass_time(0.1)
    assert not stale.called, "it has its turn now, as others"
    site.pass_time(MAX_WAIT + 20)
    assert stale.result in (AuthFailed, TooManyLogins)
