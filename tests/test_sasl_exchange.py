"""SASL exchanges over IMAP, POP3 and submission: what is offered where, and each way they end."""

import base64
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen
from scramp import ScramClient
from scramp.core import CbName

from mailserver.auth.interfaces import Abilities
from mailserver.errors import AuthUnavailable
from mailserver.session.channel import ClientCertificate
from tests.fakes import BINDING, PROTOCOL_TLS, Client, FakeAuthenticator, info
from tests.imap import sessions
from tests.pop3 import dialogs
from tests.smtp import world

EVERYTHING = Abilities(frozenset({"SHA-256", "SHA-1"}), certificates=True)
CERTIFIED = evolve(PROTOCOL_TLS, client=ClientCertificate("anna@example.test", "CN=anna", "00"))
PASSWORDS = ["PLAIN", "LOGIN"]
SCRAM = ["SCRAM-SHA-256", "SCRAM-SHA-1"]
PLUS = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"]


@frozen
class Protocol:
    """How an exchange looks in one."""

    name: str
    connect: Callable[[FakeAuthenticator, Any, Any], Client]
    list: bytes
    begin: bytes
    """With the mechanism's name behind it."""
    asks: bytes
    done: bytes
    failed: bytes
    misunderstood: bytes


def imap(authenticator: FakeAuthenticator, facts: Any, _directory: Path) -> Client:
    client = sessions.connect(sessions.services(authenticator=authenticator), facts)
    client.take()
    return client


def pop3(authenticator: FakeAuthenticator, facts: Any, _directory: Path) -> Client:
    site = dialogs.World()
    client = Client(lambda channel: dialogs.Session(channel, evolve(site.services, authenticator=authenticator)), facts)
    client.take()
    return client


def submission(authenticator: FakeAuthenticator, facts: Any, directory: Path) -> Client:
    site = world.World(directory)
    services = evolve(site.submission, authenticator=authenticator)
    client = Client(lambda channel: world.SubmissionSession(channel, services), facts)
    client.ask(b"EHLO a.test\r\n")
    client.take()
    return client


PROTOCOLS = [
    Protocol(
        "imap",
        imap,
        b"c CAPABILITY\r\n",
        b"a AUTHENTICATE ",
        b"+ ",
        b"a OK [CAPABILITY ",
        b"a NO [AUTHENTICATIONFAILED] wrong user name or password\r\n",
        b"a BAD ",
    ),
    Protocol(
        "pop3",
        pop3,
        b"CAPA\r\n",
        b"AUTH ",
        b"+ ",
        b"+OK 0 messages",
        b"-ERR [AUTH] wrong user name or password\r\n",
        b"-ERR ",
    ),
    Protocol(
        "submission",
        submission,
        b"EHLO a.test\r\n",
        b"AUTH ",
        b"334 ",
        b"235 2.7.0 ",
        b"535 5.7.8 wrong user name or password\r\n",
        b"501 5.5.2 ",
    ),
]


@pytest.fixture(params=PROTOCOLS, ids=lambda protocol: protocol.name)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return request.param


class Site:
    """One connection."""

    def __init__(self, protocol: Protocol, directory: Path, **facts: Any) -> None:
        self.protocol = protocol
        self.authenticator = FakeAuthenticator()
        self.authenticator.can = EVERYTHING
        self.client = protocol.connect(self.authenticator, info(**{"protocol": "imaps", **facts}), directory)

    def offered(self) -> list[str]:
        answer = self.client.ask(self.protocol.list).decode().replace("\r\n", " ")
        words = answer.replace("AUTH=", " ").replace("250-", " ").replace("250 ", " ").split()
        return [word for word in words if word in {"EXTERNAL", *PLUS, *PASSWORDS}]

    def begin(self, mechanism: str, initial: bytes | None = None) -> bytes:
        """The challenge, or the final answer."""
        words = b"" if initial is None else b" " + (base64.b64encode(initial) or b"=")
        self.client.send(self.protocol.begin + mechanism.encode() + words + b"\r\n")
        return self.heard()

    def answer(self, data: bytes) -> bytes:
        self.client.send(base64.b64encode(data) + b"\r\n")
        return self.heard()

    def heard(self) -> bytes:
        said = self.client.take()
        asks = self.protocol.asks
        return base64.b64decode(said.removeprefix(asks)) if said.startswith(asks) else said

    def logged(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.client.channel.logged if name == event]


@pytest.fixture
def site(protocol: Protocol, tmp_path: Path) -> Site:
    return Site(protocol, tmp_path)


def scramp(mechanism: str = "SCRAM-SHA-256", password: str = "secret", binding: bytes = BINDING) -> Any:
    channel_binding = ("tls-exporter", binding) if mechanism.endswith("-PLUS") else None
    return ScramClient([mechanism], "anna@example.test", password, channel_binding=channel_binding)


@pytest.fixture(autouse=True)
def tls_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """scramp knows the type and refuses it, as Python's ssl cannot tell the octets."""
    monkeypatch.setattr(CbName, "UNSUPPORTED_TYPES", frozenset())
    monkeypatch.setattr(CbName, "SUPPORTED_TYPES", frozenset({"tls-exporter"}))


def test_what_is_offered_where(protocol: Protocol, tmp_path: Path) -> None:
    assert Site(protocol, tmp_path).offered() == [*PLUS, *PASSWORDS]
    assert Site(protocol, tmp_path, tls=False).offered() == []
    assert Site(protocol, tmp_path, tls=False, cleartext=True).offered() == [*SCRAM, *PASSWORDS]
    site = Site(protocol, tmp_path)
    site.client.channel.facts = evolve(site.client.channel.facts, tls=CERTIFIED)
    assert site.offered() == ["EXTERNAL", *PLUS, *PASSWORDS]
    # A certificate in which nobody stands, as the domain's settings look for one.
    nobody = evolve(CERTIFIED, client=ClientCertificate("", "CN=anna", "00"))
    site.client.channel.facts = evolve(site.client.channel.facts, tls=nobody)
    assert site.offered() == [*PLUS, *PASSWORDS]
    site.client.channel.channel_binding = lambda: None  # type: ignore[method-assign]
    assert site.offered() == [*SCRAM, *PASSWORDS]
    site.authenticator.can = Abilities(frozenset(), certificates=False)
    assert site.offered() == PASSWORDS


@pytest.mark.parametrize("mechanism", PLUS)
@pytest.mark.parametrize("at_once", [True, False], ids=["initial response", "challenge"])
def test_scram(site: Site, mechanism: str, at_once: bool) -> None:
    client = scramp(mechanism)
    first = client.get_client_first().encode()
    if at_once:
        said = site.begin(mechanism, first)
    else:
        assert site.begin(mechanism) == b""
        said = site.answer(first)
    client.set_server_first(said.decode())
    client.set_server_final(site.answer(client.get_client_final().encode()).decode())
    assert site.client.channel.user is None, "the last message is still to be answered"
    assert site.answer(b"").startswith(site.protocol.done)
    assert site.client.channel.user == "anna@example.test"
    assert site.logged("login") == [{"user": "anna@example.test", "method": mechanism}]


def proved(site: Site, mechanism: str, client: Any) -> bytes:
    """What is said to the proof."""
    client.set_server_first(site.begin(mechanism, client.get_client_first().encode()).decode())
    return site.answer(client.get_client_final().encode())


def test_wrong_password(site: Site) -> None:
    assert proved(site, "SCRAM-SHA-256", scramp(password="wrong")) == site.protocol.failed
    (failure,) = site.logged("login-failed")
    assert failure["user"] == "anna@example.test"
    assert failure["method"] == "SCRAM-SHA-256"
    # The connection goes on.
    assert site.begin("PLAIN", b"\0anna@example.test\0secret").startswith(site.protocol.done)


def test_wrong_binding(site: Site) -> None:
    client = scramp("SCRAM-SHA-256-PLUS", binding=bytes(32))
    assert proved(site, "SCRAM-SHA-256-PLUS", client) == site.protocol.failed
    (failure,) = site.logged("login-failed")
    assert "remove the -PLUS mechanisms from [auth] mechanisms" in str(failure["reason"])
    assert site.authenticator.contexts == [], "nothing was verified"


def test_downgrade(site: Site) -> None:
    assert site.begin("SCRAM-SHA-256", b"y,,n=anna@example.test,r=abc") == site.protocol.failed
    assert "a man in the middle" in str(site.logged("login-failed")[0]["reason"])


def test_last_message_answered_by_more_than_nothing(site: Site) -> None:
    proved(site, "SCRAM-SHA-256", scramp())
    assert site.answer(b"thanks") == site.protocol.failed
    assert site.client.channel.user is None


def test_last_message_cancelled(site: Site) -> None:
    proved(site, "SCRAM-SHA-256", scramp())
    site.client.send(b"*\r\n")
    assert b"cancelled" in site.client.take()
    assert site.client.channel.user is None
    assert site.logged("login") == []


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN"])
def test_a_change_before_the_client_answers_the_last_message(site: Site, mechanism: str) -> None:
    if mechanism == "PLAIN":
        site.authenticator.changed.add("anna@example.test")
        said = site.begin("PLAIN", b"\0anna@example.test\0secret")
    else:
        proved(site, mechanism, scramp())
        site.authenticator.changed.add("anna@example.test")
        said = site.answer(b"")
    assert b"was changed in the meantime, try again" in said
    assert site.client.channel.user is None
    (failure,) = site.logged("login-failed")
    assert (failure["user"], failure["reason"]) == ("anna@example.test", "it was changed")
    assert site.authenticator.accepted_logins == []
    site.authenticator.changed.clear()
    assert site.begin("PLAIN", b"\0anna@example.test\0secret").startswith(site.protocol.done)


@pytest.mark.parametrize("line", [b"not base64!", b"biws=", b"\x00", b"b i"])
def test_no_base64(site: Site, line: bytes) -> None:
    site.begin("SCRAM-SHA-256", b"n,,n=anna@example.test,r=abc")
    site.client.send(line + b"\r\n")
    assert site.client.take().startswith(site.protocol.misunderstood)
    assert site.client.channel.user is None
    assert site.begin("PLAIN", b"\0anna@example.test\0secret").startswith(site.protocol.done)


def test_an_exchange_of_one_mechanism_is_not_gone_on_with_in_another(site: Site) -> None:
    client = scramp()
    client.set_server_first(site.begin("SCRAM-SHA-256", client.get_client_first().encode()).decode())
    site.client.send(b"*\r\n")
    site.client.take()
    assert site.begin("SCRAM-SHA-256", client.get_client_final().encode()) == site.protocol.failed


def test_back_end_that_cannot_answer(site: Site) -> None:
    site.authenticator.error = AuthUnavailable()
    said = site.begin("SCRAM-SHA-256", b"n,,n=anna@example.test,r=abc")
    assert b"try again later" in said
    assert site.logged("login-failed")[0]["user"] == "anna@example.test"


def certified(protocol: Protocol, directory: Path) -> Site:
    site = Site(protocol, directory, peer=ip_address("192.0.2.9"))
    site.client.channel.facts = evolve(site.client.channel.facts, tls=CERTIFIED)
    return site


def test_external(protocol: Protocol, tmp_path: Path) -> None:
    for initial in (b"", None):
        site = certified(protocol, tmp_path)
        said = site.begin("EXTERNAL", initial)
        if initial is None:
            assert said == b""
            said = site.answer(b"")
        assert said.startswith(protocol.done)
        assert site.logged("login") == [{"user": "anna@example.test", "method": "EXTERNAL"}]
    assert certified(protocol, tmp_path).begin("EXTERNAL", b"anna@example.test").startswith(protocol.done)


def test_external_for_somebody_else(protocol: Protocol, tmp_path: Path) -> None:
    site = certified(protocol, tmp_path)
    assert b"may not act" in site.begin("EXTERNAL", b"bert@example.org")
    assert site.client.channel.user is None


def test_external_without_a_certificate(site: Site) -> None:
    said = site.begin("EXTERNAL", b"")
    assert b"mechanism" in said
    assert site.client.channel.user is None


def test_before_tls_nothing_is_asked(protocol: Protocol, tmp_path: Path) -> None:
    site = Site(protocol, tmp_path, tls=False)
    said = site.begin("SCRAM-SHA-256", b"n,,n=anna@example.test,r=abc")
    assert b"TLS" in said
    assert not said.startswith(protocol.asks + b"r=")


@pytest.mark.parametrize("answer", [b"*", b"!"], ids=["cancelled", "no-base64"])
def test_a_client_that_takes_salts_and_gives_no_proof_counts_as_failing(
    protocol: Protocol, tmp_path: Path, answer: bytes
) -> None:
    """Otherwise one connection could ask for the salts of any number of names, unseen."""
    site = Site(protocol, tmp_path)
    site.authenticator.can = EVERYTHING
    first = base64.b64encode(b"n,,n=nobody@example.test,r=abc")
    for number in range(1, 6):
        site.client.send(protocol.begin + b"SCRAM-SHA-256 " + first + b"\r\n")
        assert protocol.asks in site.client.take()
        site.client.send(answer + b"\r\n")
        site.client.take()
        # Another command between them resets no count.
        site.client.send(b"n NOOP\r\n" if protocol.name == "imap" else b"NOOP\r\n")
        site.client.take()
        assert len(site.logged("login-failed")) == number
        assert site.client.done == (number == 5)
    assert {each["user"] for each in site.logged("login-failed")} == {"nobody@example.test"}


def test_a_login_after_one_cancelled_exchange_is_as_any_other(protocol: Protocol, tmp_path: Path) -> None:
    site = Site(protocol, tmp_path)
    site.authenticator.can = EVERYTHING
    first = base64.b64encode(b"n,,n=anna@example.test,r=abc")
    site.client.send(protocol.begin + b"SCRAM-SHA-256 " + first + b"\r\n")
    site.client.take()
    site.client.send(b"*\r\n")
    assert b"cancelled" in site.client.take()
    plain = base64.b64encode(b"\0anna@example.test\0secret")
    site.client.send(protocol.begin + b"PLAIN " + plain + b"\r\n")
    assert protocol.done in site.client.take()
