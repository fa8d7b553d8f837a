"""The connection to the next hop between two messages, without a socket."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from mailserver.net.outbound import RESTING_TIME, HopProtocol


def connected() -> tuple[HopProtocol, StringTransport, Clock]:
    clock = Clock()
    protocol = HopProtocol(cast("Any", clock), cast("Any", None), "hop", 300)
    transport = StringTransport()
    protocol.makeConnection(transport)
    return protocol, transport, clock


def test_a_resting_connection_says_quit_by_itself() -> None:
    protocol, transport, clock = connected()
    protocol.rest()
    clock.advance(RESTING_TIME - 1)
    assert protocol.alive
    assert transport.value() == b""
    clock.advance(1)
    assert transport.value() == b"QUIT\r\n"
    assert transport.disconnecting
    assert not protocol.alive


def test_the_next_message_wakes_it() -> None:
    protocol, transport, clock = connected()
    protocol.rest()
    protocol.write(b"MAIL FROM:<>\r\n")
    clock.advance(2 * RESTING_TIME)
    assert transport.value() == b"MAIL FROM:<>\r\n"
    assert protocol.alive


def test_a_hop_that_says_something_unasked_is_used_no_more() -> None:
    protocol, transport, clock = connected()
    protocol.rest()
    protocol.dataReceived(b"421 4.4.2 timeout\r\n")
    assert not protocol.alive
    protocol.close()
    assert transport.value() == b""
    assert len(clock.getDelayedCalls()) == 1  # the one that cuts a hop which does not close
