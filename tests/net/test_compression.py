"""Compression of a connection: one flush for each wait, the closing line, the turns of others, the octets that are counted."""

from __future__ import annotations

import zlib

from mailserver.session.channel import Channel, CorruptInput, Wake
from tests.net.connections import World
from tests.test_deflate import deflated

FLUSH = b"\x00\x00\xff\xff"
"""The end of a flushed block."""


async def compressed_echo(channel: Channel) -> None:
    channel.write(b"plain\r\n")
    channel.start_compression()
    while True:
        data = await channel.read(60)
        assert isinstance(data, bytes)
        for at in range(len(data)):
            channel.write(data[at : at + 1])
        await channel.drain()


def test_writes_of_a_turn_are_one_block() -> None:
    world = World(compressed_echo)
    assert world.transport.value() == b"plain\r\n"
    world.transport.clear()
    world.connection.dataReceived(deflated(b"one two three"))
    assert zlib.decompressobj(-15).decompress(world.transport.value()) == b"one two three"
    assert world.transport.value().count(FLUSH) == 1
    assert world.connection.sent == len(b"plain\r\n") + len(world.transport.value())
    world.lose()


def test_the_closing_line_of_a_stop_is_compressed() -> None:
    world = World(compressed_echo)
    world.transport.clear()
    world.connection.stop()
    assert zlib.decompressobj(-15).decompress(world.transport.value()) == b"* BYE\r\n"
    world.lose()


def test_much_of_little_input_leaves_turns_to_others_and_is_stopped() -> None:
    taken = 0

    async def take(channel: Channel) -> None:
        nonlocal taken
        channel.start_compression()
        while True:
            data = await channel.read(60)
            assert isinstance(data, bytes)
            taken += len(data)
            world.clock.rightNow += 0.001  # the session's own time

    world = World(take)
    world.connection.dataReceived(deflated(bytes(10_000_000)))
    assert 0 < taken < 200_000
    before = taken
    world.connection.stop()
    world.clock.advance(0)
    assert taken == before
    assert world.ended == ["lost"]
    assert zlib.decompressobj(-15).decompress(world.transport.value()) == b"* BYE\r\n"
    world.lose()


def test_what_is_not_read_yet_pauses_the_client() -> None:
    async def wait(channel: Channel) -> None:
        channel.start_compression()
        assert await channel.read(60)
        await channel.sleep(10)
        assert await channel.read(60) == b"y" * 16384

    world = World(wait)
    world.connection.dataReceived(deflated(b"x" * 16384 + b"y" * 16384))
    world.connection.dataReceived(bytes(70_000))
    assert world.transport.producerState == "paused"
    world.clock.advance(10)
    assert world.ended == ["returned"]
    world.lose()


def test_a_read_waits_no_longer_for_octets_that_decompress_to_nothing() -> None:
    found: list[object] = []

    async def read(channel: Channel) -> None:
        channel.start_compression()
        found.append(await channel.read(60))

    world = World(read)
    for _ in range(70):
        world.connection.dataReceived(b"\x00\x00\x00\xff\xff")
        world.clock.advance(1)
    assert found == [Wake.TIMEOUT]
    world.lose()


def test_corrupt_octets_are_an_error_of_the_read_and_octets_can_still_be_sent() -> None:
    async def read(channel: Channel) -> None:
        channel.start_compression()
        try:
            await channel.read(60)
        except CorruptInput as error:
            channel.write(str(error).encode())

    world = World(read)
    world.connection.dataReceived(b"a NOOP\r\n")
    assert zlib.decompressobj(-15).decompress(world.transport.value()) == b"the compressed data is corrupt"
    world.lose()


def test_the_compressor_rests_while_the_session_waits_for_pokes() -> None:
    async def idle(channel: Channel) -> None:
        channel.start_compression()
        while True:
            channel.write(b"* OK Still here\r\n")
            assert await channel.read(60, pokes=True) is Wake.POKED

    world = World(idle)
    stream = world.connection._deflate
    assert stream is not None
    for _ in range(3):
        assert stream._deflater is None
        world.connection.poke()
        world.clock.advance(0)
    assert zlib.decompressobj(-15).decompress(world.transport.value()) == b"* OK Still here\r\n" * 4
    world.lose()
