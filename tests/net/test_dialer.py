"""The connection to the next hop between two messages, without a socket."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from mailserver.errors import Cancelled, RelayDown
from mailserver.net.connection.coroutines import Task, abandonable
from mailserver.net.outbound.dialer import IDLE_TIME, READ_AHEAD, WRITE_SIZE, HopProtocol
from mailserver.smtp.hop import HopSession


def connected() -> tuple[HopProtocol, StringTransport, Clock]:
    clock = Clock()
    protocol = HopProtocol(cast("Any", clock), cast("Any", None), "hop", 300)
    transport = StringTransport()
    protocol.makeConnection(transport)
    return protocol, transport, clock


def test_a_resting_connection_says_quit_by_itself() -> None:
    protocol, transport, clock = connected()
    protocol.become_idle()
    clock.advance(IDLE_TIME - 1)
    assert protocol.is_usable
    assert transport.value() == b""
    clock.advance(1)
    assert transport.value() == b"QUIT\r\n"
    assert transport.disconnecting
    assert not protocol.is_usable


def test_the_next_message_wakes_it() -> None:
    protocol, transport, clock = connected()
    protocol.become_idle()
    protocol.write(b"MAIL FROM:<>\r\n")
    clock.advance(2 * IDLE_TIME)
    reading = Deferred.fromCoroutine(protocol.read(300))
    assert transport.value() == b"MAIL FROM:<>\r\n"
    assert protocol.is_usable
    protocol.dataReceived(b"250 ok\r\n")
    assert reading.result == b"250 ok\r\n"


def test_what_is_said_before_a_wait_leaves_as_one() -> None:
    protocol, transport, _ = connected()
    written: list[bytes] = []
    transport.write = written.append  # type: ignore[method-assign]
    protocol.write(b"Received: x\r\n")
    protocol.write(b"text\r\n.\r\n")
    assert written == []
    Deferred.fromCoroutine(protocol.read(300))
    assert written == [b"Received: x\r\ntext\r\n.\r\n"]


def test_a_large_message_is_not_gathered() -> None:
    protocol, transport, _ = connected()
    written: list[bytes] = []
    transport.write = written.append  # type: ignore[method-assign]
    for _ in range(3):
        protocol.write(bytes(WRITE_SIZE))
        Deferred.fromCoroutine(protocol.drain())
    assert [len(piece) for piece in written] == [WRITE_SIZE] * 3


def test_closing_sends_what_was_said() -> None:
    protocol, transport, _ = connected()
    protocol.write(b"QUIT\r\n")
    protocol.close()
    assert transport.value() == b"QUIT\r\n"
    assert transport.disconnecting


def test_a_hop_that_says_something_unasked_is_used_no_more() -> None:
    protocol, transport, clock = connected()
    protocol.become_idle()
    protocol.dataReceived(b"421 4.4.2 timeout\r\n")
    assert not protocol.is_usable
    protocol.close()
    assert transport.value() == b""
    assert len(clock.getDelayedCalls()) == 1  # the one that cuts a hop which does not close


class Hop:
    """As it is configured."""

    starttls = False
    credentials = None
    timeout = 300.0


def test_a_hop_that_drips_has_no_more_time_for_a_reply() -> None:
    protocol, transport, clock = connected()

    session = HopSession(cast("Any", Hop()), protocol, "mail.example.test")
    opening = Deferred.fromCoroutine(session.converse(session.exchange.open))
    for octet in b"220":
        clock.advance(90)
        protocol.dataReceived(bytes([octet]))
    assert not transport.disconnected
    clock.advance(31)
    assert transport.disconnected
    assert opening.result.check(RelayDown)  # type: ignore[union-attr]
    opening.addErrback(lambda _failure: None)


def test_each_reply_has_a_time_of_its_own() -> None:
    protocol, transport, clock = connected()

    session = HopSession(cast("Any", Hop()), protocol, "mail.example.test")
    opening = Deferred.fromCoroutine(session.converse(session.exchange.open))
    clock.advance(290)
    protocol.dataReceived(b"220 hop\r\n")
    clock.advance(290)
    protocol.dataReceived(b"250 hop\r\n")
    assert opening.result.code == 250
    assert not transport.disconnected


def test_a_hop_that_talks_in_single_octets_is_cut_as_soon_as_another() -> None:
    """What waits is not counted anew with each: that took a minute of the reactor's time."""
    protocol, transport, _ = connected()
    until = time.process_time() + 20
    for _ in range(READ_AHEAD):
        protocol.dataReceived(b"2")
        assert time.process_time() < until
    assert not transport.disconnected
    protocol.dataReceived(b"2")
    assert transport.disconnected


def test_a_session_that_is_cancelled_waits_no_longer() -> None:
    protocol, transport, clock = connected()
    aborted: list[bool] = []
    transport.abortConnection = lambda: aborted.append(True)  # type: ignore[method-assign]
    ended: list[Any] = []
    said: list[str] = []

    async def session() -> None:
        try:
            await protocol.read(300)
        except Cancelled as error:
            said.append(error.sentence)

    task = Task(session(), ended.append, lambda: None, clock.seconds)
    task.start()
    assert ended == []
    task.cancel()
    assert (aborted, ended, len(said)) == ([True], [None], 1)
    protocol.dataReceived(b"250 ok\r\n")


def test_dialling_can_be_abandoned() -> None:
    cancelled: list[bool] = []
    dialling: Deferred[None] = Deferred(lambda _dialling: cancelled.append(True))
    ended: list[Any] = []

    async def session() -> None:
        with pytest.raises(Cancelled):
            await abandonable(dialling)

    task = Task(session(), ended.append, lambda: None, Clock().seconds)
    task.start()
    task.cancel()
    assert (cancelled, ended) == ([True], [None])
    done: Deferred[int] = Deferred()
    waiting = abandonable(done)
    done.callback(7)
    assert waiting.result == 7
