"""The connection under a session: order, flow control, time-outs, pokes and ends, without a socket."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mailserver.channel import Channel, Wake
from mailserver.config.model import Limits
from mailserver.errors import ConnectionLost, LimitReached
from mailserver.net.connection import LEAST_TIME, Connection
from mailserver.net.limits import ConnectionCounts
from mailserver.net.stream import JOINED, READ_AHEAD, TURN
from mailserver.net.tally import Tally
from tests.net.listening import make_listening


class Transport(StringTransport):
    """A transport that remembers how it was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class World:
    """One connection whose session is a function of the test."""

    def __init__(
        self,
        run: Any,
        limits: Limits | None = None,
        counts: ConnectionCounts | None = None,
        make: type[Transport] = Transport,
        refusal: bytes = b"",
        logs_in: bool = True,
    ) -> None:
        self.clock = Clock()
        self.counts = counts or ConnectionCounts(limits or Limits())
        self.empty = 0
        self.ended: list[str] = []
        world = self

        class Session:
            def __init__(self, channel: Channel) -> None:
                self.channel = channel

            async def run(self) -> None:
                try:
                    await run(self.channel)
                except ConnectionLost:
                    world.ended.append("lost")
                    raise
                world.ended.append("returned")

        def stopped() -> None:
            world.empty += 1

        self.tally = Tally()
        self.listening = make_listening(
            Session,
            self.clock,
            self.tally,
            farewell=b"* BYE\r\n",
            refusal=refusal,
            counts=self.counts,
            cleartext="always",
            logs_in=logs_in,
            stopped=stopped,
        )
        self.connection = Connection(self.listening)
        self.transport = make()
        self.connection.makeConnection(self.transport)

    def lose(self) -> None:
        self.connection.connectionLost(Failure(ConnectionLost()))


async def echo(channel: Channel) -> None:
    while True:
        data = await channel.read(60)
        assert isinstance(data, bytes)
        channel.write(data)


def test_bytes_come_in_and_go_out_in_order() -> None:
    world = World(echo)
    world.connection.dataReceived(b"one ")
    world.connection.dataReceived(b"two")
    assert world.transport.value() == b"one two"


def test_writes_leave_together_when_the_session_waits() -> None:
    async def greet(channel: Channel) -> None:
        channel.write(b"a")
        channel.write(b"b")
        assert world_box == []
        await channel.read(60)

    world_box: list[World] = []
    world = World(greet)
    assert world.transport.value() == b"ab"


def busy(steps: list[int], world_box: list[World]) -> Any:
    """A session that works without waiting, each step for more than half a turn."""

    async def run(channel: Channel) -> None:
        await channel.read(60)
        for step in range(6):
            world_box[0].clock.rightNow += 0.6 * TURN
            steps.append(step)
            channel.write(b"%d" % step)
            await channel.drain()

    return run


def test_a_session_that_never_waits_lets_others_go_first() -> None:
    steps: list[int] = []
    box: list[World] = []
    box.append(World(busy(steps, box)))
    [world] = box
    turns = []

    def call_later(delay: float, function: Any) -> None:
        if delay == 0:
            turns.append((list(steps), function))

    world.clock.callLater = call_later  # type: ignore[assignment]
    world.connection.dataReceived(b"go")
    for number in range(3):
        assert len(turns) == number + 1, "nothing goes on before the reactor's next turn"
        turns[number][1]()
    assert [before for before, _function in turns[:3]] == [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]
    assert world.transport.value() == b"012345"


def test_who_waits_for_a_turn_is_within_a_command() -> None:
    """The service's end, or the client's, does not cut it short."""
    for happening in (Connection.stop, Connection.readConnectionLost):
        steps: list[int] = []
        box: list[World] = []
        box.append(World(busy(steps, box)))
        [world] = box
        world.connection.dataReceived(b"go")
        happening(world.connection)
        assert steps == [0, 1]
        while world.ended == []:
            world.clock.advance(0)
        assert steps == [0, 1, 2, 3, 4, 5]


def test_a_client_that_goes_while_others_have_their_turn() -> None:
    steps: list[int] = []
    box: list[World] = []
    box.append(World(busy(steps, box)))
    [world] = box
    world.connection.dataReceived(b"go")
    world.lose()
    assert world.ended == ["lost"]
    world.clock.advance(1)
    assert steps == [0, 1]
    assert world.empty == 1


def test_a_read_times_out_by_the_reactors_clock() -> None:
    seen: list[object] = []

    async def run(channel: Channel) -> None:
        seen.append(await channel.read(10))
        seen.append(await channel.read(10))

    world = World(run)
    world.clock.advance(9.9)
    assert seen == []
    world.clock.advance(0.2)
    assert seen == [Wake.TIMEOUT]
    world.connection.dataReceived(b"x")
    assert seen == [Wake.TIMEOUT, b"x"]


def test_a_later_deadline_does_not_fire_with_the_older_timer() -> None:
    seen: list[object] = []

    async def run(channel: Channel) -> None:
        seen.append(await channel.read(10))
        seen.append(await channel.read(100))

    world = World(run)
    world.clock.advance(5)
    world.connection.dataReceived(b"x")
    world.clock.advance(50)  # the timer of the first read has rung
    assert seen == [b"x"]
    world.clock.advance(60)
    assert seen == [b"x", Wake.TIMEOUT]


def test_a_poke_wakes_only_a_read_that_listens_and_is_remembered() -> None:
    seen: list[object] = []

    async def run(channel: Channel) -> None:
        seen.append(await channel.read(100))
        seen.append(await channel.read(100, pokes=True))
        seen.append(await channel.read(100, pokes=True))

    world = World(run)
    world.connection.poke()
    world.clock.advance(0)
    assert seen == []
    world.connection.dataReceived(b"x")
    assert seen == [b"x", Wake.POKED]
    world.connection.poke()
    world.connection.poke()
    world.clock.advance(0)
    assert seen == [b"x", Wake.POKED, Wake.POKED]
    assert world.ended == ["returned"]


def test_a_client_that_sends_too_fast_is_paused_until_read() -> None:
    gate: Deferred[None] = Deferred()
    got: list[int] = []

    async def run(channel: Channel) -> None:
        await gate
        while True:
            got.append(len(await channel.read(60)))  # type: ignore[arg-type]

    world = World(run)
    world.connection.dataReceived(b"x" * READ_AHEAD)
    assert world.transport.producerState == "producing"
    world.connection.dataReceived(b"y")
    assert world.transport.producerState == "paused"
    gate.callback(None)
    assert got == [READ_AHEAD + 1]
    assert world.transport.producerState == "producing"


def test_a_client_that_does_not_read_stops_the_session_and_is_cut() -> None:
    async def run(channel: Channel) -> None:
        while True:
            channel.write(b"x" * JOINED)
            await channel.drain()

    class Full(Transport):
        def write(self, data: bytes) -> None:
            super().write(data)
            if len(self.value()) >= 5 * JOINED:
                self.producer.pauseProducing()

    world = World(run, Limits(write_timeout=300), make=Full)
    assert len(world.transport.value()) == 5 * JOINED
    world.clock.advance(299)
    assert not world.transport.aborted
    world.clock.advance(2)
    assert world.transport.aborted
    world.lose()
    assert world.ended == ["lost"]


def test_short_answers_are_joined_until_the_session_waits() -> None:
    pieces: list[bytes] = []

    class Counting(Transport):
        def write(self, data: bytes) -> None:
            pieces.append(data)

    async def run(channel: Channel) -> None:
        for _ in range(100):
            channel.write(b"x")
            await channel.drain()
        await channel.read(60)

    World(run, make=Counting)
    assert pieces == [b"x" * 100]


def test_reading_waits_while_answers_are_not_taken() -> None:
    world = World(echo)
    world.connection.pauseProducing()
    world.connection.dataReceived(b"a")
    world.connection.dataReceived(b"b")
    first = world.transport.value()
    assert first in {b"", b"a"}  # one answer may be on its way, no more
    world.connection.resumeProducing()
    assert world.transport.value() == b"ab"


def test_the_session_ends_quietly_when_the_client_goes() -> None:
    world = World(echo)
    world.lose()
    assert world.ended == ["lost"]
    assert world.counts.total == 0
    assert world.empty == 1


def test_a_store_operation_is_awaited_even_if_the_client_goes() -> None:
    done: list[str] = []
    operation: Deferred[str] = Deferred()

    async def run(channel: Channel) -> None:
        done.append(await operation)
        await channel.read(60)

    world = World(run)
    world.lose()
    assert world.ended == []
    operation.callback("kept")
    assert done == ["kept"]
    assert world.ended == ["lost"]
    assert world.counts.total == 0


def test_answers_to_what_was_sent_before_a_half_close_are_given() -> None:
    world = World(echo)
    world.connection.dataReceived(b"last words")
    world.connection.readConnectionLost()
    assert world.transport.value() == b"last words"
    assert world.transport.disconnecting


def test_a_bug_in_the_session_is_logged_and_ends_the_connection() -> None:
    from twisted.logger import globalLogPublisher

    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)

    async def run(channel: Channel) -> None:
        await channel.read(1)
        raise ZeroDivisionError

    world = World(run)
    try:
        world.connection.dataReceived(b"x")
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert world.transport.disconnecting
    assert any(event.get("log_failure") and event["log_failure"].check(ZeroDivisionError) for event in events)


def test_a_stop_between_commands_says_farewell_and_inside_one_waits() -> None:
    world = World(echo)
    world.connection.stop()
    assert world.transport.value() == b"* BYE\r\n"
    assert world.transport.disconnecting

    operation: Deferred[None] = Deferred()

    async def busy(channel: Channel) -> None:
        await operation
        channel.write(b"a OK\r\n")
        await channel.read(60)

    world = World(busy)
    world.connection.stop()
    assert world.transport.value() == b""
    operation.callback(None)
    assert world.transport.value() == b"a OK\r\n* BYE\r\n"
    assert world.transport.disconnecting


def test_many_fired_deferreds_do_not_deepen_the_stack() -> None:
    async def run(channel: Channel) -> None:
        from twisted.internet.defer import succeed

        total = 0
        for number in range(20_000):
            total += await succeed(number)
        channel.write(b"%d" % total)

    world = World(run)
    assert world.transport.value() == b"199990000"


def test_connections_over_the_limit_of_an_address_are_refused_and_not_counted() -> None:
    counts = ConnectionCounts(Limits(unauthenticated_per_address=2))
    first = World(echo, counts=counts)
    World(echo, counts=counts)
    refused = World(echo, counts=counts)
    assert refused.transport.aborted
    refused.lose()
    assert counts.total == 2
    first.lose()
    assert counts.total == 1
    assert not World(echo, counts=counts).transport.aborted


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


def test_a_failed_operation_is_raised_in_the_session_with_its_own_exception() -> None:
    from mailserver.errors import NoSpace

    late: Deferred[str] = Deferred()
    seen: list[str] = []

    async def run(channel: Channel) -> None:
        from twisted.internet.defer import fail

        for operation in (fail(NoSpace("now")), late):
            try:
                await operation
            except NoSpace as error:
                seen.append(error.sentence)

    world = World(run)
    assert seen == ["now"]
    late.errback(NoSpace("later"))
    assert seen == ["now", "later"]
    assert world.ended == ["returned"]


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
        world.clock.advance(LEAST_TIME)
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
        world.clock.advance(LEAST_TIME)
    assert World(echo, counts=counts).transport.aborted
    assert not any(world.transport.aborted for world in worlds)


def test_a_login_that_ends_after_its_connection_has_made_room_counts_for_nothing() -> None:
    counts = ConnectionCounts(Limits(connections=1))
    world = World(echo, counts=counts)
    world.clock.advance(LEAST_TIME)
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
    assert counts.tell_refusal(one, 0) == 0
    assert [counts.tell_refusal(one, second) for second in (1, 2, 59)] == [None, None, None]
    assert counts.tell_refusal(other, 59) == 0
    assert counts.tell_refusal(one, 61) == 3


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


def test_a_stop_does_not_wait_long_for_a_client_that_does_not_close() -> None:
    world = World(echo)
    world.connection.stop()
    world.clock.advance(2.1)
    assert world.transport.aborted


def test_a_stop_while_the_client_takes_nothing_lets_the_answer_go_first() -> None:
    half = b"h" * JOINED

    async def run(channel: Channel) -> None:
        channel.write(half)
        await channel.drain()
        channel.write(b" and half")
        await channel.read(60)

    class Slow(Transport):
        def write(self, data: bytes) -> None:
            super().write(data)
            if data == half:
                self.producer.pauseProducing()

    world = World(run, make=Slow)
    world.connection.stop()
    assert world.transport.value() == half
    world.connection.resumeProducing()
    assert world.transport.value() == half + b" and half* BYE\r\n"


def test_every_login_has_one_logout_in_the_log() -> None:
    from twisted.logger import globalLogPublisher

    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(str(event.get("line", "")))

    async def silent(channel: Channel) -> None:
        channel.logged_in("anna@example.test")
        await channel.read(60)

    async def telling(channel: Channel) -> None:
        channel.logged_in("anna@example.test")
        channel.log("logout")

    globalLogPublisher.addObserver(observe)
    try:
        World(silent).lose()
        World(telling).lose()
        World(echo).lose()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert len([line for line in lines if line.startswith("logout ")]) == 2
