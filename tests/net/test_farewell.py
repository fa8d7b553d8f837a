"""The end of a service, under TLS: how long a client that does not close is waited for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from OpenSSL import SSL

from mailserver.net.connection.connection import CLOSING_TIME, DELIVERY_CHECK_INTERVAL, STOPPING_TIME
from tests.net.test_tls_detection import World


@pytest.fixture
def world() -> Iterator[World]:
    """A client of a port of implicit TLS, greeted; it closes nothing, and takes what it is sent when the test says so."""
    made = World("imaps")
    made.transport.delivered = False
    assert made.shake_hands(made.hello()) == b"* OK ready\r\n"
    yield made
    made.close()


def hears(world: World) -> bytes:
    """What the client reads up to close_notify."""
    world.client.bio_write(world.said())
    heard = b""
    with contextlib.suppress(SSL.ZeroReturnError):
        while True:
            heard += world.client.recv(100)
    return heard


def test_it_is_not_waited_for_once_it_has_acknowledged_all(world: World) -> None:
    world.connection.stop(b"* BYE\r\n")
    for _ in range(5):
        world.clock.advance(DELIVERY_CHECK_INTERVAL)
        assert not world.transport.disconnecting
    world.transport.delivered = True
    world.clock.advance(DELIVERY_CHECK_INTERVAL)
    assert world.transport.disconnecting
    assert not world.transport.aborted
    assert hears(world) == b"* BYE\r\n"
    assert not world.clock.getDelayedCalls()


def test_one_that_takes_nothing_is_cut(world: World) -> None:
    world.connection.stop(b"* BYE\r\n")
    world.clock.pump([DELIVERY_CHECK_INTERVAL] * round(STOPPING_TIME / DELIVERY_CHECK_INTERVAL - 1))
    assert not world.transport.aborted
    world.clock.pump([DELIVERY_CHECK_INTERVAL] * 2)
    assert world.transport.aborted
    assert not world.transport.disconnecting


def test_one_whose_session_had_ended_before_is_hastened_too(world: World) -> None:
    world.connection.close()
    world.client.send(b"x")
    world.say(world.client.bio_read(65536))  # its session reads once more, and ends
    world.clock.advance(CLOSING_TIME / 2)
    world.transport.delivered = True
    assert not world.transport.disconnecting  # while the service goes on it closes in its own time
    world.connection.stop(b"* BYE\r\n")
    world.clock.advance(DELIVERY_CHECK_INTERVAL)
    assert world.transport.disconnecting
    assert hears(world) == b"x"
