"""Guesses that come at once: what they cost, and what that costs others. Real coroutines on Twisted's Clock."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from math import inf
from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from mailserver.auth.asking import GUESSING, KNOWN, NEW
from mailserver.auth.interfaces import LoginContext, User
from mailserver.auth.restrictions import Names
from mailserver.auth.service import LoginService
from mailserver.auth.throttling.login_throttle import CHECKS_PER_SECOND, NETWORK_LIMIT, REFUSAL_DELAY, LoginThrottle
from mailserver.auth.throttling.penalties import MAX_WAIT, Penalties
from mailserver.errors import AuthFailed, MailError, TooManyLogins
from mailserver.sasl.mechanism import Credentials
from mailserver.types import Secret
from tests.auth.test_service import Hashed

HASHING = 0.1
HOSTS = {"mail.example.test": "example.test", "mail.example.org": "example.org", "mail.example.net": "example.net"}
USERS = {f"user{number}@example.test": "{PLAIN}right" for number in range(100)}
ANNA = "anna@example.test"


class Site:
    """One process; each check takes HASHING."""

    def __init__(self, *, clock: Clock | None = None, **entries: str | None) -> None:
        self.clock = clock or Clock()
        self.penalties = Penalties(self.clock.seconds, key=b"of all")
        self.attempts = LoginThrottle(self.penalties, self.sleep, self.clock.seconds, Deferred, self.clock.callLater)
        self.checked: list[bytes] = []
        self.asked: list[tuple[str, int]] = []
        self.is_full = False
        self.service = self.make(Hashed({ANNA: "{PLAIN}right", **USERS, **entries}))

    def make(self, backend: Any) -> LoginService:
        """The service over a back end."""
        names = Names(frozenset(HOSTS.values()), "example.test", lambda host: HOSTS.get(host or ""))
        return LoginService([backend], self, names, self.attempts)

    def sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self.clock, seconds, lambda: None)  # type: ignore[arg-type]

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        if self.is_full:
            raise TooManyLogins
        self.checked.append(password.reveal())
        self.asked.append((share, rank))
        await self.sleep(HASHING)
        return stored == "{PLAIN}" + password.reveal().decode()

    def login(
        self,
        password: str,
        name: str = ANNA,
        peer: str = "192.0.2.1",
        host: str | None = None,
        within: float = inf,
    ) -> Deferred[Any]:
        context = LoginContext("imap", ip_address(peer), host, "s1", answer_within=within)
        done = Deferred.fromCoroutine(self.service.login(Credentials(name, Secret(password.encode())), context))
        done.addErrback(_kind)
        return done

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)

    def seconds_of(self, done: Deferred[Any]) -> float:
        """Until it is answered."""
        start = self.clock.seconds()
        while not done.called:
            self.clock.advance(0.05)
        return round(self.clock.seconds() - start)


def _kind(failure: Failure) -> type[BaseException]:
    failure.trap(MailError, CancelledError)
    return type(cast("BaseException", failure.value))


@pytest.fixture
def site() -> Site:
    return Site()


def test_parallel_guesses_of_a_pair_are_checked_when_serial_ones_would_be(site: Site) -> None:
    guesses = [site.login(f"wrong{number}") for number in range(50)]
    checked = []
    for seconds in (0.5, 1.2, 2.2, 4.2, 8.2, 15.2):
        site.pass_time(seconds)
        checked.append(len(site.checked))
    assert checked == [1, 2, 3, 4, 5, 6], "1, 2, 4, 8 and 15 s behind one another"
    site.pass_time(MAX_WAIT)
    assert len(site.checked) <= 10
    told = Counter(guess.result for guess in guesses)
    assert told == {AuthFailed: len(site.checked), TooManyLogins: 50 - len(site.checked)}, (
        "what is not checked is not wrong"
    )
    assert len(site.attempts.pairs) == 0


def test_parallel_guesses_from_many_addresses_of_a_network_are_no_cheaper(site: Site) -> None:
    for number in range(50):
        site.login(f"wrong{number}", peer=f"192.0.2.{number}")
    site.pass_time(0.9)
    assert len(site.checked) == 1


def test_an_answer_that_must_come_in_time_is_not_delayed_further(site: Site) -> None:
    site.penalties.first_delay = site.penalties.max_delay = 15.0
    assert site.seconds_of(site.login("wrong", within=7.0)) == 7
    # The next guess pays for the whole delay all the same: its turn comes after 15 s, so it is refused until then.
    refused = site.login("wrong again", within=7.0)
    assert site.seconds_of(refused) == 5
    assert refused.result is TooManyLogins
    assert site.checked == [b"wrong"]


def test_a_client_that_tries_again_does_not_postpone_its_turn(site: Site) -> None:
    site.penalties.first_delay = site.penalties.max_delay = 15.0
    site.login("wrong", within=7.0)
    results = []
    for _ in range(3):
        right = site.login("right", within=7.0)
        site.pass_time(7.0)
        results.append(right.result)
    assert results[0] is TooManyLogins
    assert isinstance(results[1], User) or isinstance(results[2], User), results


def test_a_turn_that_comes_too_late_for_the_answer_is_not_taken(site: Site) -> None:
    """Of one guess after another for a user, from ever more places of one network."""
    guesses = [site.login(f"wrong{number}", peer=f"192.0.2.{number}", within=7.0) for number in range(50)]
    site.pass_time(8.0)
    assert all(guess.called for guess in guesses)
    assert Counter(guess.result for guess in guesses)[AuthFailed] == len(site.checked)
    assert len(site.checked) <= 4, "1, 2 and 4 s behind one another"
    assert len(site.attempts.pairs) == 0


def test_two_processes_look_at_two_guesses_at_once_and_no_more(site: Site) -> None:
    other = Site(clock=site.clock)
    site.penalties.on_change, other.penalties.on_change = other.penalties.apply, site.penalties.apply
    for number in range(20):
        for each in (site, other):
            each.login(f"wrong{number}")
    site.pass_time(0.9)
    assert len(site.checked) == len(other.checked) == 1
    site.pass_time(6.0)
    assert len(site.checked) + len(other.checked) <= 2 * 3, "as many as are looked at one after another, in each"


def test_who_hangs_up_makes_the_next_guess_no_cheaper(site: Site) -> None:
    for number in range(20):
        guess = site.login(f"wrong{number}")
        site.pass_time(2 * HASHING)  # what a right one would take
        guess.cancel()
    # 4 s: the first, and those of 1 and 3 s.
    assert len(site.checked) <= 3


def test_a_household_that_comes_back_at_once_waits_for_nothing_but_its_checks(site: Site) -> None:
    clients = [site.login("right", peer=f"192.0.2.{number}") for number in range(20)]
    assert len(site.checked) == 20, "all at once"
    site.pass_time(2 * HASHING)
    assert all(isinstance(client.result, User) for client in clients)


def test_so_do_the_users_of_an_office(site: Site) -> None:
    clients = [site.login("right", name=name) for name in list(USERS)[:NETWORK_LIMIT]]
    assert len(clients) > 1
    site.pass_time(2 * HASHING)
    assert all(isinstance(client.result, User) for client in clients)


def test_a_household_with_a_stale_client_comes_in_together_after_its_delay(site: Site) -> None:
    stale = site.login("old")
    clients = [site.login("right") for _ in range(20)]
    site.pass_time(1.0)
    assert stale.result is AuthFailed
    site.pass_time(3 * HASHING)
    assert all(isinstance(client.result, User) for client in clients)


def test_the_same_wrong_password_without_end_is_checked_once_a_turn(site: Site) -> None:
    for _ in range(100):
        site.login("old")
        site.pass_time(0.05)  # the one before is still being checked
    assert len(site.checked) < 20


def test_one_guess_for_each_of_many_users_of_a_network_is_bounded(site: Site) -> None:
    for name in USERS:
        site.login("winter2026", name=name)
    site.pass_time(0.9)
    assert len(site.checked) == NETWORK_LIMIT
    site.pass_time(1.0)
    assert len(site.checked) <= 2 * NETWORK_LIMIT


def test_hanging_up_gives_no_place_of_the_network_back(site: Site) -> None:
    for name in USERS:
        guess = site.login("winter2026", name=name)
        site.pass_time(2 * HASHING)
        guess.cancel()
    assert len(site.checked) <= NETWORK_LIMIT * (2 * HASHING * len(USERS)) + NETWORK_LIMIT


def test_a_neighbour_of_a_guesser_has_its_turn_and_one_that_is_known_does_not_wait(site: Site) -> None:
    known = site.login("right", name="user0@example.test", peer="192.0.2.9")
    site.pass_time(2 * HASHING)
    assert isinstance(known.result, User)
    for name in list(USERS)[1:]:
        site.login("winter2026", name=name)
    site.pass_time(2 * HASHING)
    again = site.login("right", name="user0@example.test", peer="192.0.2.9")
    stranger = site.login("right", peer="192.0.2.8")
    site.pass_time(2 * HASHING)
    assert isinstance(again.result, User)
    assert not stranger.called
    site.pass_time(1.0)
    assert isinstance(stranger.result, User), "the next place, ahead of 70 guesses of one address"


def test_who_finds_no_place_in_time_is_told_to_come_again() -> None:
    site = Site()
    site.penalties.first_delay = site.penalties.max_delay = 2 * MAX_WAIT
    for name in list(USERS)[:NETWORK_LIMIT]:
        site.login("winter2026", name=name)
    right = site.login("right")
    site.pass_time(MAX_WAIT + 1)
    assert right.result is TooManyLogins


def test_a_bare_account_pays_once_over_all_domains_that_sni_tells() -> None:
    site = Site(bare="{PLAIN}right")
    delays = [site.seconds_of(site.login(f"wrong{n}", "bare", host=host)) for n, host in enumerate([*HOSTS, None])]
    assert delays == [1, 2, 4, 8]


def test_nobody_learns_from_that_whether_a_bare_account_exists() -> None:
    found = Counter[tuple[float, ...]]()
    for entries in ({"bare": "{PLAIN}right"}, {"bare@example.org": "{PLAIN}right"}, {}):
        site = Site(**entries)
        attempts = [
            ("bare", "mail.example.test"),
            ("bare", "mail.example.org"),
            ("bare@example.org", None),
            ("bare", None),
        ]
        found[
            tuple(site.seconds_of(site.login(f"x{n}", name, host=host)) for n, (name, host) in enumerate(attempts))
        ] += 1
    assert list(found.values()) == [3]


def test_parallel_guesses_at_a_bare_account_by_all_names_are_one_line() -> None:
    site = Site(bare="{PLAIN}right")
    for number in range(30):
        site.login(f"wrong{number}", "bare", host=list(HOSTS)[number % len(HOSTS)])
    site.pass_time(0.9)
    assert len(site.checked) == 1


def test_a_success_forgives_each_name() -> None:
    site = Site(bare="{PLAIN}right")
    for number in range(3):
        site.seconds_of(site.login(f"wrong{number}", "bare", host="mail.example.org"))
    assert site.seconds_of(site.login("right", "bare", host="mail.example.org")) == 0
    assert len(site.penalties) == 0


def test_a_right_password_behind_guesses_of_its_own_network_is_never_called_wrong(site: Site) -> None:
    for number in range(12):
        site.login(f"wrong{number}")
    right = site.login("right")
    site.pass_time(MAX_WAIT + 1)
    assert b"right" not in site.checked
    assert right.result is TooManyLogins


def test_a_person_on_a_new_network_is_in_within_seconds_while_many_networks_guess(site: Site) -> None:
    for _ in range(4):
        for number in range(160):
            site.login(f"wrong{number}", peer=f"10.0.{number}.1")
        site.pass_time(20)
    guesses = len(site.checked)
    person = site.login("right", peer="203.0.113.1")
    assert site.seconds_of(person) <= 1
    assert isinstance(person.result, User)
    site.pass_time(60)
    assert len(site.checked) - guesses <= 61 * CHECKS_PER_SECOND + 1, (
        "and all those networks together have the rate alone"
    )


def test_a_name_that_nobody_has_waits_as_one_that_exists() -> None:
    answers = []
    for name in (ANNA, "nobody@example.test"):
        site = Site()
        for number in range(40):
            site.login(f"wrong{number}", name, peer=f"10.0.{number}.1")
        site.pass_time(2)
        late = [site.login(f"late{number}", name, peer=f"10.1.{number}.1") for number in range(6)]
        answers.append([site.seconds_of(each) for each in late])
    assert answers[0] == answers[1]
    assert max(answers[0]) == 15


def test_a_known_network_shares_no_rate(site: Site) -> None:
    first = site.login("right")
    site.pass_time(1)
    assert isinstance(first.result, User)
    for number in range(160):
        site.login(f"wrong{number}", peer=f"10.0.{number}.1")
    site.pass_time(1)
    for number in range(160):
        site.login(f"again{number}", peer=f"10.1.{number}.1")
    again = site.login("right")
    site.pass_time(2 * HASHING)
    assert isinstance(again.result, User)


def test_refusals_of_a_flood_are_late_and_keep_their_places(site: Site) -> None:
    site.is_full = True
    known = site.login("right", name="user1@example.test", peer="198.51.100.1")
    site.pass_time(REFUSAL_DELAY + 0.1)
    assert known.result is TooManyLogins
    site.penalties.succeeded(("user1@example.test", "198.51.100.0/24"))
    known = site.login("right", name="user1@example.test", peer="198.51.100.1")
    assert known.result is TooManyLogins, "known users hear it at once, to try again"
    for name in list(USERS)[: NETWORK_LIMIT + 5]:
        site.login("winter2026", name=name).cancel()
    site.is_full = False
    late = site.login("right")
    site.pass_time(REFUSAL_DELAY - 1)
    assert not late.called
    site.pass_time(1 + 2 * HASHING)
    assert isinstance(late.result, User)


def test_checks_are_asked_for_in_the_class_of_the_attempt(site: Site) -> None:
    site.login("right")
    site.pass_time(1)
    site.login("wrong", peer="198.51.100.1")
    site.pass_time(2)
    site.login("right", name="user1@example.test", peer="198.51.100.2")
    site.login("other", peer="192.0.2.7")
    site.login("other", peer="203.0.113.7")
    assert site.asked == [
        ("192.0.2.1", NEW),
        ("198.51.100.1", NEW),
        ("198.51.100.2", GUESSING),
        (ANNA, KNOWN),
        ("203.0.113.7", NEW),
    ]
