"""Logins before TLS, by every protocol: always the same refusal, first; then what was given away is told, once."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailserver.auth.asking import NEW
from mailserver.auth.exposure.checker import CHECK_INTERVAL, ExposureChecker
from mailserver.auth.restrictions import Names
from mailserver.auth.service import LoginService
from mailserver.auth.throttling.login_throttle import LoginThrottle
from mailserver.auth.throttling.penalties import Penalties
from mailserver.errors import PrivacyRequired
from mailserver.imap.error_counts import CLEARTEXT_LOGINS
from mailserver.imap.session import Session as ImapSession
from mailserver.net.connection.connection import Connection
from mailserver.net.ipc.event_counters import EventCounters
from mailserver.types import Secret
from tests.auth.test_service import Hashed
from tests.fakes import Client, FakeAuthenticator, info
from tests.imap.sessions import connect, services
from tests.net.connections import Transport, make_context
from tests.pop3.dialogs import World as Pop3World
from tests.smtp.world import World as SmtpWorld

ANNA = "anna@example.test"
WORDS = PrivacyRequired.text.encode()
REFUSAL = {
    "imap": b"a NO [PRIVACYREQUIRED] " + WORDS + b"\r\n",
    "pop3": b"-ERR " + WORDS + b"\r\n",
    "submission": b"530 5.7.0 " + WORDS + b"\r\n",
}


def plain(name: str, password: str) -> bytes:
    return base64.b64encode(f"\0{name}\0{password}".encode())


def quoted(name: str, password: str) -> bytes:
    return f'a LOGIN "{name}" "{password}"\r\n'.encode()


def literals(name: str, password: str) -> bytes:
    return f"a LOGIN {{{len(name)}+}}\r\n{name} {{{len(password)}+}}\r\n{password}\r\n".encode()


def encoded(text: str) -> bytes:
    return base64.b64encode(text.encode())


def plain_later(command: bytes) -> Callable[[str, str], bytes]:
    """AUTH PLAIN, and the answer to the challenge that was refused."""
    return lambda *both: command + b" PLAIN\r\n" + plain(*both) + b"\r\n"


def login_later(command: bytes) -> Callable[[str, str], bytes]:
    """AUTH LOGIN, and both answers."""
    return lambda *both: b"\r\n".join([command + b" LOGIN", *map(encoded, both), b""])


def login_begun(command: bytes) -> Callable[[str, str], bytes]:
    """AUTH LOGIN with the name, and the password behind it."""
    return lambda *both: b"%b LOGIN %b\r\n%b\r\n" % (command, *map(encoded, both))


WAYS: dict[str, tuple[str, str, Callable[[str, str], bytes], int]] = {
    "login": ("imap", "LOGIN", quoted, 1),
    "literals": ("imap", "LOGIN", literals, 1),
    "authenticate": ("imap", "PLAIN", lambda *both: b"a AUTHENTICATE PLAIN %b\r\n" % plain(*both), 1),
    "user": ("pop3", "USER", lambda *both: "USER {}\r\nPASS {}\r\n".format(*both).encode(), 2),
    "pop3-auth": ("pop3", "PLAIN", lambda *both: b"AUTH plain %b\r\n" % plain(*both), 1),
    "smtp-auth": ("submission", "PLAIN", lambda *both: b"AUTH PLAIN %b\r\n" % plain(*both), 1),
}
"""Protocol, method in the log, what is sent, answers."""
AUTH = {"imap": b"a AUTHENTICATE", "pop3": b"AUTH", "submission": b"AUTH"}
BLINDLY: dict[str, tuple[str, Callable[[bytes], Callable[[str, str], bytes]]]] = {
    "plain": ("PLAIN", plain_later),
    "login": ("LOGIN", login_later),
    "login-begun": ("LOGIN", login_begun),
}
"""Method in the log, and what is sent by a client that waits for no challenge."""
NOTHING = {
    "imap": [
        b"a LOGIN anna {6}\r\n",
        b"a LOGIN {17}\r\n",
        b"a LOGIN {17+}\r\nanna@example.test {6}\r\n",
        b"a LOGIN anna {2000+}\r\n" + b"x" * 2000 + b"\r\n",
        b"a LOGIN " + b"{1+}\r\nx " * 5 + b"y\r\n",
        b"a LOGIN anna\r\n",
        b"a LOGIN anna secret more\r\n",
        b"a LOGIN\r\n",
        b"a LOGIN {1+}\r\n\xff secret\r\n",
        b"a AUTHENTICATE PLAIN\r\n",
        b"a AUTHENTICATE PLAIN =\r\n",
        b"a AUTHENTICATE PLAIN !!!!\r\n",
        b"a AUTHENTICATE LOGIN YW5uYQ==\r\n",
        b"a AUTHENTICATE SCRAM-SHA-256 biwsbj1hLHI9Yg==\r\n",
    ],
    "pop3": [b"USER anna\r\n", b"PASS secret\r\n", b"AUTH PLAIN\r\n", b"AUTH\r\n", b"AUTH LOGIN YW5uYQ==\r\n"],
    "submission": [b"AUTH PLAIN\r\n", b"AUTH LOGIN YW5uYQ==\r\n", b"AUTH PLAIN =\r\n", b"AUTH\r\n"],
}
"""Refused alike, and no password is given away, or not one that could be right."""


class World:
    """Sessions of all protocols over one authenticator."""

    def __init__(self, directory: Path) -> None:
        self.authenticator = FakeAuthenticator()
        self.directory = directory

    def connect(self, protocol: str) -> Client:
        facts = info(protocol)
        if protocol == "imap":
            return connect(services(authenticator=self.authenticator), facts)
        world: Any = Pop3World() if protocol == "pop3" else SmtpWorld(self.directory)
        world.authenticator = self.authenticator
        if protocol == "pop3":
            import attrs

            world.services = attrs.evolve(world.services, authenticator=self.authenticator)
        else:
            import attrs

            world.submission = attrs.evolve(world.submission, authenticator=self.authenticator)
        return world.connect(facts)  # type: ignore[no-any-return]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_password_before_tls_is_refused_and_told(world: World, way: str, cut: int) -> None:
    protocol, method, make, answers = WAYS[way]
    for name, password in ((ANNA, "secret"), (ANNA, "wrong"), ("nobody@example.net", "secret")):
        client = world.connect(protocol)
        client.take()
        data = make(name, password)
        for at in range(0, len(data), cut or len(data)):
            client.send(data[at : at + (cut or len(data))])
        assert client.take() == REFUSAL[protocol] * answers
        assert client.channel.logged[-1] == ("cleartext-login", {"user": name, "method": method})
        assert world.authenticator.exposures.pop() == (name, password.encode(), method, protocol)
        assert world.authenticator.exposures == []
    assert world.authenticator.contexts == []


@pytest.mark.parametrize("cut", [0, 1, 7])
@pytest.mark.parametrize("way", list(BLINDLY))
@pytest.mark.parametrize("protocol", list(AUTH))
def test_a_client_that_waits_for_no_challenge_is_refused_and_told(
    world: World, protocol: str, way: str, cut: int
) -> None:
    method, make = BLINDLY[way]
    for name, password in ((ANNA, "secret"), (ANNA, "wrong"), ("nobody@example.net", "secret")):
        client = world.connect(protocol)
        client.take()
        data = make(AUTH[protocol])(name, password)
        for at in range(0, len(data), cut or len(data)):
            client.send(data[at : at + (cut or len(data))])
        behind = data.partition(b"\r\n")[2]
        stranger = world.connect(protocol)
        stranger.take()
        stranger.send(behind)
        assert client.take() == REFUSAL[protocol] + stranger.take(), "as lines that are no commands always are"
        assert client.channel.logged[-1] == ("cleartext-login", {"user": name, "method": method})
        assert world.authenticator.exposures.pop() == (name, password.encode(), method, protocol)
        client.send(behind)
        assert world.authenticator.exposures == [], "the exchange is over"
    assert world.authenticator.contexts == []


@pytest.mark.parametrize("protocol", list(AUTH))
@pytest.mark.parametrize(
    "between", [b"*", b"!!!!", b"", b"/w==", b"AAAA", b"x" * 3000, encoded("x" * 2100)], ids=lambda data: str(data[:5])
)
def test_what_breaks_the_exchange_ends_it(world: World, protocol: str, between: bytes) -> None:
    client = world.connect(protocol)
    client.send(b"\r\n".join([AUTH[protocol] + b" LOGIN", between, encoded(ANNA), encoded("secret"), b""]))
    assert world.authenticator.exposures == []
    assert not client.done


@pytest.mark.parametrize(
    ("protocol", "command"),
    [("pop3", each) for each in (b"QUIT", b"RSET", b"STAT", b"CAPA")]
    + [("submission", each) for each in (b"QUIT", b"RSET", b"MAIL", b"DATA")],
)
def test_a_command_is_no_password(world: World, protocol: str, command: bytes) -> None:
    """Four letters are base64, too, and what a client says that has understood its refusal."""
    client = world.connect(protocol)
    client.send(b"AUTH LOGIN " + encoded(ANNA) + b"\r\n" + command + b"\r\n" + encoded("secret") + b"\r\n")
    assert world.authenticator.exposures == []


@pytest.mark.parametrize(
    ("protocol", "data"), [(protocol, data) for protocol, all_ in NOTHING.items() for data in all_]
)
def test_what_gives_no_password_away_is_refused_alike(world: World, protocol: str, data: bytes) -> None:
    client = world.connect(protocol)
    client.take()
    client.send(data)
    assert client.take() == REFUSAL[protocol]
    assert world.authenticator.exposures == []
    client.send({"imap": b"b NOOP\r\n", "pop3": b"CAPA\r\n", "submission": b"NOOP\r\n"}[protocol])
    assert client.take().startswith({"imap": b"b OK", "pop3": b"+OK", "submission": b"250"}[protocol]), "in step"


def test_the_refusal_does_not_wait_for_the_literals(world: World) -> None:
    client = world.connect("imap")
    client.take()
    client.send(b"a LOGIN {4+}\r\n")
    assert client.take() == REFUSAL["imap"]
    client.send(b"anna {6+}\r\nsec")
    assert client.take() == b""
    client.send(b"ret\r\nb NOOP\r\n")
    assert client.take().startswith(b"b OK")
    assert world.authenticator.exposures == [("anna", b"secret", "LOGIN", "imap")]


@pytest.mark.parametrize("way", list(WAYS))
def test_pipelined_logins_are_answered_in_order(world: World, way: str) -> None:
    protocol, _method, make, answers = WAYS[way]
    client = world.connect(protocol)
    client.take()
    client.send(make(ANNA, "one") + make(ANNA, "two"))
    assert client.take() == REFUSAL[protocol] * answers * 2
    assert [password for _name, password, *_rest in world.authenticator.exposures] == [b"one", b"two"]


def test_a_name_from_before_tls_is_forgotten(world: World) -> None:
    client = world.connect("pop3")
    client.send(b"USER anna@example.test\r\nSTLS\r\n")
    client.take()
    client.send(b"PASS secret\r\n")
    assert client.take().startswith(b"-ERR")
    assert world.authenticator.exposures == []
    assert world.authenticator.contexts == []


def test_with_cleartext_allowed_nothing_is_refused(world: World) -> None:
    client = connect(services(authenticator=world.authenticator), info("imap", cleartext=True))
    client.send(quoted(ANNA, "secret"))
    assert b"a OK" in client.take()
    assert world.authenticator.exposures == []


@pytest.mark.parametrize("password", ["secret", "wrong"])
def test_refusals_of_one_connection_are_bounded_alike(world: World, password: str) -> None:
    client = world.connect("imap")
    client.take()
    for number in range(CLEARTEXT_LOGINS):
        assert not client.done, number
        client.send(quoted(ANNA, password))
    assert client.take().endswith(b"* BYE too many failed logins\r\n")


class OneByOne:
    """Everything that happens in a process, in its order: what is written to clients, and what is checked."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.clock = Clock()
        penalties = Penalties(self.clock.seconds)
        self.watch = ExposureChecker(
            penalties.digest, self.clock.seconds, self.clock.callLater, self.spawn, lambda: False
        )
        self.watch.on_exposed = lambda _mark: self.events.append("marked")
        authenticator = LoginService(
            [Hashed({ANNA: "{PLAIN}secret"})],
            self,
            Names(frozenset(), "", lambda _name: None),
            LoginThrottle(
                penalties,
                lambda _seconds: pytest.fail("nobody waits"),
                self.clock.seconds,
                Deferred,
                self.clock.callLater,
            ),
            exposures=self.watch,
        )
        service = services(authenticator=authenticator)
        self.event_counters = EventCounters()
        context = make_context(lambda channel: ImapSession(channel, service), self.clock, self.event_counters)
        events = self.events

        class Writes(Transport):
            def write(self, data: bytes) -> None:
                events.append(data)

        self.connection = Connection(context)
        self.connection.makeConnection(Writes())
        events.clear()

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        del share, rank
        self.events.append("checked")
        return stored == "{PLAIN}" + password.reveal().decode()

    @staticmethod
    def spawn(coroutine: Any) -> None:
        with pytest.raises(StopIteration):
            coroutine.send(None)


@pytest.mark.parametrize(("password", "trace"), [("secret", ["checked", "marked"]), ("wrong", ["checked"])])
def test_the_answer_is_written_before_any_check_begins(password: str, trace: list[str]) -> None:
    process = OneByOne()
    process.connection.dataReceived(quoted(ANNA, password) + b"b NOOP\r\n")
    assert process.events == [REFUSAL["imap"] + b"b OK NOOP completed\r\n"]
    process.clock.advance(CHECK_INTERVAL)
    assert process.events[1:] == trace
    process.connection.dataReceived(b"c NOOP\r\n")
    assert process.events[-1] == b"c OK NOOP completed\r\n"
    counted = {row[0]: row[3] for row in process.event_counters.rows()}  # type: ignore[index]
    assert counted["cleartext-login"] == 1
    assert counted.get("password-exposed", 0) == (password == "secret")


def test_a_client_that_goes_at_once_has_given_its_password_away_all_the_same() -> None:
    process = OneByOne()
    process.connection.dataReceived(quoted(ANNA, "secret"))
    process.connection.connectionLost()
    process.clock.advance(CHECK_INTERVAL)
    assert process.events[1:] == ["checked", "marked"]
