"""Logins that send no password, through a real TLS connection: the binding, who gets -PLUS, what the log says."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from OpenSSL import SSL
from scramp import ScramClient
from scramp.core import CbName

from mailserver.sasl.registry import MECHANISMS
from tests.live.client import STARTTLS, family
from tests.live.conftest import no_bug
from tests.refs import without_refs
from tests.server import Server

NO_EXTENDED_MASTER_SECRET = 1
"""OpenSSL's SSL_OP_NO_EXTENDED_MASTER_SECRET."""


@pytest.fixture(autouse=True)
def tls_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """scramp knows the type and refuses it, as Python's ssl cannot tell the octets."""
    monkeypatch.setattr(CbName, "UNSUPPORTED_TYPES", frozenset())
    monkeypatch.setattr(CbName, "SUPPORTED_TYPES", frozenset({"tls-exporter"}))


EVERYWHERE = '[auth]\nscram_protocols = ["imap", "pop3", "submission"]\n'


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that offers SCRAM in every protocol."""
    server = Server(tmp_path_factory.mktemp("sasl"), edit={"[auth]\n": EVERYWHERE})
    with server:
        yield server
    no_bug(server.log)


class SaslClient:
    """A protocol over a TLS connection that can tell its binding. The arithmetic of SCRAM is scramp's."""

    def __init__(
        self, server: Server, protocol: str = "imaps", *, version: int = SSL.TLS1_3_VERSION, options: int = 0
    ) -> None:
        self.family = family(protocol)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.load_verify_locations(str(server.ca))
        context.set_verify(SSL.VERIFY_PEER)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.set_options(options)
        self.socket = socket.create_connection(("127.0.0.1", server.port(protocol)), 30)
        self.socket.setblocking(True)
        self._receive, self._send = self.socket.recv, self.socket.sendall
        self._received = b""
        if protocol == self.family:
            self.line()
            if self.family == "submission":
                self.words()
            command, good = STARTTLS[self.family]
            assert self.ask(command.removesuffix(b"\r\n")).startswith(good)
        self.tls = SSL.Connection(context, self.socket)
        self.tls.set_tlsext_host_name(b"mail.example.test")
        self.tls.set_connect_state()
        self.tls.do_handshake()
        self._receive, self._send = self.tls.recv, self.tls.sendall
        if protocol != self.family:
            self.line()

    def line(self) -> bytes:
        while b"\r\n" not in self._received:
            self._received += self._receive(4096)
        line, _end, self._received = self._received.partition(b"\r\n")
        return line + b"\r\n"

    def ask(self, line: bytes) -> bytes:
        self._send(line + b"\r\n")
        return self.line()

    def words(self) -> list[str]:
        """Of the lines that list what is offered."""
        command, last = {
            "imap": (b"c CAPABILITY", b"c OK"),
            "pop3": (b"CAPA", b"."),
            "submission": (b"EHLO client.example.net", b"250 "),
        }[self.family]
        lines = [self.ask(command)]
        while not lines[-1].startswith(last):
            lines.append(self.line())
        return b" ".join(lines).decode().replace("AUTH=", "").split()

    def mechanisms(self) -> set[str]:
        return set(self.words()) & MECHANISMS.keys()

    def begin(self, mechanism: str, initial: bytes = b"") -> bytes:
        """What is answered to an exchange's beginning."""
        command = "a AUTHENTICATE" if self.family == "imap" else "AUTH"
        return self.ask(b" ".join(filter(None, (command.encode(), mechanism.encode(), base64.b64encode(initial)))))

    def binding(self) -> bytes:
        return self.tls.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")

    def scram(self, user: str, password: str, mechanism: str, binding: bytes | None) -> bytes:
        """The last answer; before it the server has proved itself."""
        bound = ("tls-exporter", binding) if mechanism.endswith("-PLUS") else None
        client: Any = ScramClient([mechanism], user, password, channel_binding=bound)
        if self.family == "submission":
            self.words()
        said = self.begin(mechanism, client.get_client_first().encode())
        client.set_server_first(self._challenge(said))
        said = self.ask(base64.b64encode(client.get_client_final().encode()))
        if not said.startswith((b"+ ", b"334 ")):
            return said
        client.set_server_final(self._challenge(said))
        return self.ask(b"")

    @staticmethod
    def _challenge(line: bytes) -> str:
        assert line.startswith((b"+ ", b"334 ")), line
        return base64.b64decode(line.partition(b" ")[2]).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()


GOOD = {"imap": b"a OK", "pop3": b"+OK", "submission": b"235 2.7.0"}
WRONG = {"imap": b"a NO [AUTHENTICATIONFAILED]", "pop3": b"-ERR [AUTH]", "submission": b"535 5.7.8"}
UNOFFERED = {"imap": b"a NO [CANNOT]", "pop3": b"-ERR ", "submission": b"504 5.5.4"}
PROTOCOLS = ["imaps", "imap", "pop3s", "pop3", "submissions", "submission"]
each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
each_family = pytest.mark.parametrize("protocol", ["imaps", "pop3s", "submissions"])


@each_protocol
@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["TLS 1.2", "TLS 1.3"])
def test_scram_bound_to_the_connection(shared: Server, protocol: str, version: int) -> None:
    user, password = shared.user_of("example.test")
    before = len(shared.log)
    with SaslClient(shared, protocol, version=version) as client:
        assert client.mechanisms() == {"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"}
        said = client.scram(user, password, "SCRAM-SHA-256-PLUS", client.binding())
        assert said.startswith(GOOD[client.family])
    shared.wait_for(rf"login session=\S+ protocol={protocol} .* user={user} method=SCRAM-SHA-256-PLUS", since=before)


@each_protocol
def test_scram_without_binding(shared: Server, protocol: str) -> None:
    user, password = shared.user_of("example.test")
    before = len(shared.log)
    with SaslClient(shared, protocol) as client:
        assert client.scram(user, password, "SCRAM-SHA-256", None).startswith(GOOD[client.family])
    shared.wait_for(rf"login session=\S+ protocol={protocol} .* user={user} method=SCRAM-SHA-256\n", since=before)


@each_family
def test_a_wrong_password_and_an_unknown_user_fail_alike(shared: Server, protocol: str) -> None:
    user, password = shared.user_of("example.test")
    answers = []
    for name, word in ((user, "wrong"), ("nobody@example.test", password)):
        with SaslClient(shared, protocol) as client:
            answers.append(without_refs(client.scram(name, word, "SCRAM-SHA-256", None)))
    assert answers[0] == answers[1]
    assert answers[0].startswith(WRONG[family(protocol)])


@each_family
def test_a_connection_without_extended_master_secret_has_no_binding(shared: Server, protocol: str) -> None:
    """RFC 9266: two such connections may have the same octets."""
    user, password = shared.user_of("example.test")
    with SaslClient(shared, protocol, version=SSL.TLS1_2_VERSION, options=NO_EXTENDED_MASTER_SECRET) as client:
        assert client.mechanisms() == {"SCRAM-SHA-256", "PLAIN", "LOGIN"}
        assert client.begin("SCRAM-SHA-256-PLUS").startswith(UNOFFERED[client.family])
        assert client.scram(user, password, "SCRAM-SHA-256", None).startswith(GOOD[client.family])


@each_family
def test_tls_unique_is_no_binding_here(shared: Server, protocol: str) -> None:
    """RFC 9266 2: with TLS 1.3 it does not exist, and below it is weaker; a client that names it is told so in the log."""
    before = len(shared.log)
    with SaslClient(shared, protocol, version=SSL.TLS1_2_VERSION) as client:
        if client.family == "submission":
            client.words()
        said = client.begin("SCRAM-SHA-256-PLUS", b"p=tls-unique,,n=nobody,r=abcdefghijkl")
        assert said.startswith(WRONG[client.family])
    shared.wait_for(r"login-failed session=.* method=SCRAM-SHA-256-PLUS reason=.*tls-unique", since=before)


@each_family
def test_somebody_in_between(shared: Server, protocol: str) -> None:
    """The octets of another connection, as a client sees them through a proxy that ends TLS."""
    user, password = shared.user_of("example.test")
    before = len(shared.log)
    with SaslClient(shared, protocol) as client, SaslClient(shared, protocol) as other:
        said = client.scram(user, password, "SCRAM-SHA-256-PLUS", other.binding())
        assert said.startswith(WRONG[client.family])
    shared.wait_for(r"login-failed session=.*not the peer of this TLS connection.*-PLUS", since=before)


@each_family
def test_a_list_that_somebody_has_shortened(shared: Server, protocol: str) -> None:
    """RFC 5802 6: a client that could have bound says so, and here it was offered."""
    before = len(shared.log)
    with SaslClient(shared, protocol) as client:
        if client.family == "submission":
            client.words()
        said = client.begin("SCRAM-SHA-256", b"y,,n=nobody,r=abcdefghijkl")
        assert said.startswith(WRONG[client.family])
    shared.wait_for(r"login-failed session=.* method=SCRAM-SHA-256 reason=", since=before)


@each_family
def test_what_was_said_before_does_not_let_in_again(shared: Server, protocol: str) -> None:
    """The client's messages of an exchange that succeeded, sent again: the server's nonce is another one."""
    user, password = shared.user_of("example.test")
    client_says: Any = ScramClient(["SCRAM-SHA-256"], user, password)
    first = client_says.get_client_first().encode()
    final = b""
    for again in (False, True):
        with SaslClient(shared, protocol) as client:
            if client.family == "submission":
                client.words()
            said = client.begin("SCRAM-SHA-256", first)
            if not again:
                client_says.set_server_first(client._challenge(said))
                final = client_says.get_client_final().encode()
            said = client.ask(base64.b64encode(final))
            assert said.startswith(WRONG[client.family] if again else (b"+ ", b"334 "))


@each_family
def test_the_last_step_first(shared: Server, protocol: str) -> None:
    nonce = "abcdefghijkl"
    # Nobody: there are keys to go on with all the same, and no user whom failures slow.
    user = f"{protocol}@example.test"
    for messages in (
        [f"c=biws,r={nonce},p=AAAA"],
        [f"n,,n={user},r={nonce}", f"n,,n={user},r={nonce}"],
        [f"n,,n={user},r={nonce}", f"c=biws,r={nonce},p={'A' * 43}="],
    ):
        with SaslClient(shared, protocol) as client:
            if client.family == "submission":
                client.words()
            said = client.begin("SCRAM-SHA-256", messages[0].encode())
            for message in messages[1:]:
                assert said.startswith((b"+ ", b"334 ")), said
                said = client.ask(base64.b64encode(message.encode()))
            assert said.startswith(WRONG[client.family]), messages
            # And the stream is in step.
            assert client.mechanisms()


def test_keys_decide_what_is_offered(tmp_path: Path) -> None:
    with Server(tmp_path / "server", edit={"[auth]\n": EVERYWHERE}) as server:

        def offered() -> bool:
            found = set()
            for protocol in ("imaps", "pop3s", "submissions"):
                with SaslClient(server, protocol) as client:
                    found.add("SCRAM-SHA-256" in client.mechanisms())
            assert len(found) == 1, "the same in each protocol"
            return found.pop()

        assert offered()
        user, _password = server.user_of("example.test")
        common = ("--config", str(server.config))
        server.run_cli("user", "password", *common, "--no-scram", user, text="other password\n")
        assert "SCRAM" not in server.run_cli("user", "list", *common).stdout.splitlines()[0]
        server.hang_up()
        assert not offered(), "that user could not log in by it"
        server.replace("[auth]\n", '[auth]\nscram_for = "some"\n')
        server.hang_up()
        assert offered()
        server.replace('scram_for = "some"\n', "")
        server.run_cli("user", "password", *common, user, text="third password\n")
        server.hang_up()
        assert offered()
        with SaslClient(server) as client:
            assert client.mechanisms() == {"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"}
            said = client.scram(user, "third password", "SCRAM-SHA-256", None)
            assert said.startswith(b"a OK")


def test_sha_1_by_setting(tmp_path: Path) -> None:
    with Server(tmp_path / "server") as server:
        server.replace("[auth]\n", f'{EVERYWHERE}mechanisms = ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"]\n')
        server.hang_up()
        with SaslClient(server) as client:
            assert client.mechanisms() == {"PLAIN"}, "nobody has such keys yet"
        for user in server.accounts:
            server.run_cli("user", "password", "--config", str(server.config), user, text="new password\n")
        server.hang_up()
        user, _old = server.user_of("example.org")
        for mechanism in ("SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"):
            with SaslClient(server) as client:
                assert client.mechanisms() == {"SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"}
                assert client.scram(user, "new password", mechanism, client.binding()).startswith(b"a OK")
