"""The connection under a session: order, flow control, time-outs, pokes and ends, without a socket."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from mailserver.config.model import Limits
from mailserver.net.connection.connection import Connection
from mailserver.net.connection.stream import MAX_JOINED, MAX_TURN, READ_AHEAD
from mailserver.net.log.format import body_of
from mailserver.session.channel import Channel, Wake
from tests.net.connections import Transport, World, echo


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
            world_box[0].clock.rightNow += 0.6 * MAX_TURN
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
            channel.write(b"x" * MAX_JOINED)
            await channel.drain()

    class Full(Transport):
        def write(self, data: bytes) -> None:
            super().write(data)
            if len(self.value()) >= 5 * MAX_JOINED:
                self.producer.pauseProducing()

    world = World(run, Limits(write_timeout=300), make=Full)
    assert len(world.transport.value()) == 5 * MAX_JOINED
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


def test_a_stop_does_not_wait_long_for_a_client_that_does_not_close() -> None:
    world = World(echo)
    world.connection.stop()
    world.clock.advance(2.1)
    assert world.transport.aborted


def test_a_stop_while_the_client_takes_nothing_lets_the_answer_go_first() -> None:
    half = b"h" * MAX_JOINED

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
        lines.append(body_of(event) or "")

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
