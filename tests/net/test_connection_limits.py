"""How many connections there may be, how long one may wait for its login, and who makes room."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mailserver.auth.throttling.banned_clients import client_number
from mailserver.config.model import Limits
from mailserver.errors import ConnectionLost, LimitReached
from mailserver.net.connection.acceptance import MIN_LOGIN_TIME
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.session.channel import Channel, Wake
from tests.net.connections import World, echo

PEER = "192.168.1.1"
"""The address of Twisted's StringTransport."""


def test_connections_over_the_limit_of_an_address_are_refused_and_not_counted() -> None:
    counts = ConnectionCounts(Limits(unauthenticated_per_address=2))
    first = World(echo, counts=counts)
    second = World(echo, counts=counts)
    refused = World(echo, counts=counts)
    assert refused.transport.aborted
    refused.lose()
    assert counts.total == 2
    first.lose()
    assert counts.total == 1
    third = World(echo, counts=counts)
    assert not third.transport.aborted
    for world in (second, third):
        world.lose()
    assert counts.all_own() == [], "nothing is kept of an address that has gone"


def test_a_banned_client_is_closed_at_once_without_a_greeting_and_counted() -> None:
    counts = ConnectionCounts(Limits())
    before = World(echo, counts=counts, refusal=b"* BYE\r\n")
    with_user = World(echo, counts=counts)
    with_user.connection.logged_in("anna@example.test")
    counts.banned.apply([(client_number(ip_address(PEER)), 60.0)])
    refused = World(echo, counts=counts, refusal=b"* BYE\r\n")
    assert refused.transport.aborted
    assert refused.transport.value() == b""
    assert [row[0] for row in refused.event_counters.rows()] == ["connection-banned"]
    refused.lose()
    assert not before.transport.aborted
    counts.end_banned()
    assert before.transport.aborted
    assert not with_user.transport.aborted, "whoever has logged in goes on"
    before.lose()
    with_user.lose()
    assert counts.all_own() == []


def test_a_protocol_without_login_is_served_to_banned_clients() -> None:
    counts = ConnectionCounts(Limits())
    counts.banned.apply([(client_number(ip_address(PEER)), 60.0)])
    assert not World(echo, counts=counts, logs_in=False).transport.aborted


def test_sessions_of_a_user_are_counted_apart_from_connections_before_login() -> None:
    counts = ConnectionCounts(Limits(unauthenticated_per_address=1, sessions_per_user=2))
    worlds = []
    for _ in range(2):
        world = World(echo, counts=counts)
        world.connection.logged_in("anna@example.test")
        worlds.append(world)
    third = World(echo, counts=counts)
    with pytest.raises(LimitReached):
        third.connection.logged_in("anna@example.test")
    third.connection.logged_in("bert@example.test")
    worlds[0].lose()
    fourth = World(echo, counts=counts)
    fourth.connection.logged_in("anna@example.test")


def test_login_time_bounds_all_reads_together_however_they_drip() -> None:
    seen: list[object] = []

    async def run(channel: Channel) -> None:
        while (data := await channel.read(60)) is not Wake.TIMEOUT:
            seen.append(data)
        seen.append(channel.now())

    world = World(run, Limits(login_time=180))
    for _ in range(20):
        world.clock.advance(9)
        world.connection.dataReceived(b"x")
    assert seen[-1] == 180.0
    assert world.ended == ["returned"]


def test_login_time_is_over_with_the_login() -> None:
    seen: list[object] = []

    async def run(channel: Channel) -> None:
        channel.logged_in("anna@example.test")
        seen.append(await channel.read(1800))

    world = World(run, Limits(login_time=180))
    world.clock.advance(1799)
    assert seen == []
    world.clock.advance(1)
    assert seen == [Wake.TIMEOUT]


def test_a_protocol_without_login_has_no_login_time_and_no_share_of_an_address() -> None:
    seen: list[object] = []

    async def run(channel: Channel) -> None:
        seen.append(await channel.read(300))

    counts = ConnectionCounts(Limits(login_time=180, unauthenticated_per_address=1))
    worlds = [World(run, counts=counts, logs_in=False) for _ in range(3)]
    worlds[0].clock.advance(299)
    assert seen == []
    assert not any(world.transport.disconnecting or world.transport.aborted for world in worlds)
    assert not World(echo, counts=counts).transport.aborted, "others are not counted with them"


def test_whoever_has_waited_longest_for_a_login_makes_room() -> None:
    counts = ConnectionCounts(Limits(connections=3))
    known, oldest, other = (World(echo, counts=counts) for _ in range(3))
    known.connection.logged_in("anna@example.test")
    assert World(echo, counts=counts).transport.aborted, "all have only just come"
    for world in (known, oldest, other):
        world.clock.advance(MIN_LOGIN_TIME)
    assert not World(echo, counts=counts, logs_in=False).transport.aborted
    assert [world.transport.aborted for world in (known, oldest, other)] == [False, True, False]
    assert counts.total == 3
    oldest.lose()
    assert counts.total == 3
    World(echo, counts=counts)
    assert [world.transport.aborted for world in (known, other)] == [False, True]
    assert World(echo, counts=counts).transport.aborted, "nobody else may be asked to go"
    assert counts.total == 3


def test_nobody_makes_room_for_an_address_that_has_its_share() -> None:
    counts = ConnectionCounts(Limits(connections=2, unauthenticated_per_address=2))
    worlds = [World(echo, counts=counts) for _ in range(2)]
    for world in worlds:
        world.clock.advance(MIN_LOGIN_TIME)
    assert World(echo, counts=counts).transport.aborted
    assert not any(world.transport.aborted for world in worlds)


def test_a_login_that_ends_after_its_connection_has_made_room_counts_for_nothing() -> None:
    counts = ConnectionCounts(Limits(connections=1))
    world = World(echo, counts=counts)
    world.clock.advance(MIN_LOGIN_TIME)
    World(echo, counts=counts)
    with pytest.raises(ConnectionLost):
        world.connection.logged_in("anna@example.test")
    world.lose()
    assert sorted(counts.all_own()) == [((), 1), (("192.168.1.1",), 1)]


def test_a_connection_too_many_hears_so() -> None:
    counts = ConnectionCounts(Limits(unauthenticated_per_address=1))
    World(echo, counts=counts)
    refused = World(echo, counts=counts, refusal=b"* BYE too many\r\n")
    assert refused.transport.value() == b"* BYE too many\r\n"
    assert refused.transport.disconnecting
    refused.connection.dataReceived(b"a NOOP\r\n" * 100_000)
    assert refused.transport.value() == b"* BYE too many\r\n"
    refused.clock.advance(31)
    assert refused.transport.aborted, "it may not linger for ever"


def test_refusals_are_logged_once_a_minute_with_the_number_left_out() -> None:
    from ipaddress import ip_address

    counts = ConnectionCounts(Limits())
    one, other = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    assert counts.count_refused_connection(one, 0) == 0
    assert [counts.count_refused_connection(one, second) for second in (1, 2, 59)] == [None, None, None]
    assert counts.count_refused_connection(other, 59) == 0
    assert counts.count_refused_connection(one, 61) == 3


def test_a_client_that_does_not_close_counts_until_it_is_cut() -> None:
    async def run(channel: Channel) -> None:
        channel.write(b"* BYE\r\n")

    world = World(run)
    assert world.ended == ["returned"]
    assert world.transport.disconnecting
    assert world.counts.total == 1
    assert world.empty == 0
    world.connection.dataReceived(b"more")
    world.clock.advance(29)
    assert not world.transport.aborted
    world.clock.advance(2)
    assert world.transport.aborted
    world.lose()
    assert world.counts.total == 0
    assert world.empty == 1
    assert world.clock.getDelayedCalls() == []


def test_a_connection_whose_user_has_logged_out_counts_as_one_before_the_login() -> None:
    counts = ConnectionCounts(Limits(connections=2, unauthenticated_per_address=1, sessions_per_user=1))
    world = World(echo, counts=counts)
    world.connection.logged_in("anna@example.test")
    world.clock.advance(MIN_LOGIN_TIME)
    world.connection.logged_out()
    assert sorted(counts.all_own()) == [((), 1), (("192.168.1.1",), 1)]
    assert world.connection.user is None
    world.connection.logged_in("anna@example.test")
    other = World(echo, counts=counts)
    with pytest.raises(LimitReached):
        world.connection.logged_out()
    assert sorted(counts.all_own()) == [((), 2), (("192.168.1.1",), 2)]
    assert not world.connection.evict(), "it has only just come"
    world.clock.advance(MIN_LOGIN_TIME)
    assert world.connection.evict()
    other.lose()
    assert counts.all_own() == []


def test_login_time_begins_anew_when_the_user_has_logged_out() -> None:
    seen: list[object] = []

    async def run(channel: Channel) -> None:
        channel.logged_in("anna@example.test")
        seen.append(await channel.read(1800))
        channel.logged_out()
        seen.append(await channel.read(1800))

    world = World(run, Limits(login_time=180))
    world.clock.advance(1000)
    world.connection.dataReceived(b"x")
    world.clock.advance(179)
    assert seen == [b"x"]
    world.clock.advance(1)
    assert seen == [b"x", Wake.TIMEOUT]
