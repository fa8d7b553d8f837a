"""Passwords that came before TLS: what is checked, when, how often, and what nobody can tell from outside."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from mailserver.auth.exposure import checker
from mailserver.auth.exposure.checker import (
    CHECK_INTERVAL,
    MAX_POSTPONE,
    MAX_WAITING,
    RECHECK_AFTER,
    ExposureChecker,
    ExposureMark,
)
from mailserver.auth.exposure.record import FILE, MAX_USERS, DamagedRecord, ExposureRecord
from mailserver.auth.interfaces import LoginContext
from mailserver.auth.restrictions import Names
from mailserver.auth.service import LoginService
from mailserver.auth.throttling.login_throttle import LoginThrottle
from mailserver.auth.throttling.penalties import Penalties
from mailserver.sasl.mechanism import Credentials
from mailserver.types import Secret
from tests.auth.test_service import DUMMY, CountingHasher, Hashed
from tests.auth.waiting import Task, Timers, Waiting

ANNA = "anna@example.test"
MARK = {"user": ANNA, "protocol": "imap", "method": "LOGIN", "peer": "192.0.2.1"}


class Site:
    """One process that is told of passwords."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.backend = Hashed({ANNA: "{PLAIN}secret", "off@example.test": None})
        self.hasher = CountingHasher(self.timers)
        self.penalties = Penalties(self.timers.clock)
        self.busy = False
        self.tasks: list[Task] = []
        self.watch = ExposureChecker(
            self.penalties.digest, self.timers.clock, self.timers.call_later, self.spawn, lambda: self.busy
        )
        self.marks: list[ExposureMark] = []
        self.told: list[str] = []
        self.watch.on_exposed = self.marks.append
        self.service = LoginService(
            [self.backend],
            self.hasher,
            Names(frozenset({"example.test"}), "example.test", lambda _name: None),
            LoginThrottle(self.penalties, self.timers.sleep, self.timers.clock, Waiting, self.timers.call_later),
            exposures=self.watch,
        )

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(Task(coroutine))

    def expose(self, name: str = ANNA, password: str = "secret", peer: str = "192.0.2.1") -> None:
        context = LoginContext("imap", ip_address(peer), None, "s1")
        self.service.exposed(Credentials(name, Secret(password.encode())), "LOGIN", context, self.told.append)

    def settle(self, seconds: float = 10) -> None:
        self.timers.advance(seconds)
        for task in self.tasks:
            task.outcome()

    def login(self, password: str, peer: str = "192.0.2.1") -> Task:
        context = LoginContext("imap", ip_address(peer), None, "s2")
        return Task(self.service.login(Credentials(ANNA, Secret(password.encode())), context))

    def seconds_of_login(self, password: str) -> float:
        """How long the answer to a login takes."""
        began = self.timers.now
        task = self.login(password)
        while not task.done:
            self.timers.advance(0.25)
        return self.timers.now - began


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_right_one_is_told_and_marked_after_a_while(site: Site) -> None:
    site.expose()
    site.timers.advance(CHECK_INTERVAL - 0.1)
    assert site.hasher.checks == [], "nothing begins within the call, nor in the client's time"
    site.settle()
    assert site.told == [ANNA]
    assert site.marks == [MARK]
    assert site.hasher.shares == ["exposed"]


@pytest.mark.parametrize("name", ["ANNA@Example.Test", "anna"])
def test_names_mean_what_they_mean_at_a_login(site: Site, name: str) -> None:
    site.expose(name)
    site.settle()
    assert site.told == [ANNA]


@pytest.mark.parametrize(
    ("name", "password", "checked"),
    [
        (ANNA, "wrong", "{PLAIN}secret"),
        ("nobody@example.test", "secret", DUMMY),
        ("off@example.test", "secret", DUMMY),
    ],
)
def test_all_others_leave_no_trace_and_cost_one_check(site: Site, name: str, password: str, checked: str) -> None:
    site.expose(name, password)
    site.settle()
    assert site.hasher.checks == [checked]
    assert site.told == []
    assert site.marks == []


@pytest.mark.parametrize(("name", "password"), [("", "x"), ("a\0b", "x"), ("a@b@c", "x"), (ANNA, "")])
def test_what_nobody_can_have_is_not_checked(site: Site, name: str, password: str) -> None:
    site.expose(name, password)
    site.settle()
    assert site.told == []


def test_the_same_password_of_a_user_and_network_is_checked_once_a_minute(site: Site) -> None:
    for _ in range(5):
        site.expose("anna", "wrong")
        site.expose(ANNA, "wrong", peer="192.0.2.200")
    site.settle(RECHECK_AFTER - 1)
    assert len(site.hasher.checks) == 1
    site.expose(password="wrong", peer="198.51.100.1")
    site.settle(0.9)
    assert len(site.hasher.checks) == 1
    site.settle(1)
    assert len(site.hasher.checks) == 2, "another network has its own minute"
    site.expose(password="wrong")
    site.settle()
    assert len(site.hasher.checks) == 3


@pytest.mark.parametrize("first", ["secret", "wrong"])
def test_a_wrong_one_right_behind_a_right_one_or_before_it_drops_nothing(site: Site, first: str) -> None:
    site.expose(password=first)
    site.expose(password="secret" if first == "wrong" else "wrong")
    assert isinstance(site.penalties.failed((ANNA, "192.0.2.0/24"), Secret(b"in TLS")), float)
    site.settle()
    assert site.told == [ANNA]
    assert len(site.hasher.checks) == 2


def test_checks_go_one_by_one_with_pauses(site: Site) -> None:
    site.hasher.cost = 5
    for number in range(3):
        site.expose(f"user{number}@example.test")
    running = []
    for _ in range(40):
        site.timers.advance(0.5)
        running.append(sum(not task.done for task in site.tasks))
    assert max(running) == 1
    assert len(site.hasher.checks) == 3


def test_junk_of_names_that_nobody_has_keeps_no_right_one_from_being_found(site: Site) -> None:
    for number in range(1000):
        site.expose(f"user{number}@example.test", peer=f"10.0.{number % 250}.1")
        if number == 500:
            site.expose()
    site.settle(2 * CHECK_INTERVAL)
    assert site.told == [ANNA], "they take no place"
    site.settle(1000)
    assert len(site.hasher.checks) <= MAX_WAITING + 2


def test_junk_of_names_that_exist_holds_up_its_own_network(site: Site) -> None:
    for number in range(300):
        site.backend.entries[f"user{number}@example.test"] = "{PLAIN}secret"
        site.expose(f"user{number}@example.test", "junk", peer="198.51.100.1")
    site.settle(CHECK_INTERVAL)
    site.expose()
    site.settle(3 * CHECK_INTERVAL)
    assert site.told == [ANNA], "networks take turns"


def test_junk_from_many_networks_leaves_one_its_turn(site: Site) -> None:
    for number in range(2 * MAX_WAITING):
        site.backend.entries[f"user{number}@example.test"] = "{PLAIN}secret"
        for password in ("junk", "more"):
            site.expose(f"user{number}@example.test", password, peer=f"10.0.{number % 60}.1")
    site.settle(CHECK_INTERVAL)
    site.expose()
    site.settle((MAX_WAITING + 2) * CHECK_INTERVAL)
    assert site.told == [ANNA]


def test_a_flood_from_more_networks_than_there_are_places_holds_up_nobody_else(site: Site) -> None:
    for number in range(3 * MAX_WAITING):
        site.backend.entries[f"user{number}@example.test"] = "{PLAIN}secret"

    def flood(word: str) -> None:
        for number in range(3 * MAX_WAITING):
            site.expose(f"user{number}@example.test", word, peer=f"10.0.{number}.1")

    for turn in range(5):
        flood(f"junk{turn}")
        site.settle(CHECK_INTERVAL)
    site.expose()
    for turn in range(5):
        flood(f"more{turn}")
        site.settle(CHECK_INTERVAL)
    assert site.told == [ANNA], "who has sent the least goes first"


def test_junk_for_the_user_from_a_neighbour_leaves_the_user_its_place(site: Site) -> None:
    for number in range(50):
        site.expose(password=f"junk{number}", peer="192.0.2.77")
    site.settle(CHECK_INTERVAL)
    site.expose()
    site.settle(10 * CHECK_INTERVAL)
    assert site.told == [ANNA]


def test_the_memory_of_what_was_checked_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "MAX_RECENT", 5)
    for number in range(20):
        assert site.watch.claim((f"user{number}", "net", "00"))
    assert len(site.watch.claimed()) == 5
    assert not site.watch.claim(("user19", "net", "00"))
    assert site.watch.claim(("user19", "net", "01"))
    assert site.watch.claim(("user0", "net", "00")), "it would be checked once more"
    site.timers.advance(RECHECK_AFTER)
    assert site.watch.claimed() == []


def test_logins_that_wait_for_the_pool_go_first_for_a_while(site: Site) -> None:
    site.busy = True
    site.expose()
    site.settle(20)
    assert site.hasher.checks == []
    site.busy = False
    site.settle(2)
    assert site.told == [ANNA]
    site.busy = True
    site.expose(peer="198.51.100.1")
    site.settle(MAX_POSTPONE + 2 * CHECK_INTERVAL)
    assert site.told == [ANNA, ANNA], "a flood of logins does not switch this off"


def test_what_could_not_be_checked_is_checked_later(site: Site) -> None:
    site.hasher.full = True
    site.expose()
    site.settle(10)
    assert site.marks == []
    site.hasher.full = False
    site.settle(3)
    assert site.marks == [MARK]
    site.settle(10)
    assert site.hasher.checks == ["{PLAIN}secret"]


def test_a_back_end_that_cannot_say_who_exists_is_asked_at_the_check(site: Site) -> None:
    site.backend.down = True
    site.expose()
    site.settle(5)
    assert site.told == []
    site.backend.down = False
    site.settle(5)
    assert site.told == [ANNA]


@pytest.mark.parametrize("before", ["right", "wrong", "full"])
def test_the_next_login_takes_as_long_whatever_was_found(before: str) -> None:
    """Else a stranger could try passwords in clear text and read the answer off that."""
    takes = []
    for password in ("tried", "secret"):
        site = Site()
        site.hasher.cost = 0.5
        site.hasher.full = before == "full"
        site.expose(password={"right": "secret", "wrong": "wrong", "full": "secret"}[before])
        site.settle(2 * CHECK_INTERVAL)
        site.hasher.full = False
        takes.append(site.seconds_of_login(password))
    reference = []
    for password in ("tried", "secret"):
        site = Site()
        site.hasher.cost = 0.5
        reference.append(site.seconds_of_login(password))
    assert takes == reference


def test_a_right_one_makes_no_network_known(site: Site) -> None:
    site.expose()
    site.settle()
    assert site.told == [ANNA]
    assert len(site.penalties.known) == 0


@pytest.mark.parametrize("backlog", [0, 2, 3 * MAX_WAITING])
def test_how_busy_the_pool_is_tells_nothing_of_the_names(backlog: int) -> None:
    """As many checks at the same times, whether the user exists or not."""
    times = []
    for name in (ANNA, "nobody@example.test"):
        site = Site()
        for number in range(backlog):
            site.expose(f"user{number}@example.test", peer=f"10.0.{number}.1")
            if number < 40:
                site.backend.entries[f"user{number}@example.test"] = "{PLAIN}x"
        for number in range(6):
            site.expose(name, f"guess{number}", peer=f"198.51.{number}.1")
        seen = []
        for _ in range(2 * MAX_WAITING):
            site.settle(CHECK_INTERVAL / 2)
            seen.append(len(site.hasher.checks))
        times.append(seen)
        assert seen[-1] == min(backlog + 6, MAX_WAITING)
    assert times[0] == times[1]


# --- The record


def test_the_record_is_kept_and_holds_no_password(tmp_path: Path) -> None:
    record = ExposureRecord(tmp_path / "state")
    record.load()
    assert record.add(MARK, 100)
    assert record.add({**MARK, "user": "bert@example.org", "peer": ""}, 110)
    assert record.add({**MARK, "method": "PLAIN"}, 120)
    record.save(record.text())
    assert (tmp_path / "state" / FILE).stat().st_mode & 0o777 == 0o600
    again = ExposureRecord(tmp_path / "state")
    again.load()
    assert again.rows() == record.rows()
    assert [(row["user"], row["first"], row["last"], row["count"], row["method"]) for row in again.rows()] == [
        (ANNA, 100, 120, 2, "PLAIN"),
        ("bert@example.org", 110, 110, 1, "LOGIN"),
    ]


def test_marks_are_cleared_one_by_one_or_all(tmp_path: Path) -> None:
    record = ExposureRecord(tmp_path)
    for user in "abc":
        record.add({**MARK, "user": user}, 1)
    assert record.clear("b") == ["b"]
    assert record.clear("b") == []
    assert sorted(record.clear("")) == ["a", "c"]
    assert len(record) == 0


def test_the_record_is_bounded(tmp_path: Path) -> None:
    record = ExposureRecord(tmp_path)
    for number in range(MAX_USERS + 1):
        record.add({**MARK, "user": f"user{number}"}, number)
    assert len(record) == MAX_USERS
    assert record.clear("user0") == []
    assert record.clear(f"user{MAX_USERS}") != []


@pytest.mark.parametrize(
    "mark",
    [
        None,
        [],
        {},
        {**MARK, "more": "x"},
        {**MARK, "user": 5},
        {**MARK, "user": ""},
        {**MARK, "user": "a\x1b[2J"},
        {**MARK, "method": "x" * 21},
    ],
)
def test_nonsense_is_not_taken(tmp_path: Path, mark: object) -> None:
    record = ExposureRecord(tmp_path)
    assert not record.add(mark, 1)
    assert len(record) == 0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"exposures": [{}]}', b"\xff", json.dumps({"exposures": [MARK]}).encode()]
)
def test_a_damaged_record_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    record = ExposureRecord(tmp_path)
    with pytest.raises(DamagedRecord, match="was moved to"):
        record.load()
    assert len(record) == 0
    assert (tmp_path / FILE).with_suffix(".damaged").read_bytes() == content
    record.add(MARK, 1)
    record.save(record.text())
    record.load()
    assert len(record) == 1
