"""The queue's mail on its way, with a naive queue in memory, hops without sockets, and a clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from mailserver.config.kinds import HostName, NextHop
from mailserver.config.model.outbound import Delivery, Route
from mailserver.errors import StorageFailure
from mailserver.net.outbound import queue_runner
from mailserver.net.outbound.dialer import IDLE_TIME
from mailserver.net.outbound.hop_pool import MOST_AT_A_HOP, HopPool
from mailserver.net.outbound.mx_hosts import MXHosts
from mailserver.net.outbound.place import Place
from mailserver.net.outbound.queue_runner import MOST_ACTIVE, QueueRunner, RunnerLimits
from mailserver.net.outbound.transaction_semaphore import PATIENCE
from mailserver.queue.model import Envelope, QueueBusy, Target
from mailserver.queue.outcome import Outcome
from mailserver.queue.routing import Routes
from mailserver.smtp.onward_transaction import ANSWER_TIME, OnwardSession
from tests.dns.test_mail_exchange import Zone, addresses
from tests.net.clocked_hop import ClockedHop
from tests.queue.memory_queue import MemoryQueue

TEXT = b"From: anna@example.test\r\n\r\n.dots\r\n"
START = 1_700_000_000


class World:
    """A queue, hops by address, and the runner between them."""

    def __init__(
        self, directory: Path, *, limits: RunnerLimits | None = None, routes: list[Route] | None = None
    ) -> None:
        self.clock = Clock()
        self.clock.rightNow = START
        self.queue = MemoryQueue(directory)
        self.zone = Zone()
        self.hops: dict[str, ClockedHop] = {}
        delivery = Delivery(mx=True)
        self.runner = QueueRunner(
            self.clock,
            self.queue,
            Routes(routes or [], delivery),
            MXHosts(self.zone, delivery, "mail.example.test", lambda _address, _port: False),
            HopPool(self._open),
            limits=limits or RunnerLimits(),
            call_in_thread=self._in_thread,
        )
        self.runner.start()

    def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """The call itself at once, its result in another turn."""
        result: Deferred[Any] = Deferred()
        maybeDeferred(call, *arguments).addBoth(lambda found: self.clock.callLater(0, self._fire, result, found))
        return result

    @staticmethod
    def _fire(waiting: Deferred[Any], result: Any) -> None:
        if not waiting.called:
            waiting.callback(result)

    async def _open(self, place: Place) -> OnwardSession | Outcome:
        return await self.hops[place.address].connect(place)

    def hop(self, *domains: str, address: str = "") -> ClockedHop:
        """A host for these domains."""
        address = address or f"192.0.2.{len(self.hops) + 1}"
        made = self.hops[address] = ClockedHop(self.clock)
        for domain in domains:
            self.zone.records[f"{domain} A"] = addresses(address)
        return made

    def send(self, *recipients: str, sender: str = "anna@example.test", data: bytes = TEXT) -> None:
        """Queue one message for them."""
        targets = [Target(each, each.rpartition("@")[2]) for each in recipients]
        self.queue.accept(Envelope(sender, int(self.clock.seconds())), targets, data)

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, and whatever is to be done at once."""
        end = self.clock.seconds() + seconds
        for _ in range(100_000):
            calls = [each for each in self.clock.getDelayedCalls() if each.getTime() <= end]
            if not calls:
                break
            self.clock.advance(max(0.0, min(each.getTime() for each in calls) - self.clock.seconds()))
        else:
            raise AssertionError("it does not come to rest")
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    def go(self, seconds: float = 0.0) -> None:
        """Poke, and let time pass."""
        self.runner.poke()
        self.turn(seconds)

    def results(self, recipient: str) -> list[str]:
        return [each.result for each in self.queue.results_of.get(recipient, [])]

    def check_nothing_is_left(self) -> None:
        """No destination, connection or timer but that of the next look."""
        assert self.runner.active == self.runner.pool.in_use == 0
        assert self.runner.permits.waiting == 0
        assert self.runner.counters.bugs == 0
        assert self.queue.recipients == {}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_message_is_sent_and_leaves_the_queue(world: World) -> None:
    hop = world.hop("a.test")
    world.send("x@a.test", "y@a.test")
    world.go()
    assert hop.messages == [TEXT]
    assert hop.recipients == ["x@a.test", "y@a.test"]
    assert hop.lines[1].startswith(b"MAIL FROM:<anna@example.test> ")
    assert world.results("x@a.test") == ["relayed"]
    world.check_nothing_is_left()
    world.turn(IDLE_TIME)
    assert hop.lines[-1] == b"QUIT"
    assert hop.open == 0


def test_messages_of_a_destination_share_a_connection(world: World) -> None:
    hop = world.hop("a.test")
    for number in range(7):
        world.send(f"x{number}@a.test")
    world.go()
    assert len(hop.messages) == 7
    assert len(hop.connections) <= MOST_AT_A_HOP
    world.check_nothing_is_left()


def test_a_poke_that_is_lost_costs_a_second(world: World) -> None:
    hop = world.hop("a.test")
    world.turn(5)
    world.send("x@a.test")
    world.turn(1)
    assert hop.messages == [TEXT]


def test_what_is_due_later_is_sent_then(world: World) -> None:
    hop = world.hop("a.test")
    hop.replies[b"RCPT"] = b"450 4.2.1 later"
    world.send("x@a.test")
    world.go()
    assert world.results("x@a.test") == ["deferred"]
    del hop.replies[b"RCPT"]
    world.turn(299)
    assert world.results("x@a.test") == ["deferred"]
    world.turn(2)
    assert world.results("x@a.test") == ["deferred", "relayed"]
    world.check_nothing_is_left()


def test_a_result_is_recorded_before_the_connection_carries_the_next_message(world: World) -> None:
    seen: list[tuple[int, int]] = []
    hop = world.hop("a.test")

    def mail() -> bytes:
        done = sum(len(each) for each in world.queue.results_of.values())
        seen.append((done, len(hop.messages)))
        return b"250 ok"

    hop.replies[b"MAIL"] = mail
    world.runner._limits = RunnerLimits(per_destination=1)
    for number in range(5):
        world.send(f"x{number}@a.test")
    world.go()
    assert seen == [(number, number) for number in range(5)]


@pytest.mark.parametrize(
    ("domain", "status"), [("no.such.test", "5.1.2"), ("null.test", "5.1.10")], ids=["no domain", "null mx"]
)
def test_a_domain_without_hosts_fails_for_good(world: World, domain: str, status: str) -> None:
    from tests.dns.test_mail_exchange import mx

    world.zone.records["null.test MX"] = mx((0, ""))
    for number in range(30):
        world.send(f"x{number}@{domain}")
    world.go()
    assert len(world.queue.failed) == 30
    assert world.queue.results_of[f"x0@{domain}"][0].status == status
    world.check_nothing_is_left()


def test_each_recipient_has_its_result(world: World) -> None:
    hop = world.hop("a.test")
    hop.replies |= {b"RCPT TO:<no@": b"550 5.1.1 nobody", b"RCPT TO:<later@": b"450 4.2.1 busy"}
    world.send("no@a.test", "yes@a.test", "later@a.test")
    world.go()
    assert [world.results(f"{name}@a.test") for name in ("no", "yes", "later")] == [
        ["failed"],
        ["relayed"],
        ["deferred"],
    ]
    assert world.queue.failed == ["no@a.test"]


def test_a_hop_with_a_limit_gets_the_others_in_the_next_transaction(world: World) -> None:
    hop = world.hop("a.test")
    count = 0

    def recipient() -> bytes:
        nonlocal count
        count += 1
        return b"250 ok" if count % 3 else b"452 4.5.3 too many"

    hop.replies[b"RCPT"] = recipient
    hop.replies[b"MAIL"] = lambda: b"250 ok"
    names = [f"x{number}@a.test" for number in range(10)]
    world.send(*names)
    world.go()
    assert sorted(hop.recipients) == sorted(names)
    assert len(hop.connections) == 1
    world.check_nothing_is_left()


def test_many_recipients_go_in_several_transactions(world: World) -> None:
    hop = world.hop("a.test")
    names = [f"x{number}@a.test" for number in range(250)]
    world.send(*names)
    world.go()
    assert hop.recipients == names
    assert len(hop.messages) == 3
    assert len({id(each) for each in hop.connections}) == 1


def test_senders_that_differ_have_transactions_of_their_own(world: World) -> None:
    hop = world.hop("a.test")
    envelope = Envelope("anna@example.test", START)
    targets = [Target("x@a.test", "a.test"), Target("y@a.test", "a.test", sender="srs@example.test")]
    world.queue.accept(envelope, [*targets, Target("z@a.test", "a.test", sender="")], TEXT)
    world.go()
    senders = [each.split(b">")[0] for each in hop.lines if each.startswith(b"MAIL")]
    assert senders == [b"MAIL FROM:<anna@example.test", b"MAIL FROM:<srs@example.test", b"MAIL FROM:<"]


def test_the_routes_in_force_decide_and_the_key_only_groups(tmp_path: Path) -> None:
    route = Route(host=NextHop("192.0.2.77"), recipient_domains=(HostName("a.test"),))
    world = World(tmp_path, routes=[route])
    world.hop("a.test")
    relay = world.hop(address="192.0.2.77")
    world.send("x@a.test")  # its row has the domain as key, from before the route
    world.go()
    assert relay.recipients == ["x@a.test"]


def test_mail_that_has_no_way_any_more_waits(world: World) -> None:
    world.runner.routes = Routes([], Delivery())
    world.send("x@a.test")
    world.go()
    assert world.queue.results_of["x@a.test"][0].status == "4.4.4"
    assert world.results("x@a.test") == ["deferred"]


@pytest.mark.parametrize(("address", "status"), [("no-domain", "5.1.3"), ("a b@a.test", "relayed")], ids=str)
def test_addresses_as_the_queue_has_them(world: World, address: str, status: str) -> None:
    hop = world.hop("a.test")
    world.queue.accept(Envelope("", START), [Target(address, "a.test")], TEXT)
    world.go()
    found = world.queue.results_of[address][0]
    assert status in (found.status, found.result)
    assert hop.recipients == (['"a b"@a.test'] if status == "relayed" else [])


# --- Hops that are down or slow


def test_a_dead_hop_is_tried_once_for_all_messages(world: World) -> None:
    hop = world.hop("a.test")
    hop.refuses = True
    for number in range(50):
        world.send(f"x{number}@a.test")
    world.go(200)
    assert len(hop.connections) == 0
    assert [each.failures for each in world.queue.hops()] == [1]
    assert list(world.queue.results_of) == ["x0@a.test"], "the others stay as they are"
    assert sum("take" in each for each in world.queue.calls) == 1
    hop.refuses = False
    world.turn(110)
    assert len(hop.messages) == 50
    world.check_nothing_is_left()


def test_the_next_address_takes_what_the_first_refuses_in_its_greeting(world: World) -> None:
    first, second = world.hop(), world.hop()
    world.zone.records["a.test A"] = addresses("192.0.2.1", "192.0.2.2")
    first.replies[b""] = b"554 5.3.2 go away"
    world.send("x@a.test")
    world.go()
    assert second.recipients == ["x@a.test"]
    assert world.results("x@a.test") == ["relayed"]


def test_two_hosts_that_refuse_are_enough_for_one_attempt(world: World) -> None:
    hops = [world.hop() for _ in range(4)]
    world.zone.records["a.test A"] = addresses(*(f"192.0.2.{number}" for number in range(1, 5)))
    for hop in hops:
        hop.replies[b"EHLO"] = b"421 4.3.2 busy"
    world.send("x@a.test")
    world.go()
    assert [len(each.connections) for each in hops] == [1, 1, 0, 0]
    assert world.results("x@a.test") == ["hop_failed"]


def test_a_connection_that_has_gone_meanwhile_costs_no_try(world: World) -> None:
    hop = world.hop("a.test")
    world.send("x@a.test")
    world.go()
    count = 0

    def mail() -> bytes:
        nonlocal count
        count += 1
        return b"" if count == 1 else b"250 ok"

    hop.replies[b"MAIL"] = mail
    world.send("y@a.test")
    world.go()
    assert world.results("y@a.test") == ["relayed"]
    assert len(hop.connections) == 2


def test_a_new_connection_that_goes_at_mail_is_a_try(world: World) -> None:
    hop = world.hop("a.test")
    hop.replies[b"MAIL"] = b""
    world.send("x@a.test")
    world.go()
    assert world.results("x@a.test") == ["deferred"]
    assert len(hop.connections) == 1


STAGES: list[bytes] = [b"", b"EHLO", b"MAIL", b"RCPT", b"DATA", b"."]


@pytest.mark.parametrize("stage", STAGES, ids=["greeting", "ehlo", "mail", "rcpt", "data", "message"])
def test_hops_that_stall_do_not_hold_up_others(tmp_path: Path, stage: bytes) -> None:
    """Twice as many as may transact at once stall at a stage; the others' mail leaves meanwhile."""
    world = World(tmp_path, limits=RunnerLimits(concurrency=4))
    stalled = 3 if stage == b"." else 8  # a permit is held behind the dot
    slow = [world.hop(f"stall{number}.test") for number in range(stalled)]
    for number, hop in enumerate(slow):
        hop.replies[stage] = None
        world.send(f"x@stall{number}.test")
    world.go(1)
    good = world.hop("good.test")
    for number in range(20):
        world.send(f"x{number}@good.test")
    world.go(2 * PATIENCE + 1)
    assert len(good.messages) == 20
    assert world.runner.permits.lent == (0 if stage == b"." else 8)
    assert len(world.queue.recipients) == stalled
    for hop in slow:
        hop.replies.clear()
    world.turn(1000)
    assert [hop.recipients[-1] for hop in slow] == [f"x@stall{number}.test" for number in range(stalled)]
    world.check_nothing_is_left()


def test_hosts_that_cannot_be_reached_do_not_hold_up_others(tmp_path: Path) -> None:
    world = World(tmp_path, limits=RunnerLimits(concurrency=10))
    for number in range(30):
        world.hop(f"dead{number}.test").is_reachable = False
        world.send(f"x@dead{number}.test")
    world.go(2 * PATIENCE)
    good = world.hop("good.test")
    world.send("x@good.test")
    world.go(2)
    assert good.messages == [TEXT]


def test_a_hop_that_breaks_off_each_time_has_to_wait(world: World) -> None:
    hop = world.hop("a.test")
    hop.replies[b"DATA"] = b""
    for number in range(20):
        world.send(f"x{number}@a.test")
    world.go(100)
    assert len(hop.connections) == 3
    assert sum(map(len, world.queue.results_of.values())) == 3
    del hop.replies[b"DATA"]
    world.turn(210)
    assert len(hop.messages) == 20


def test_a_message_that_breaks_the_connection_does_not_hold_up_the_others(world: World) -> None:
    hop = world.hop("a.test")
    hop.replies[b"RCPT TO:<bad@"] = b""
    world.send("bad@a.test")
    for number in range(5):
        world.send(f"x{number}@a.test")
    world.go()
    assert len(hop.messages) == 5
    assert world.results("bad@a.test") == ["deferred"]


def test_a_destination_goes_on_beside_a_message_that_the_hop_does_not_answer(world: World) -> None:
    hop = world.hop("a.test")
    world.send("first@a.test")
    world.go()
    hop.replies[b"RCPT TO:<slow@"] = None
    world.send("slow@a.test")
    world.go(1)
    world.send("x@a.test")
    world.go(PATIENCE + 2)
    assert world.results("x@a.test") == ["relayed"]
    assert world.results("slow@a.test") == []
    world.turn(ANSWER_TIME)
    assert world.results("slow@a.test") == ["deferred"]


# --- Many destinations


def test_a_flood_of_destinations_runs_so_many_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, limits=RunnerLimits(concurrency=5))
    most = 0
    hops = [world.hop(f"d{number}.test", address=f"192.0.{number // 250}.{number % 250}") for number in range(150)]

    def data() -> bytes:
        nonlocal most
        most = max(most, world.runner.active)
        return b"354 go on"

    for number, hop in enumerate(hops):
        hop.replies[b"DATA"] = data
        world.send(f"x@d{number}.test")
    world.go()
    assert sum(len(each.messages) for each in hops) == 150
    assert 5 <= most <= MOST_ACTIVE
    assert world.runner.permits.waiting == 0
    world.check_nothing_is_left()


def test_no_more_transactions_are_between_dot_and_result_than_may_be(tmp_path: Path) -> None:
    world = World(tmp_path, limits=RunnerLimits(concurrency=3))
    hops = [world.hop(f"d{number}.test") for number in range(12)]
    for number, hop in enumerate(hops):
        hop.replies[b"."] = None
        world.send(f"x@d{number}.test")
    world.go(3 * PATIENCE)
    assert sum(len(each.messages) for each in hops) == 3


def test_large_destinations_let_others_have_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_runner, "MOST_ACTIVE", 4)
    monkeypatch.setattr(queue_runner, "MESSAGES_BEFORE_OTHERS", 10)
    world = World(tmp_path, limits=RunnerLimits(concurrency=2, per_destination=1))
    order: list[int] = []
    for number in range(5):
        hop = world.hop(f"d{number}.test")
        hop.replies[b"DATA"] = lambda number=number: order.append(number) or b"354 go on"
        for _ in range(1 if number == 4 else 30):
            world.send(f"x@d{number}.test")
        world.clock.rightNow += 1
    world.go(1)
    assert len(order) == 121
    assert order.index(4) < 60
    world.check_nothing_is_left()


def test_domains_with_one_host_share_its_connections_in_turn(world: World) -> None:
    domains = [f"d{number}.test" for number in range(6)]
    hop = world.hop(*domains)
    order: list[str] = []

    def data() -> bytes:
        order.append(hop.lines[-2].decode().partition("@")[2].rstrip(">"))
        return b"354 go on"

    hop.replies[b"DATA"] = data
    for domain in domains:
        for number in range(50):
            world.send(f"x{number}@{domain}")
    world.go(10)
    assert len(hop.messages) == 300
    assert hop.most_open <= MOST_AT_A_HOP
    # None has all of its turns before another has its first.
    assert max(order.index(domain) for domain in domains) < 150
    assert world.runner.waiting_for_room == 0
    world.check_nothing_is_left()


# --- The queue itself


def test_results_that_cannot_be_written_are_kept_and_nothing_further_is_sent(world: World) -> None:
    hop, other = world.hop("a.test"), world.hop("b.test")

    def accept() -> bytes:
        world.queue.error = StorageFailure()
        return b"250 taken"

    hop.replies[b"."] = accept
    world.send("x@a.test")
    world.send("y@a.test")
    world.go(1)
    assert hop.messages == [TEXT]
    world.send("z@b.test")
    world.go(20)
    assert (hop.messages, other.messages) == ([TEXT], [])
    world.queue.error = None
    del hop.replies[b"."]
    world.turn(30)
    assert sorted(hop.recipients) == ["x@a.test", "y@a.test"]
    assert other.recipients == ["z@b.test"]
    world.check_nothing_is_left()


def test_a_queue_that_cannot_be_read_is_asked_again(world: World) -> None:
    hop = world.hop("a.test")
    world.queue.error = QueueBusy()
    world.send("x@a.test")
    world.go(100)
    assert len(world.queue.calls) <= 40
    world.queue.error = None
    world.turn(6)
    assert hop.messages == [TEXT]


def test_results_that_meet_share_a_commit(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in range(12):
        world.hop(f"d{number}.test")
        world.send(f"x@d{number}.test")
    world.go()
    assert len(world.queue.results_of) == 12
    assert world.queue.commits < 8
    world.check_nothing_is_left()


def test_a_message_without_its_file_waits_and_the_others_go(world: World, tmp_path: Path) -> None:
    hop = world.hop("a.test")
    world.send("x@a.test")
    (tmp_path / "m1").unlink()
    world.send("y@a.test")
    world.go()
    assert world.queue.results_of["x@a.test"][0].status == "4.3.0"
    assert hop.recipients == ["y@a.test"]


def test_a_file_that_is_too_short_is_never_taken_for_a_whole_message(world: World, tmp_path: Path) -> None:
    hop = world.hop("a.test")
    world.send("x@a.test", data=b"Subject: x\r\n\r\n" + b"line\r\n" * 20_000)
    content = (tmp_path / "m1").read_bytes()
    (tmp_path / "m1").write_bytes(content[:-6])
    world.go()
    assert hop.messages == []
    assert world.results("x@a.test") == ["deferred"]
    assert world.runner.counters.bugs == 0


def test_a_bug_hurts_its_message_alone_and_is_not_repeated(world: World) -> None:
    hop, other = world.hop("a.test"), world.hop("b.test")
    world.send("x@a.test")
    world.send("y@b.test")
    results = world.queue.results

    def failing(found: Any, now: int, *, token: str = "") -> Any:
        if any(each.target.address == "x@a.test" for each, _outcome in found):
            raise KeyError("x")
        return results(found, now, token=token)

    world.queue.results = failing  # type: ignore[method-assign]
    world.go(300)
    assert other.recipients == ["y@b.test"]
    assert hop.recipients == ["x@a.test"], "once, as nobody knows its result"
    assert world.runner.counters.bugs == 1


def test_results_are_synced_within_a_second(world: World) -> None:
    world.hop("a.test")
    world.turn(1)
    world.queue.upkeep.clear()
    world.send("x@a.test")
    world.go()
    assert [each for each in world.queue.upkeep if each[0] == "sync"] == []
    world.turn(1)
    assert [each for each in world.queue.upkeep if each[0] == "sync"] == [("sync", 1, frozenset())]
    world.turn(30)
    assert len([each for each in world.queue.upkeep if each[0] == "sync"]) == 1


def test_a_sync_that_fails_is_done_again(world: World) -> None:
    world.hop("a.test")
    world.send("x@a.test")
    world.go()
    world.queue.error = StorageFailure()
    world.turn(3)
    world.queue.error = None
    assert [each for each in world.queue.upkeep if each[0] == "sync"] == []
    world.turn(1)
    assert [each for each in world.queue.upkeep if each[0] == "sync"] == [("sync", 1, frozenset())]


def test_upkeep_leaves_out_what_is_being_tried(world: World) -> None:
    hop = world.hop("a.test")
    hop.replies[b"DATA"] = None
    world.send("x@a.test")
    world.go(61)
    overdue = [each for each in world.queue.upkeep if each[0] == "overdue"]
    assert [each[1] - START for each in overdue] == [0, 60]
    assert overdue[1][2] == frozenset(world.queue.recipients)
    assert len([each for each in world.queue.upkeep if each[0] == "sweep"]) == 1


# --- The end


def test_stopping_lets_transactions_end_and_begins_none(world: World) -> None:
    hop = world.hop("a.test")
    hop.replies[b"."] = None
    for number in range(3):
        world.send(f"x{number}@a.test")
    world.go()
    done: list[Any] = []
    Deferred.fromCoroutine(world.runner.stop(60)).addBoth(done.append)
    world.turn(30)
    assert done == []
    hop.connections[0].say(b"250 taken")
    world.turn()
    assert done == [None]
    assert world.results("x0@a.test") == ["relayed"]
    assert len(hop.messages) == 1
    assert hop.open == 0
    assert world.queue.upkeep[-1] == ("sync", world.queue.commits, frozenset())
    assert world.clock.getDelayedCalls() == []


@pytest.mark.parametrize("stage", STAGES, ids=["greeting", "ehlo", "mail", "rcpt", "data", "message"])
def test_stopping_ends_within_its_limit(world: World, stage: bytes) -> None:
    hop = world.hop("a.test")
    hop.replies[stage] = None
    world.send("x@a.test")
    world.go(1)
    done: list[Any] = []
    Deferred.fromCoroutine(world.runner.stop(5)).addBoth(done.append)
    world.turn(4)
    is_contact = stage in (b"", b"EHLO")
    assert done == ([None] if is_contact else [])
    world.turn(1.1)
    assert done == [None]
    assert hop.open == 0
    assert b"QUIT" not in hop.lines
    assert world.queue.recipients
    assert world.runner.counters.bugs == 0
    assert world.clock.getDelayedCalls() == []


def test_stopping_without_work_is_over_at_once(world: World) -> None:
    done: list[Any] = []
    world.turn(3)
    Deferred.fromCoroutine(world.runner.stop(5)).addBoth(done.append)
    assert done == [None]
    assert cast("Any", world.clock).getDelayedCalls() == []
