"""Who asks an authority, when: by a clock, with orders that succeed, fail and hang."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailserver.config.model import Config
from mailserver.net import acme as module
from mailserver.net.acme import AT_ONCE, LOOK, AcmeCertificates
from mailserver.net.control import BadRequest
from mailserver.tls import acme_state
from mailserver.tls.acme_order import NotObtained, Obtained
from mailserver.tls.acme_plan import Held
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
        self.done: Deferred[Any] = Deferred()

    def obtain(self) -> Any:
        outcome = self.world.outcomes.get(self.host, "ok")
        if outcome is None:
            return self.done
        if isinstance(outcome, Exception):
            raise outcome
        return Obtained(b"chain of " + self.host.encode(), Secret(b"key"))

    def stop(self) -> None:
        self.stopped = True


class World:
    """A clock that begins at NOW, and hosts that are self-signed until something is offered."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.outcomes: dict[str, Any] = {}
        self.answers: dict[str, tuple[bool, list[str]]] = {}
        self.orders: list[FakeOrder] = []
        self.offered: list[tuple[str, float]] = []
        self.held = {host: Held(host, NOW, NOW + DAY, self_signed=True) for host in [*config.acme_hosts, "other"]}
        self.reactor = Reactor()
        self.begin()

    def begin(self) -> None:
        self.acme = AcmeCertificates(
            self.reactor,
            config=lambda: self.config,
            held=self.held.values,
            offer=self._offer,
            make_order=self._make_order,
            wall=lambda: NOW + self.reactor.seconds(),
        )

    def _make_order(self, _config: Config, host: str) -> FakeOrder:
        self.orders.append(FakeOrder(self, host))
        return self.orders[-1]

    async def _offer(self, hosts: list[str], chain: bytes, key: bytes, _reason: str) -> tuple[bool, list[str]]:
        (host,) = hosts
        assert (chain, key) == (b"chain of " + host.encode(), b"key")
        self.offered.append((host, self.reactor.seconds()))
        answer = self.answers.get(host, (True, ["taken up"]))
        if answer[0]:
            now = NOW + int(self.reactor.seconds())
            self.held[host] = Held(host, now, now + 90 * DAY, self_signed=False)
        return answer

    @property
    def asked(self) -> list[str]:
        return [order.host for order in self.orders]

    def advance(self, seconds: float) -> None:
        for _ in range(int(seconds // LOOK)):
            self.reactor.advance(LOOK)
        self.reactor.advance(seconds % LOOK)

    def rows(self) -> dict[str, Any]:
        return {row["host"]: row for row in done(self.acme.commands()["acme-status"]({})).data}

    def renew(self, host: str) -> Any:
        return done(self.acme.commands()["acme-renew"]({"host": host}))


def done(deferred: Deferred[Any]) -> Any:
    results: list[Any] = []
    deferred.addBoth(results.append)
    (result,) = results
    return result


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    def at_once(_reactor: object, _pool: object, call: Any, *given: Any) -> Deferred[Any]:
        doing: Deferred[Any] = Deferred()
        doing.addCallback(lambda _none: call(*given))
        doing.callback(None)
        return doing

    monkeypatch.setattr(module, "deferToThreadPool", at_once)
    site = Site(tmp_path).add("example.test", [f"h{n}.example.test" for n in range(5)])
    site.managed.add("example.test")
    site.of_domain["example.test"] = ["acme = true"]
    site.more = '[acme]\nterms_of_service = "agreed"\nwebroot = "/var/www"\n'
    return World(site.config())


def test_each_host_gets_its_own_and_is_renewed_at_two_thirds(world: World) -> None:
    world.acme.follow()
    hosts = list(world.config.acme_hosts)
    assert sorted(world.asked) == sorted(hosts)
    world.advance(60 * DAY - LOOK)
    assert len(world.offered) == 5
    world.advance(2 * LOOK)
    assert sorted(host for host, _when in world.offered[5:]) == sorted(hosts)
    assert all(60 * DAY <= when <= 60 * DAY + LOOK for _host, when in world.offered[5:])


def test_hosts_that_fail_wait_longer_each_time_and_delay_nobody(world: World) -> None:
    world.outcomes["h0.example.test"] = NotObtained("the authority could not verify it")
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


def test_few_run_at_once(world: World) -> None:
    for host in world.config.acme_hosts:
        world.outcomes[host] = None
    world.acme.follow()
    assert len(world.orders) == AT_ONCE
    world.orders[0].done.errback(NotObtained("late"))
    assert len(world.orders) == AT_ONCE + 1


def test_the_authority_may_say_when_to_come_again(world: World) -> None:
    world.outcomes["h0.example.test"] = NotObtained("rateLimited", 3 * 3600)
    world.acme.follow()
    assert world.rows()["h0.example.test"]["next"] == NOW + 3 * 3600


def test_a_restart_knows_what_has_failed(world: World) -> None:
    world.outcomes["h0.example.test"] = NotObtained("no")
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
    world.outcomes["h0.example.test"] = NotObtained("no")
    world.acme.follow()
    world.outcomes.clear()
    assert world.renew("h0.example.test") == (True, ["h0.example.test: is asked for"])
    assert world.rows()["h0.example.test"]["failures"] == 0
    assert world.renew("")[0]
    assert len(world.offered) == 4 + 1 + 5
    ok, lines = world.renew("other")
    assert not ok
    assert "is no host of a [[domain]] with acme = true" in lines[0]
    with pytest.raises(BadRequest):
        world.acme.commands()["acme-renew"]({})


def test_the_end_stops_what_is_under_way_and_counts_no_failure(world: World) -> None:
    world.outcomes["h0.example.test"] = None
    world.acme.follow()
    order = next(order for order in world.orders if order.host == "h0.example.test")
    world.acme.stop()
    assert order.stopped
    order.done.errback(NotObtained("it was ended"))
    assert not world.reactor.getDelayedCalls()
    assert "h0.example.test" not in acme_state.all_attempts(world.config.server.state_dir)


def test_without_a_state_directory_nothing_is_asked_for(world: World) -> None:
    world.config.server.state_dir.write_text("in the way")
    world.acme.follow()
    assert world.orders == []
    ok, lines = world.renew("")
    assert not ok
    assert "state directory" in lines[0]
