"""Limits and penalties over several workers: each has its own table, and what it is told."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailserver.auth.exposure.checker import CHECK_INTERVAL, RECHECK_AFTER, ExposedPassword, ExposureChecker
from mailserver.auth.interfaces import LoginContext
from mailserver.auth.throttling.known_networks import KnownNetworks, validate_rows
from mailserver.auth.throttling.penalties import Penalties
from mailserver.auth.throttling.verified_passwords import VerifiedPasswords
from mailserver.config.model import Limits
from mailserver.errors import LimitReached
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.net.ipc.worker_messages import ConnectionCountsChanged, NetworksKnown, PasswordExposed
from mailserver.net.serving.state_sync import (
    COUNTS_EVERY,
    ROWS_AT_ONCE,
    ConnectionCountSync,
    ExposureSync,
    KnownNetworkSync,
    PenaltySync,
    VerifiedPasswordSync,
)
from mailserver.types import Secret
from tests.links import FakeLink, Links

ANNA, BEN = "anna@example.test", "ben@example.test"
HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")
PAIR = (ANNA, "192.0.2.0/24")
LIMITS = Limits(unauthenticated_per_address=2, sessions_per_user=2, connections=5)


@pytest.fixture
def links() -> Iterator[Links]:
    links = Links(2)
    yield links
    links.close()


class Site:
    """Workers with their counts."""

    def __init__(self, links: Links) -> None:
        self.links = links
        self.clock = Clock()
        self.counts: dict[int, ConnectionCounts] = {}
        for worker in links.living:
            self.add(links[worker])

    def add(self, link: FakeLink) -> ConnectionCounts:
        counts = self.counts[link.number] = ConnectionCounts(LIMITS)
        ConnectionCountSync(link, self.clock, counts)
        return counts

    def settle(self) -> None:
        self.clock.pump([COUNTS_EVERY] * 2)
        self.links.deliver()


@pytest.fixture
def site(links: Links) -> Site:
    return Site(links)


def test_connections_before_login_count_over_all_workers(site: Site) -> None:
    first, second = site.counts[0], site.counts[1]
    assert first.open(HERE)
    assert second.open(HERE)
    site.settle()
    assert not first.open(HERE)
    assert not second.open(HERE)
    assert first.open(THERE)
    second.close(HERE, None)
    site.settle()
    assert first.open(HERE)


def test_sessions_of_a_user_from_an_address_count_over_all_workers(site: Site) -> None:
    first, second = site.counts[0], site.counts[1]
    for counts in (first, second):
        assert counts.open(HERE)
        counts.logged_in(HERE, ANNA)
    site.settle()
    assert first.open(HERE)
    with pytest.raises(LimitReached):
        first.logged_in(HERE, ANNA)
    first.logged_in(HERE, BEN)
    second.close(HERE, ANNA)
    assert second.open(THERE)
    site.settle()
    second.logged_in(THERE, ANNA)
    assert first.open(HERE)
    first.logged_in(HERE, ANNA)


def test_the_limit_of_all_connections_is_that_of_all_workers(site: Site) -> None:
    first, second = site.counts[0], site.counts[1]
    for _ in range(3):
        assert first.open(None)
    for _ in range(2):
        assert second.open(None)
    site.settle()
    assert not first.open(None)
    assert not second.open(None)
    second.close(None, None)
    site.settle()
    assert first.open(None)


def counts_of(link: FakeLink) -> list[dict[tuple[str, ...], int]]:
    """The counts of each message; there are no others."""
    return [dict(message.counts) for message in link.sent if isinstance(message, ConnectionCountsChanged)]


def test_changes_are_gathered_and_told_as_the_numbers_are_that_stay(site: Site, links: Links) -> None:
    first = site.counts[0]
    for _ in range(100):
        assert first.open(HERE)
        first.close(HERE, None)
    assert first.open(HERE)
    site.settle()
    assert counts_of(links[0]) == [{("192.0.2.1",): 0, (): 0}, {("192.0.2.1",): 1, (): 1}]
    site.settle()
    assert len(links[0].sent) == 2, "nothing has changed"


def test_who_comes_and_goes_is_not_counted_where_he_was_before(site: Site) -> None:
    """A client that connects again and again is now here, now there, and never at both."""
    first, second = site.counts[0], site.counts[1]
    for _ in range(10):
        for _ in range(LIMITS.unauthenticated_per_address):
            assert first.open(HERE)
        site.clock.advance(COUNTS_EVERY * 0.6)
        for _ in range(LIMITS.unauthenticated_per_address):
            first.close(HERE, None)
        site.links.deliver()
        for _ in range(LIMITS.unauthenticated_per_address):
            assert second.open(HERE), "as many are there as there may be"
        for _ in range(LIMITS.unauthenticated_per_address):
            second.close(HERE, None)


def test_a_worker_that_has_gone_counts_no_longer(site: Site, links: Links) -> None:
    first, second = site.counts[0], site.counts[1]
    for _ in range(2):
        assert second.open(HERE)
    site.settle()
    assert not first.open(HERE)
    links.end(1)
    assert first.open(HERE)
    assert first.open(HERE)
    assert not first.open(HERE)


def test_a_worker_that_begins_is_told_all(site: Site, links: Links) -> None:
    assert site.counts[0].open(HERE)
    assert site.counts[1].open(HERE)
    site.settle()
    counts = site.add(links.join())
    links.greet(links[2])
    links.deliver()
    assert not counts.open(HERE)
    assert site.counts[0].open(THERE), "nobody counts twice what was told again"
    assert site.counts[0].open(THERE)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_a_burst_passes_a_limit_by_as_much_as_each_worker_may_let_in(workers: int) -> None:
    links = Links(workers)
    site = Site(links)
    try:
        let_in = sum(counts.open(HERE) for counts in site.counts.values() for _ in range(20))
        assert let_in == workers * LIMITS.unauthenticated_per_address
        for counts in site.counts.values():
            for _ in range(LIMITS.unauthenticated_per_address):
                counts.logged_in(HERE, ANNA)
            with pytest.raises(LimitReached):
                counts.logged_in(HERE, ANNA)
        site.settle()
        # From then on all know: nobody more until there are fewer than the limit.
        site.counts[0].close(HERE, ANNA)
        site.settle()
        for counts in site.counts.values():
            with pytest.raises(LimitReached):
                counts.logged_in(HERE, ANNA)
    finally:
        links.close()


class Guard:
    """Workers with their penalties, on one clock."""

    def __init__(self, links: Links) -> None:
        self.now = 1000.0
        self.links = links
        self.tables = [self.add(links[worker]) for worker in links.living]

    def add(self, link: FakeLink) -> Penalties:
        table = Penalties(lambda: self.now, 1.0, 15.0, key=link.penalty_key)
        PenaltySync(link, table)
        return table


def test_failures_cost_the_same_whichever_worker_hears_them(links: Links) -> None:
    first, second = Guard(links).tables
    delays = []
    for number, table in enumerate((first, second, second, first)):
        delays.append(table.failed(PAIR, Secret(f"wrong{number}".encode())))
        links.deliver()
    assert delays == [1, 2, 4, 8]


def test_a_repeated_password_counts_once_in_all_workers(links: Links) -> None:
    first, second = Guard(links).tables
    first.failed(PAIR, Secret(b"stale"))
    links.deliver()
    assert second.failed(PAIR, Secret(b"stale")) == 1
    links.deliver()
    assert first.failed(PAIR, Secret(b"other")) == 2


def test_turns_are_taken_over_all_workers(links: Links) -> None:
    first, second = Guard(links).tables
    first.failed(PAIR, Secret(b"wrong"))
    links.deliver()
    waits = []
    for table in (second, first, second):
        waits.append(table.take_turn(PAIR))
        links.deliver()
    assert waits == [1, 2, 3]


def test_a_success_forgives_everywhere_and_is_told_only_where_there_was_something(links: Links) -> None:
    first, second = Guard(links).tables
    first.failed(PAIR, Secret(b"wrong"))
    links.deliver()
    second.succeeded(PAIR)
    links.deliver()
    assert first.take_turn(PAIR) == 0
    told = len(links[0].sent) + len(links[1].sent)
    first.succeeded(PAIR)
    assert len(links[0].sent) + len(links[1].sent) == told


def test_a_worker_that_begins_does_not_forgive(links: Links) -> None:
    guard = Guard(links)
    for number in range(3):
        guard.tables[1].failed(PAIR, Secret(f"wrong{number}".encode()))
    for number in range(ROWS_AT_ONCE):
        guard.tables[1].failed((f"user{number}@example.test", PAIR[1]), Secret(b"wrong"))
    links.deliver()
    guard.now += 2
    told = [len(links[worker].sent) for worker in (0, 1)]
    table = guard.add(links.join())
    links.greet(links[2])
    links.deliver()
    assert [len(links[worker].sent) - before for worker, before in zip((0, 1), told, strict=True)] == [2, 0]
    assert len(table) == ROWS_AT_ONCE + 1
    assert table.take_turn(PAIR) == 2, "four seconds since the third failure, two of them gone"
    assert table.failed(PAIR, Secret(b"wrong2")) == 4
    assert table.failed(PAIR, Secret(b"fourth")) == 8


@pytest.mark.parametrize("news", [[], ["failed"], ["failed", 1, 2, 3], ["failed", "a", "b", "no hex"], ["pair", "a"]])
def test_what_is_no_news_of_penalties_is_refused(news: list[str]) -> None:
    table = Penalties(lambda: 0.0)
    with pytest.raises(ValueError):  # noqa: PT011 - two texts
        table.apply(news)
    assert len(table) == 0


def test_a_network_known_to_one_worker_is_known_to_all_and_to_the_master(links: Links) -> None:
    tables = []
    for worker in links.living:
        table = KnownNetworks(links[worker].known_key)
        KnownNetworkSync(links[worker], table)
        tables.append(table)
    tables[0].add(PAIR)
    links.deliver()
    assert tables[1].is_known(PAIR)
    [reported] = links[0].reported(NetworksKnown)
    assert links[1].reports == [], "a network that another worker reported is not reported again"
    tables[1].add(PAIR)
    assert links[1].reports == []
    kept = KnownNetworks(links[0].known_key)
    assert kept.merge(validate_rows(list(reported.rows), 10))
    begun = KnownNetworks(links[0].known_key)
    link = links.join()
    KnownNetworkSync(link, begun)
    [take] = link.known_loaders
    take(kept.to_bytes())
    assert begun.is_known(PAIR)


def test_a_password_found_right_by_one_worker_is_right_in_all(links: Links) -> None:
    tables = []
    for worker in links.living:
        table = VerifiedPasswords(lambda: 0.0, links[worker].penalty_key)
        VerifiedPasswordSync(links[worker], table)
        tables.append(table)
    tables[0].add(ANNA, "{X}", Secret(b"right"))
    links.deliver()
    assert tables[1].contains(ANNA, "{X}", Secret(b"right"))
    begun = VerifiedPasswords(lambda: 0.0, links[0].penalty_key)
    link = links.join()
    VerifiedPasswordSync(link, begun)
    links.greet(link)
    links.deliver()
    assert begun.contains(ANNA, "{X}", Secret(b"right"))


class Watches:
    """Workers that are told of passwords which came in clear text."""

    def __init__(self, links: Links) -> None:
        self.links = links
        self.clock = Clock()
        self.checked: list[int] = []
        """The worker of who checked, once a check."""
        self.of: dict[int, ExposureChecker] = {}
        for worker in links.living:
            self.add(links[worker])

    def add(self, link: FakeLink) -> ExposureChecker:
        clock = self.clock
        watch = ExposureChecker(lambda password: password.reveal(), clock.seconds, clock.callLater, _run, lambda: False)
        ExposureSync(link, watch)
        self.of[link.number] = watch
        return watch

    def expose(self, worker: int, pair: tuple[str, str] = PAIR, password: bytes = b"secret") -> None:
        async def exists() -> bool:
            return True

        async def verify() -> None:
            self.checked.append(worker)

        async def check_dummy() -> None:
            pass

        context = LoginContext("imap", HERE, None, "s1")
        self.of[worker].submit(
            ExposedPassword(
                (pair,), Secret(password), "LOGIN", context, exists, verify, check_dummy, exists, lambda _name: None
            )
        )

    def settle(self) -> None:
        self.links.deliver()
        self.clock.pump([CHECK_INTERVAL] * 5)


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    with pytest.raises(StopIteration):
        coroutine.send(None)


def test_a_password_in_clear_text_is_checked_by_one_worker(links: Links) -> None:
    watches = Watches(links)
    watches.expose(0)
    links.deliver()
    watches.expose(1)
    watches.settle()
    assert watches.checked == [0]
    watches.expose(1, (ANNA, "198.51.100.0/24"))
    watches.settle()
    assert watches.checked == [0, 1], "another network has its own minute"
    watches.expose(1, password=b"other")
    watches.settle()
    assert watches.checked.pop() == 1, "and so has another password"
    watches.clock.advance(RECHECK_AFTER)
    watches.expose(1)
    watches.settle()
    assert watches.checked == [0, 1, 1]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_workers_that_take_a_pair_in_the_same_moment_one_checks_it(order: tuple[int, ...]) -> None:
    links = Links(3)
    watches = Watches(links)
    try:
        for worker in order:
            watches.expose(worker)
        watches.expose(2, (BEN, PAIR[1]))
        watches.settle()
        assert sorted(watches.checked) == [0, 2], "and what is another's stays"
    finally:
        links.close()


def test_a_worker_that_begins_knows_what_the_last_minute_has_seen(links: Links) -> None:
    watches = Watches(links)
    watches.expose(0, (BEN, PAIR[1]))
    watches.settle()
    watches.clock.advance(RECHECK_AFTER)
    for number in range(ROWS_AT_ONCE):
        assert watches.of[0].claim((f"user{number}", PAIR[1], b"secret".hex()))
    watches.expose(1)
    links.deliver()
    watches.add(links.join())
    told = [len(links[worker].sent) for worker in (0, 1)]
    links.greet(links[2])
    assert [len(links[worker].sent) - before for worker, before in zip((0, 1), told, strict=True)] == [2, 0]
    links.deliver()
    for pair in (PAIR, ("user0", PAIR[1])):
        watches.expose(2, pair)
    watches.settle()
    assert watches.checked == [0, 1], "whose check it was has made it"
    watches.expose(2, (BEN, PAIR[1]))
    watches.settle()
    assert watches.checked == [0, 1, 2], "that was longer ago"


def test_the_master_is_told_of_a_right_one(links: Links) -> None:
    watches = Watches(links)
    mark = {"user": ANNA, "protocol": "imap", "method": "LOGIN", "peer": "192.0.2.1"}
    watches.of[1].on_exposed(mark)
    assert links[1].reported(PasswordExposed) == [PasswordExposed(mark)]
    assert links[0].reports == []
