"""Who asks an authority, when: by a clock, with orders that succeed, fail and hang."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailserver.config.model import Config
from mailserver.net.admin.control_socket import BadRequest
from mailserver.net.certificates import acme as module
from mailserver.net.certificates.acme import CHECK_INTERVAL, QUIET, AcmeCertificates
from mailserver.net.connection import coroutines
from mailserver.tls.acme import acme_state
from mailserver.tls.acme.acme_concurrency import AT_ONCE, MOST, SLOW, SLOW_AT_ONCE
from mailserver.tls.acme.child import AcmeError
from mailserver.tls.acme.order import Obtained
from mailserver.tls.acme.schedule import AFTER_SUCCESS, FAILED_AGAIN, CurrentCertificate, Window
from mailserver.tls.changes.transaction import ChangeRefused
from mailserver.types import Secret
from tests.net.test_certificate_files import Reactor
from tests.tls.site import Site

NOW = 1_800_000_000
DAY = 86400


class FakeOrder:
    """`outcome` is what comes of it; None: nothing yet."""

    def __init__(self, world: World, host: str) -> None:
        self.world, self.host = world, host
        self.stopped = False
        self.closed = False
        self.done: Deferred[Any] = Deferred()

    def obtain(self) -> Any:
        outcome = self.world.outcomes.get(self.host, "ok")
        if outcome is None:
            if self.world.hang_time:
                self.world.reactor.callLater(self.world.hang_time, self.done.errback, AcmeError("it hangs"))
            return self.done
        if isinstance(outcome, Exception):
            raise outcome
        return Obtained(b"chain of " + self.host.encode(), Secret(b"key"))

    def close(self) -> None:
        self.closed = True

    def stop(self) -> None:
        self.stopped = True


class World:
    """A clock that begins at NOW, and hosts that are self-signed until something is offered."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.outcomes: dict[str, Any] = {}
        self.hang_time = 0.0
        """Seconds after which an order without an outcome fails; 0: never."""
        self.begun: dict[str, float] = {}
        self.answers: dict[str, tuple[bool, list[str]]] = {}
        self.refusals: dict[str, ChangeRefused] = {}
        self.orders: list[FakeOrder] = []
        self.offered: list[tuple[str, float]] = []
        self.windows: dict[str, tuple[int, int, int]] = {}
        self.asked_about: list[list[str]] = []
        self.held = {
            host: CurrentCertificate(host, NOW, NOW + DAY, self_signed=True) for host in [*config.acme_hosts, "other"]
        }
        self.reactor = Reactor()
        self.begin()

    def begin(self) -> None:
        self.acme = AcmeCertificates(
            self.reactor,
            config=lambda: self.config,
            held=self.held.values,
            offer=self._offer,
            make_order=self._make_order,
            ask_windows=self._ask_windows,
            wall=lambda: NOW + self.reactor.seconds(),
        )

    def _make_order(self, _config: Config, held: CurrentCertificate) -> FakeOrder:
        self.orders.append(FakeOrder(self, held.host))
        self.begun.setdefault(held.host, self.reactor.seconds())
        return self.orders[-1]

    def _ask_windows(self, _config: Config, asked: list[CurrentCertificate], _before: object, now: int) -> list[Window]:
        self.asked_about.append([held.host for held in asked])
        return [
            Window(held.host, held.fingerprint, *self.windows.get(held.host, (0, 0, 0)), now + FAILED_AGAIN)
            for held in asked
        ]

    async def _offer(self, hosts: list[str], chain: bytes, key: bytes, _reason: str) -> tuple[bool, list[str]]:
        (host,) = hosts
        assert (chain, key) == (b"chain of " + host.encode(), b"key")
        self.offered.append((host, self.reactor.seconds()))
        if host in self.refusals:
            raise self.refusals[host]
        answer = self.answers.get(host, (True, ["taken up"]))
        if answer[0]:
            now = NOW + int(self.reactor.seconds())
            self.held[host] = CurrentCertificate(host, now, now + 90 * DAY, False, f"of {now}", b"chain")
        return answer

    @property
    def asked(self) -> list[str]:
        return [order.host for order in self.orders]

    def advance(self, seconds: float) -> None:
        for _ in range(int(seconds // CHECK_INTERVAL)):
            self.reactor.advance(CHECK_INTERVAL)
        self.reactor.advance(seconds % CHECK_INTERVAL)

    def rows(self) -> dict[str, Any]:
        return {row["host"]: row for row in done(self.acme.commands()["acme-status"]({})).data}

    def renew(self, host: str) -> Any:
        return done(self.acme.commands()["acme-renew"]({"host": host}))


def done(deferred: Deferred[Any]) -> Any:
    results: list[Any] = []
    deferred.addBoth(results.append)
    (result,) = results
    return result


def at_once(_reactor: object, _pool: object, call: Any, *given: Any) -> Deferred[Any]:
    """Instead of deferToThreadPool."""
    doing: Deferred[Any] = Deferred()
    doing.addCallback(lambda _none: call(*given))
    doing.callback(None)
    return doing


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(module, "deferToThreadPool", at_once)
    monkeypatch.setattr(coroutines, "deferToThreadPool", at_once)
    return World(site_of(tmp_path, [f"h{n}.example.test" for n in range(5)]).config())


def site_of(directory: Path, hosts: list[str]) -> Site:
    site = Site(directory).add("example.test", hosts)
    site.managed.add("example.test")
    site.of_domain["example.test"] = ["acme = true"]
    site.more = '[acme]\nterms_of_service = "agreed"\nwebroot = "/var/www"\n'
    return site


def test_each_host_gets_its_own_and_is_renewed_at_two_thirds(world: World) -> None:
    world.acme.follow()
    hosts = list(world.config.acme_hosts)
    assert sorted(world.asked) == sorted(hosts)
    world.advance(60 * DAY - CHECK_INTERVAL)
    assert len(world.offered) == 5
    world.advance(2 * CHECK_INTERVAL)
    assert sorted(host for host, _when in world.offered[5:]) == sorted(hosts)
    assert all(60 * DAY <= when <= 60 * DAY + CHECK_INTERVAL for _host, when in world.offered[5:])


def test_hosts_that_fail_wait_longer_each_time_and_delay_nobody(world: World) -> None:
    world.outcomes["h0.example.test"] = AcmeError("the authority could not verify it")
    world.answers["h1.example.test"] = (False, ["h1.example.test: refused", "nothing was changed"])
    world.acme.follow()
    assert sorted(host for host, _when in world.offered) == [f"h{n}.example.test" for n in range(1, 5)]
    for times, until in ((1, 299), (2, 301), (2, 899), (3, 901), (3, 2099), (4, 2101)):
        world.reactor.advance(until - world.reactor.seconds())
        assert world.asked.count("h0.example.test") == world.asked.count("h1.example.test") == times
    rows = world.rows()
    assert rows["h0.example.test"]["error"] == "the authority could not verify it"
    assert rows["h1.example.test"]["error"] == "h1.example.test: refused; nothing was changed"
    assert [rows[f"h{n}.example.test"]["failures"] for n in range(5)] == [4, 4, 0, 0, 0]
    assert rows["h2.example.test"]["next"] == NOW + 60 * DAY


def test_orders_that_hang_hold_up_no_other(world: World) -> None:
    world.outcomes["h0.example.test"] = world.outcomes["h1.example.test"] = None
    world.acme.follow()
    assert sorted(host for host, _when in world.offered) == [f"h{n}.example.test" for n in range(2, 5)]
    assert [row["running"] for row in world.rows().values()] == [True, True, False, False, False]
    world.advance(DAY)
    assert world.asked.count("h0.example.test") == 1


def test_few_run_at_once_and_what_takes_long_makes_way(world: World) -> None:
    for host in world.config.acme_hosts:
        world.outcomes[host] = None
    world.acme.follow()
    assert len(world.orders) == AT_ONCE
    world.orders[0].done.errback(AcmeError("late"))
    assert len(world.orders) == AT_ONCE + 1
    world.reactor.advance(SLOW - 1)
    assert len(world.orders) == AT_ONCE + 1
    world.reactor.advance(1)
    assert len(world.orders) == 5


def test_orders_that_hang_one_after_the_other_do_not_keep_the_account_from_a_change(hanging: World) -> None:
    hanging.acme.follow()
    hanging.reactor.advance(QUIET)
    with hanging.acme.pause() as quiet:
        assert not quiet
    before = len(hanging.orders)
    for _ in range(9):
        hanging.reactor.advance(10)
    with hanging.acme.pause() as quiet:
        assert quiet
        assert len(hanging.orders) == before
    assert len(hanging.orders) > before, "it is done, and they go on"
    with hanging.acme.pause() as quiet:
        assert not quiet
    before = len(hanging.orders)
    for _ in range(int(QUIET) // 10 - 1):
        hanging.reactor.advance(10)
    assert len(hanging.orders) == before
    hanging.reactor.advance(10)
    assert len(hanging.orders) > before, "nobody has come back"


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """201 hosts of which 200 hang, 70 seconds each, as long as a program that has to be ended takes."""
    monkeypatch.setattr(module, "deferToThreadPool", at_once)
    monkeypatch.setattr(coroutines, "deferToThreadPool", at_once)
    monkeypatch.setattr(acme_state, "save", lambda _directory, _attempts: None)  # each is synced
    hosts = [f"h{n}.example.test" for n in range(201)]
    world = World(site_of(tmp_path, hosts).config())
    world.outcomes, world.hang_time = dict.fromkeys(hosts[:200]), 70.0
    return world


def test_two_hundred_that_hang_are_few_processes_and_hold_up_the_last_for_a_bounded_time(hanging: World) -> None:
    last = "h200.example.test"
    hanging.acme.follow()
    most = 0
    for _ in range(300):
        hanging.reactor.advance(10)
        most = max(most, sum(row["running"] for row in hanging.rows().values()))
        if last in hanging.begun:
            break
    assert hanging.offered[0][0] == last
    assert most == 2 * AT_ONCE + SLOW_AT_ONCE < MOST
    # They make way as fast as there are places for it.
    assert hanging.begun[last] <= 200 / AT_ONCE * SLOW + 70


def test_a_host_that_is_new_waits_for_none_that_has_hung_before(hanging: World) -> None:
    late = "h200.example.test"
    of_late = hanging.held.pop(late)
    hanging.acme.follow()
    for _ in range(300):
        hanging.reactor.advance(10)
    assert len(hanging.begun) == 200
    assert sum(row["running"] for row in hanging.rows().values()) >= AT_ONCE
    hanging.held[late] = of_late
    hanging.acme.follow()
    assert hanging.begun[late] == hanging.reactor.seconds()


def test_of_two_domains_the_one_that_hangs_is_not_in_front_with_all_of_its_hosts(hanging: World) -> None:
    late = "h200.example.test"
    hanging.held[late] = CurrentCertificate(late, NOW, NOW + DAY, self_signed=True, domain="another.test")
    hanging.acme.follow()
    assert hanging.begun[late] <= SLOW


def test_records_that_hang_hold_up_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "deferToThreadPool", at_once)
    monkeypatch.setattr(coroutines, "deferToThreadPool", at_once)
    wild = [f"*.w{n}.example.test" for n in range(20)]
    site = site_of(tmp_path, [*wild, "mail.example.test"])
    site.more += '[acme.dns]\nhook = ["/bin/true"]\n'
    world = World(site.config())
    world.outcomes = dict.fromkeys(wild)
    world.acme.follow()
    assert world.offered == [("mail.example.test", 0)]
    # And what is asked for by hand waits for neither.
    assert world.renew(wild[-1])[0]
    assert world.asked[-1] == wild[-1]


def test_the_authority_may_say_when_to_come_again(world: World) -> None:
    world.outcomes["h0.example.test"] = AcmeError("rateLimited", 3 * 3600)
    world.acme.follow()
    assert world.rows()["h0.example.test"]["next"] == NOW + 3 * 3600


def test_the_authority_is_asked_when_to_renew_each_certificate_that_it_gave(world: World) -> None:
    first, second = "h0.example.test", "h1.example.test"
    world.windows[first] = (NOW + 10 * DAY, NOW + 9 * DAY, NOW + 11 * DAY)
    world.acme.follow()
    assert sorted(host for hosts in world.asked_about for host in hosts) == sorted(world.config.acme_hosts)
    assert world.rows()[first]["next"] == NOW + 10 * DAY
    assert world.rows()[second]["next"] == NOW + 60 * DAY
    world.asked_about.clear()
    world.advance(FAILED_AGAIN - CHECK_INTERVAL)
    assert not world.asked_about
    world.windows[second] = (NOW - 50, NOW - 60, NOW - 40)  # revoked by the authority, say
    world.advance(DAY)
    assert any(second in hosts for hosts in world.asked_about)
    assert world.asked.count(second) == 2
    del world.windows[second]
    world.advance(9 * DAY)
    assert world.asked.count(first) == 2


def test_windows_outlive_the_process(world: World) -> None:
    world.windows["h0.example.test"] = (NOW + 10 * DAY, NOW + 9 * DAY, NOW + 11 * DAY)
    world.acme.follow()
    world.acme.stop()
    world.asked_about.clear()
    world.begin()
    world.acme.follow()
    assert not world.asked_about
    assert world.rows()["h0.example.test"]["next"] == NOW + 10 * DAY


def test_an_order_is_closed_once_its_certificate_was_judged_and_stays_where_it_could_not_be(world: World) -> None:
    good, bad, later = (f"h{n}.example.test" for n in range(3))
    world.answers[bad] = (False, ["it is of another key"])
    world.refusals[later] = ChangeRefused(["no space is left on the disk"], later=True)
    world.acme.follow()
    closed = {order.host: order.closed for order in world.orders}
    assert (closed[good], closed[bad], closed[later]) == (True, True, False)
    assert world.rows()[later]["error"] == "no space is left on the disk"


def test_nothing_begins_while_the_account_changes(world: World) -> None:
    world.outcomes["h0.example.test"] = None
    world.acme.follow()
    with world.acme.pause() as quiet:
        assert not quiet
    world.orders[0].done.errback(AcmeError("late"))
    before = len(world.orders)
    with world.acme.pause() as quiet:
        assert quiet
        world.renew("h1.example.test")
        world.advance(DAY)
        assert len(world.orders) == before
        with world.acme.pause() as again:
            assert not again
        assert len(world.orders) == before
    assert len(world.orders) > before


def test_two_hundred_that_fail_delay_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_a_moment(reactor: Reactor, _pool: object, call: Any, *given: Any) -> Deferred[Any]:
        doing: Deferred[Any] = Deferred()
        reactor.callLater(0, doing.callback, None)
        return doing.addCallback(lambda _none: call(*given))

    monkeypatch.setattr(module, "deferToThreadPool", in_a_moment)
    monkeypatch.setattr(coroutines, "deferToThreadPool", in_a_moment)
    monkeypatch.setattr(acme_state, "save", lambda _directory, _attempts: None)  # each is synced
    hosts = [f"h{n}.example.test" for n in range(201)]
    world = World(site_of(tmp_path, hosts).config())
    world.outcomes = {host: AcmeError("the authority could not verify it") for host in hosts[:200]}
    world.acme.follow()
    for _ in range(1000):
        world.reactor.advance(0)
    assert world.offered == [(hosts[200], 0)]
    assert set(world.asked) == set(hosts)
    # All are due again at once, and a certificate that has never failed comes before them.
    world.held[hosts[200]] = CurrentCertificate(hosts[200], NOW - 80 * DAY, NOW + 10 * DAY, self_signed=False)
    world.reactor.advance(AFTER_SUCCESS)
    assert hosts[200] in world.asked[201 : 201 + 2 * AT_ONCE]


def test_what_an_earlier_process_has_left_comes_first(world: World) -> None:
    done_first: Deferred[None] = Deferred()

    async def first() -> None:
        await done_first

    world.acme.first = first
    world.acme.follow()
    world.acme.follow()  # as by the reload that it ends with
    assert world.orders == []
    done_first.callback(None)
    assert len(world.orders) == 5


def test_a_restart_knows_what_has_failed(world: World) -> None:
    world.outcomes["h0.example.test"] = AcmeError("no")
    world.acme.follow()
    world.acme.stop()
    before = len(world.orders)
    world.begin()
    world.acme.follow()
    assert len(world.orders) == before
    world.reactor.advance(301)
    assert world.asked[before:] == ["h0.example.test"]
    assert world.rows()["h0.example.test"]["failures"] == 2


def test_a_bug_is_a_failure_like_others(world: World) -> None:
    world.outcomes["h0.example.test"] = KeyError("unforeseen")
    world.acme.follow()
    assert world.rows()["h0.example.test"]["error"] == "internal error: KeyError"
    assert world.rows()["h0.example.test"]["next"] == NOW + 300


def test_the_administrator_need_not_wait(world: World) -> None:
    world.outcomes["h0.example.test"] = AcmeError("no")
    world.acme.follow()
    world.outcomes.clear()
    assert world.renew("h0.example.test") == (True, ["h0.example.test: ordered"])
    assert world.rows()["h0.example.test"]["failures"] == 0
    assert world.renew("")[0]
    assert len(world.offered) == 4 + 1 + 5
    ok, lines = world.renew("other")
    assert not ok
    assert "is no host of a [[domain]] with acme = true" in lines[0]
    with pytest.raises(BadRequest):
        world.acme.commands()["acme-renew"]({})


def test_what_is_asked_for_while_an_order_runs_is_under_way_until_its_own_has_ended(world: World) -> None:
    host = "h0.example.test"
    world.outcomes[host] = None
    world.acme.follow()
    first = next(order for order in world.orders if order.host == host)
    assert world.renew(host)[0]
    before = len(world.orders)
    first.done.callback(Obtained(b"chain of h0.example.test", Secret(b"key")))
    assert [order.host for order in world.orders[before:]] == [host]
    assert world.rows()[host]["running"]
    world.orders[-1].done.errback(AcmeError("no"))
    assert not world.rows()[host]["running"]
    assert world.rows()[host]["error"] == "no"
    # As long as it finds no place, too.
    with world.acme.pause():
        assert world.renew(host)[0]
        assert world.rows()[host]["running"]


def test_the_end_stops_what_is_under_way_and_counts_no_failure(world: World) -> None:
    world.outcomes["h0.example.test"] = None
    world.acme.follow()
    order = next(order for order in world.orders if order.host == "h0.example.test")
    world.acme.stop()
    assert order.stopped
    order.done.errback(AcmeError("it was ended"))
    assert not world.reactor.getDelayedCalls()
    assert "h0.example.test" not in acme_state.all_attempts(world.config.server.state_dir)


def test_without_a_state_directory_nothing_is_asked_for(world: World) -> None:
    in_the_way = world.config.server.state_dir
    in_the_way.write_text("in the way")
    world.acme.follow()
    assert world.orders == []
    ok, lines = world.renew("")
    assert not ok
    assert "state directory" in lines[0]
    world.acme.follow()  # by a reload
    assert len(world.reactor.getDelayedCalls()) == 1
    in_the_way.unlink()
    world.reactor.advance(CHECK_INTERVAL)
    assert len(world.orders) == 5, "it is looked for again"
