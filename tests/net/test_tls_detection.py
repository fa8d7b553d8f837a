"""TLS at a port of STARTTLS, clear text and silence at a port of implicit TLS: by the fake clock, octet by octet."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from mailserver.config.kinds import EarlyTls, Port
from mailserver.config.model import Limits, Listener
from mailserver.errors import ConnectionLost
from mailserver.net.connection.client_messages import wrong_port_message
from mailserver.net.connection.connection import Connection
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.net.connection.tls_detection import (
    ALERT,
    FIRST_OCTETS_TIME,
    LONGEST_FIRST_LINE,
    REJECTION_TIME,
    begins_tls,
)
from mailserver.net.fast.tls import FastTlsFactory
from mailserver.net.ipc.event_counters import EventCounters
from mailserver.net.log.format import body_of
from mailserver.session.channel import Channel
from tests.net.connections import make_context
from tests.net.test_tls import Creator

SIGN = b"* BYE the way\r\n"
SSLV2_HELLO = b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10" + bytes(37)


class Transport(StringTransport):
    """Remembers how it was ended, and tells its protocol of its own half-close, as Twisted's do."""

    protocol: Any = None
    aborted = False
    write_closed = False
    delivered = False

    def abortConnection(self) -> None:
        self.aborted = True

    def loseWriteConnection(self) -> None:
        self.write_closed = True
        self.protocol.writeConnectionLost()


class Echo:
    """Greets, and sends back what it hears."""

    mailbox_name = None

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def run(self) -> None:
        self.channel.write(b"* OK ready\r\n")
        while True:
            data = await self.channel.read(600)
            assert isinstance(data, bytes)
            self.channel.write(data)


class World:
    """One connection; `client` is OpenSSL in memory."""

    def __init__(
        self, protocol: str = "imap", *, delay: float = 0.0, early: EarlyTls = "serve", login_time: float = 180.0
    ) -> None:
        self.clock = Clock()
        self.event_counters = EventCounters()
        self.lines: list[str] = []
        context = make_context(
            Echo,
            self.clock,
            self.event_counters,
            protocol=protocol,
            counts=ConnectionCounts(Limits(login_time=login_time)),
            tls=FastTlsFactory(Creator(), self.clock),
            implicit_tls=protocol.endswith("s"),
            greeting_delay=delay,
            early_tls=early,
            wrong_port_message=lambda _port: SIGN,
        )
        self.context = context
        self.connection = Connection(context)
        self.transport = Transport()
        self.transport.protocol = self.connection
        globalLogPublisher.addObserver(self._hear)
        self.connection.makeConnection(self.transport)
        self.client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        self.client.set_connect_state()

    def _hear(self, event: Any) -> None:
        self.lines.append(body_of(event) or "")

    def close(self) -> None:
        globalLogPublisher.removeObserver(self._hear)
        self.transport.protocol.connectionLost(Failure(ConnectionLost()))
        assert not self.context.open_connections, "a connection that has ended is counted no more"

    def say(self, data: bytes) -> None:
        if data:
            self.transport.protocol.dataReceived(data)

    def said(self) -> bytes:
        value: bytes = self.transport.value()
        self.transport.clear()
        return value

    def hello(self) -> bytes:
        with contextlib.suppress(SSL.WantReadError):
            self.client.do_handshake()
        return self.client.bio_read(65536)

    def shake_hands(self, hello: bytes) -> bytes:
        """To the end; what the client then reads."""
        self.say(hello)
        while moved := self.said():
            self.client.bio_write(moved)
            with contextlib.suppress(SSL.WantReadError):
                self.client.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                self.say(self.client.bio_read(65536))
        return self.read()

    def read(self) -> bytes:
        if moved := self.said():
            self.client.bio_write(moved)
        read = b""
        with contextlib.suppress(SSL.WantReadError):
            while True:
                read += self.client.recv(65536)
        return read

    def counted(self, event: str) -> int:
        return sum(row[3] for row in self.event_counters.rows() if row[0] == event)  # type: ignore[index, misc]


@pytest.fixture
def make() -> Any:
    with contextlib.ExitStack() as stack:

        def world(*arguments: Any, **more: Any) -> World:
            made = World(*arguments, **more)
            stack.callback(made.close)
            return made

        yield world


Make = Callable[..., World]


def python_hello() -> bytes:
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


def test_first_octets() -> None:
    hello = python_hello()
    assert all(begins_tls(hello[:count]) for count in range(1, len(hello)))
    assert all(begins_tls(SSLV2_HELLO[:count]) for count in range(1, len(SSLV2_HELLO)))
    for text in (
        b"a LOGIN",
        b"USER",
        b"EHLO",
        b"GET /",
        b"\r\n",
        b"\0",
        b"\x15\x03",
        b"\xff\xf4\xff",
        "é".encode() * 2,
    ):
        assert not begins_tls(text)


# --- Ports of STARTTLS


@pytest.mark.parametrize("cut", [1, 2, 5, 100])
def test_a_hello_before_the_greeting_is_served(make: Make, cut: int) -> None:
    world = make(delay=0.1)
    world.clock.advance(0.05)
    assert world.said() == b""
    hello = world.hello()
    world.say(hello[:cut])
    world.clock.advance(5)  # the rest is slow; nothing in clear text may come of that
    assert world.said() == b""
    assert world.shake_hands(hello[cut:]) == b"* OK ready\r\n", "the greeting comes, inside TLS"
    info = world.connection.info
    assert info.tls is not None
    assert not info.starttls_offered
    world.client.send(b"a NOOP\r\nb NOOP\r\n")
    world.say(world.client.bio_read(65536))
    assert world.read() == b"a NOOP\r\nb NOOP\r\n"
    assert world.counted("handshake") == 1
    assert world.counted("tls-at-starttls-port") == 0


@pytest.mark.parametrize("hello", [python_hello(), python_hello()[:1], SSLV2_HELLO, b"\x16 and then junk"])
def test_a_hello_before_the_greeting_is_refused_by_an_alert(make: Make, hello: bytes) -> None:
    world = make(delay=0.1, early="refuse")
    world.say(hello)
    assert world.said() == ALERT
    assert world.transport.write_closed
    world.say(hello)
    world.clock.advance(REJECTION_TIME - 0.5)
    assert not world.transport.aborted, "the rest of the message is read: closing on it would undo the alert"
    world.clock.advance(1)
    assert world.transport.aborted
    assert world.said() == b""
    assert world.counted("tls-at-starttls-port") == 1
    assert any("tls-at-starttls-port" in line and "before the greeting" in line for line in world.lines)


def test_a_client_reads_the_alert(make: Make) -> None:
    world = make(delay=0.1, early="refuse")
    world.say(world.hello())
    world.client.bio_write(world.said())
    with pytest.raises(SSL.Error, match="unexpected message"):
        world.client.do_handshake()


def test_the_greeting_comes_when_the_delay_is_over(make: Make) -> None:
    world = make(delay=0.1)
    world.clock.advance(0.09)
    assert world.said() == b""
    world.clock.advance(0.02)
    assert world.said() == b"* OK ready\r\n"
    world.say(b"a NOOP\r\n")
    assert world.said() == b"a NOOP\r\n"
    world.clock.advance(30)
    assert not world.transport.aborted


def test_commands_before_the_greeting_end_the_delay_and_are_answered_in_order(make: Make) -> None:
    world = make(delay=0.1)
    world.say(b"a NOOP\r\nb NOOP\r\n")
    assert world.said() == b"* OK ready\r\na NOOP\r\nb NOOP\r\n"
    world.clock.advance(1)
    assert world.said() == b"", "it greets once"


@pytest.mark.parametrize("delay", [0.0, 0.1])
@pytest.mark.parametrize("hello", [python_hello(), python_hello()[:1], SSLV2_HELLO])
def test_a_hello_behind_the_greeting_is_the_end(make: Make, delay: float, hello: bytes) -> None:
    world = make(delay=delay)
    world.clock.advance(0.2)
    assert world.said() == b"* OK ready\r\n"
    world.say(hello)
    world.say(b"a NOOP\r\n")
    assert world.said() == b""
    assert world.transport.disconnecting
    assert world.counted("tls-at-starttls-port") == 1
    assert sum("tls-at-starttls-port" in line for line in world.lines) == 1


def test_what_is_no_hello_behind_the_greeting_is_the_sessions(make: Make) -> None:
    for data in (b"\xff\xf4\xff\xfd\x06", b"\x15\x03\x01"):
        world = make()
        assert world.said() == b"* OK ready\r\n"
        world.say(data)
        assert world.said() == data
    world = make()
    world.said()
    world.say(b"a")
    world.say(b"\x16\x03\x01")
    assert world.said() == b"a\x16\x03\x01", "only the first octets are looked at"


def test_a_half_close_while_the_greeting_is_held_back_ends_it(make: Make) -> None:
    world = make(delay=0.1)
    world.connection.readConnectionLost()
    assert world.transport.aborted


# --- Ports of implicit TLS


@pytest.mark.parametrize("pieces", [[b"a LOGIN x y\r\n"], [b"a", b" LOGIN x", b" y\r", b"\n"], [b"\n"]])
def test_clear_text_gets_the_line_and_the_end(make: Make, pieces: list[bytes]) -> None:
    world = make("imaps")
    for piece in pieces:
        assert world.said() == b""
        world.say(piece)
    assert world.said() == SIGN
    assert world.transport.write_closed
    world.say(b"b LOGOUT\r\n")
    world.connection.readConnectionLost()
    assert world.said() == b""
    assert world.transport.disconnecting
    assert world.counted("cleartext-at-tls-port") == 1
    assert any('reason="the client sends clear text"' in line for line in world.lines)


@pytest.mark.parametrize("data", [b"", b"a LOGI", b"x" * LONGEST_FIRST_LINE])
def test_silence_gets_the_line_and_the_end(make: Make, data: bytes) -> None:
    world = make("imaps")
    world.say(data)
    world.clock.advance(FIRST_OCTETS_TIME - 0.1)
    assert world.said() == b""
    world.clock.advance(0.2)
    assert world.said() == SIGN
    world.clock.advance(REJECTION_TIME)
    assert world.transport.aborted
    assert world.counted("cleartext-at-tls-port") == 1


def test_a_long_line_is_not_waited_for(make: Make) -> None:
    world = make("imaps")
    world.say(b"x" * (LONGEST_FIRST_LINE + 1))
    assert world.said() == SIGN


@pytest.mark.parametrize(
    "begun",
    [python_hello()[:1], python_hello()[:50], SSLV2_HELLO[:1], SSLV2_HELLO[:30]],
    ids=["TLS, an octet", "TLS, more", "SSLv2, an octet", "SSLv2, more"],
)
def test_nothing_is_said_in_clear_text_once_an_octet_of_a_hello_has_come(make: Make, begun: bytes) -> None:
    world = make("imaps")
    world.say(begun)
    for _second in range(31):
        world.clock.advance(1)
    assert world.said() == b""
    assert world.transport.aborted
    assert any("no handshake in time" in line for line in world.lines)


def test_what_only_looks_like_tls_gets_an_alert_and_no_text(make: Make) -> None:
    world = make("imaps")
    world.say(b"\x16a LOGIN x y\r\n")
    said = world.said()
    assert said[:1] in (b"", b"\x15")
    assert b"BYE" not in said


def test_a_handshake_at_its_own_port_octet_by_octet(make: Make) -> None:
    world = make("imaps")
    world.clock.advance(FIRST_OCTETS_TIME - 1)
    hello = world.hello()
    for at in range(len(hello) - 1):
        world.say(hello[at : at + 1])
    world.clock.advance(5)
    assert world.shake_hands(hello[-1:]) == b"* OK ready\r\n"
    world.clock.advance(60)
    assert not world.transport.aborted


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"post /x HTTP/1.1\r\n", b"Host: a\r\n"])
def test_a_web_browser_gets_no_answer_at_a_port_of_mail(make: Make, data: bytes) -> None:
    world = make("imaps")
    world.say(data)
    assert world.said() == b""
    assert world.transport.write_closed
    assert world.counted("http-request") == 1


def test_a_web_browser_is_told_at_a_port_of_https(make: Make) -> None:
    world = make("https")
    world.say(b"GET / HTTP/1.1\r\n")
    assert world.said() == SIGN


def test_the_time_to_log_in_bounds_the_silence(make: Make) -> None:
    world = make("imaps", login_time=3.0)
    world.clock.advance(3)
    assert world.said() == SIGN


def test_the_end_of_the_service_cuts_who_has_said_nothing(make: Make) -> None:
    for protocol, delay in (("imaps", 0.0), ("imap", 0.1)):
        world = make(protocol, delay=delay)
        world.connection.stop()
        assert world.transport.aborted


# --- Its words


@pytest.mark.parametrize(
    ("protocol", "others", "line"),
    [
        (
            "imaps",
            [Listener("imaps"), Listener("imap", port=Port(1143)), Listener("pop3")],
            b"* BYE Port 993 is for SSL/TLS: set the security of IMAP to SSL/TLS, or the port to 1143 for STARTTLS\r\n",
        ),
        ("pop3s", [Listener("imap")], b"-ERR Port 995 is for SSL/TLS: set the security of POP3 to SSL/TLS\r\n"),
        (
            "submissions",
            [Listener("submission")],
            (
                b"421 4.7.0 Port 465 is for SSL/TLS: set the security of sending mail to SSL/TLS, or the port to 587 for"
                b" STARTTLS\r\n"
            ),
        ),
    ],
)
def test_the_line_names_port_and_mode(protocol: Any, others: list[Listener], line: bytes) -> None:
    assert wrong_port_message(Listener(protocol).family, Listener(protocol).tcp_port, others) == line


def test_the_page_of_https() -> None:
    head, _, body = wrong_port_message("http", 443, []).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"Content-Length: %d\r\n" % len(body) in head
    assert b"https://" in body
