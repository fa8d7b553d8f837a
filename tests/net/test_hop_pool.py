"""Connections of the queue that rest, and their limits, at hops without sockets."""

from __future__ import annotations

from typing import Any

import pytest

from mailserver.config.kinds import HostName, NextHop
from mailserver.config.model.outbound import Route
from mailserver.net.outbound.hop_pool import HopPool, PooledSession
from mailserver.net.outbound.place import Place, PoolKey, place_of
from mailserver.queue.outcome import Outcome
from mailserver.smtp.onward_transaction import OnwardSession
from tests.fakes import run_now
from tests.smtp.test_onward import Hop, message, opened, to

FIRST = Place("192.0.2.1", 25, "mx1.example.net")
SECOND = Place("192.0.2.2", 25, "mx2.example.net")
THIRD = Place("192.0.2.3", 25, "mx3.example.net")


class Hops:
    """Opens sessions at hops of its own."""

    def __init__(self, **limits: int) -> None:
        self.hops: list[Hop] = []
        self.failure: Outcome | BaseException | None = None
        self.pool = HopPool(self.open, **limits)
        self.freed: list[PoolKey] = []
        self.pool.on_room = self.freed.append

    async def open(self, _place: Place) -> OnwardSession | Outcome:
        if isinstance(self.failure, Outcome):
            return self.failure
        if self.failure is not None:
            raise self.failure
        self.hops.append(Hop())
        return opened(self.hops[-1])

    def take(self, place: Place = FIRST) -> PooledSession:
        taken = run_now(self.pool.take(place))
        assert isinstance(taken, PooledSession)
        return taken


def send(pooled: PooledSession) -> list[Any]:
    return [each.result for each in run_now(pooled.session.send(message(), to("x")))]


def test_a_connection_rests_and_carries_the_next_message() -> None:
    world = Hops()
    taken = world.take()
    assert not taken.has_rested
    assert send(taken) == ["passed_on"]
    world.pool.give_back(taken)
    assert (world.pool.in_use, world.pool.resting, world.hops[0].rests) == (0, 1, 1)
    again = world.take()
    assert again.has_rested
    assert again.session is taken.session
    assert send(again) == ["passed_on"]
    assert len(world.hops[0].messages) == 2
    assert (world.pool.opened, world.pool.reused) == (1, 1)


def test_a_connection_that_the_hop_has_closed_meanwhile_is_not_taken() -> None:
    world = Hops()
    world.pool.give_back(world.take())
    world.hops[0]._output = b"421 4.4.2 timeout\r\n"
    assert world.take().session is not None
    assert len(world.hops) == 2
    assert world.hops[0].closed == 1
    assert b"QUIT" not in world.hops[0].lines


ROUTE = Route(host=NextHop("hop.test"), user="anna")


@pytest.mark.parametrize(
    ("one", "other", "is_shared"),
    [
        (FIRST, Place("192.0.2.1", 25, "other.example.org"), True),
        (FIRST, Place("192.0.2.1", 26, "mx1.example.net"), False),
        (FIRST, Place("192.0.2.1", 25, "mx1.example.net", "required"), False),
        (Place("192.0.2.1", 25, "a.test", "verified"), Place("192.0.2.1", 25, "b.test", "verified"), False),
        (place_of(ROUTE), place_of(Route(host=NextHop("hop.test"), user="bert")), False),
        (
            place_of(ROUTE),
            place_of(Route(host=NextHop("hop.test"), user="anna", sender_domains=(HostName("a.test"),))),
            True,
        ),
        (place_of(Route(host=NextHop("192.0.2.1"))), FIRST, False),
    ],
    ids=["host", "port", "tls", "verified name", "login", "route's domains", "route and host"],
)
def test_what_a_connection_is_shared_by(one: Place, other: Place, is_shared: bool) -> None:
    world = Hops()
    world.pool.give_back(world.take(one))
    world.take(other)
    assert (len(world.hops) == 1) is is_shared


def test_a_hop_has_room_for_so_many_and_says_when_it_has_again() -> None:
    world = Hops(most_at_a_hop=2)
    taken = [world.take(), world.take()]
    assert not world.pool.has_room(FIRST.key)
    assert world.pool.has_room(SECOND.key)
    world.pool.give_back(world.take(SECOND))
    assert world.freed == [SECOND.key]
    world.pool.give_back(taken[0])
    assert world.freed == [SECOND.key, FIRST.key]
    assert world.pool.has_room(FIRST.key)
    world.pool.drop(taken[1])
    assert world.freed == [SECOND.key, FIRST.key, FIRST.key]


@pytest.mark.parametrize("failure", [Outcome("hop_failed", "4.4.1"), KeyError("x")], ids=["outcome", "bug"])
def test_a_connection_that_is_not_made_takes_no_room(failure: Any) -> None:
    world = Hops(most_at_a_hop=1)
    world.failure = failure
    if isinstance(failure, Outcome):
        assert run_now(world.pool.take(FIRST)) is failure
    else:
        with pytest.raises(KeyError):
            run_now(world.pool.take(FIRST))
    assert world.pool.has_room(FIRST.key)
    assert world.freed == [FIRST.key]


def test_a_connection_ends_after_so_many_messages() -> None:
    world = Hops(most_messages=2)
    for _ in range(3):
        taken = world.take()
        send(taken)
        world.pool.give_back(taken)
    assert [len(each.messages) for each in world.hops] == [2, 1]
    assert [each.lines[-1] for each in world.hops] == [b"QUIT", b"DATA"]


def test_those_that_have_rested_longest_give_way() -> None:
    world = Hops(most_connections=2)
    for place in (FIRST, SECOND):
        world.pool.give_back(world.take(place))
    third = world.take(THIRD)
    assert [each.closed for each in world.hops] == [1, 0, 0]
    world.pool.give_back(third)
    assert [each.closed for each in world.hops] == [1, 0, 0]
    assert world.pool.resting == 2
    world.pool.close_resting()
    assert [each.lines[-1] for each in world.hops] == [b"QUIT"] * 3


def test_one_that_is_dropped_does_not_rest() -> None:
    world = Hops()
    world.pool.drop(world.take())
    assert world.pool.resting == world.pool.in_use == 0
    assert world.hops[0].closed == 1
    assert b"QUIT" not in world.hops[0].lines
