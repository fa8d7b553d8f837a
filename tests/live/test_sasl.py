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

from tests.live.conftest import no_bug
from tests.server import Server

NO_EXTENDED_MASTER_SECRET = 1
"""OpenSSL's SSL_OP_NO_EXTENDED_MASTER_SECRET."""


@pytest.fixture(autouse=True)
def tls_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """scramp knows the type and refuses it, as Python's ssl cannot tell the octets."""
    monkeypatch.setattr(CbName, "UNSUPPORTED_TYPES", frozenset())
    monkeypatch.setattr(CbName, "SUPPORTED_TYPES", frozenset({"tls-exporter"}))


PLUS = '[auth]\nmechanisms = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]\n'


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that offers -PLUS."""
    server = Server(tmp_path_factory.mktemp("sasl"), edit={"[auth]\n": PLUS})
    with server:
        yield server
    no_bug(server.log)


class ImapClient:
    """IMAP over a TLS connection that can tell its binding."""

    def __init__(self, server: Server, *, version: int = SSL.TLS1_3_VERSION, options: int = 0) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.load_verify_locations(str(server.ca))
        context.set_verify(SSL.VERIFY_PEER)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.set_options(options)
        self.socket = socket.create_connection(("127.0.0.1", server.port("imaps")), 30)
        self.socket.setblocking(True)
        self.tls = SSL.Connection(context, self.socket)
        self.tls.set_tlsext_host_name(b"mail.example.test")
        self.tls.set_connect_state()
        self.tls.do_handshake()
        self.line()

    def line(self) -> bytes:
        found = b""
        while not found.endswith(b"\r\n"):
            found += self.tls.recv(4096)
        return found

    def ask(self, line: bytes) -> bytes:
        self.tls.sendall(line + b"\r\n")
        return self.line()

    def mechanisms(self) -> set[str]:
        self.tls.sendall(b"c CAPABILITY\r\n")
        answer = b""
        while b"c OK" not in answer:
            answer += self.line()
        return {word.removeprefix("AUTH=") for word in answer.decode().split() if word.startswith("AUTH=")}

    def binding(self) -> bytes:
        return self.tls.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")

    def scram(self, user: str, password: str, mechanism: str, binding: bytes | None) -> bytes:
        """The tagged answer; before it the server has proved itself."""
        bound = ("tls-exporter", binding) if mechanism.endswith("-PLUS") else None
        client: Any = ScramClient([mechanism], user, password, channel_binding=bound)
        first = base64.b64encode(client.get_client_first().encode())
        said = self.ask(b"a AUTHENTICATE " + mechanism.encode() + b" " + first)
        client.set_server_first(base64.b64decode(said.removeprefix(b"+ ")).decode())
        said = self.ask(base64.b64encode(client.get_client_final().encode()))
        if not said.startswith(b"+ "):
            return said
        client.set_server_final(base64.b64decode(said.removeprefix(b"+ ")).decode())
        return self.ask(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["TLS 1.2", "TLS 1.3"])
def test_scram_bound_to_the_connection(shared: Server, version: int) -> None:
    user, password = shared.user_of("example.test")
    before = len(shared.log)
    with ImapClient(shared, version=version) as client:
        assert client.mechanisms() == {"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"}
        assert client.scram(user, password, "SCRAM-SHA-256-PLUS", client.binding()).startswith(b"a OK")
    shared.wait_for(rf"login session=.* user={user} method=SCRAM-SHA-256-PLUS", since=before)


def test_scram_without_binding(shared: Server) -> None:
    user, password = shared.user_of("example.test")
    with ImapClient(shared) as client:
        assert client.scram(user, password, "SCRAM-SHA-256", None).startswith(b"a OK")


def test_a_connection_without_extended_master_secret_has_no_binding(shared: Server) -> None:
    """RFC 9266: two such connections may have the same octets."""
    user, password = shared.user_of("example.test")
    with ImapClient(shared, version=SSL.TLS1_2_VERSION, options=NO_EXTENDED_MASTER_SECRET) as client:
        assert client.mechanisms() == {"SCRAM-SHA-256", "PLAIN", "LOGIN"}
        assert client.ask(b"b AUTHENTICATE SCRAM-SHA-256-PLUS").startswith(b"b NO [CANNOT]")
        assert client.scram(user, password, "SCRAM-SHA-256", None).startswith(b"a OK")


def test_somebody_in_between(shared: Server) -> None:
    """The octets of another connection, as a client sees them through a proxy that ends TLS."""
    user, password = shared.user_of("example.test")
    before = len(shared.log)
    with ImapClient(shared) as client, ImapClient(shared) as other:
        said = client.scram(user, password, "SCRAM-SHA-256-PLUS", other.binding())
        assert said.startswith(b"a NO [AUTHENTICATIONFAILED]")
    shared.wait_for(r"login-failed session=.*in between.*-PLUS", since=before)


def test_keys_decide_what_is_offered(tmp_path: Path) -> None:
    with Server(tmp_path / "server") as server:

        def offered() -> bool:
            with ImapClient(server) as client:
                return "SCRAM-SHA-256" in client.mechanisms()

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
        with ImapClient(server) as client:
            assert client.mechanisms() == {"SCRAM-SHA-256", "PLAIN", "LOGIN"}
            said = client.scram(user, "third password", "SCRAM-SHA-256", None)
            assert said.startswith(b"a OK")


def test_sha_1_by_setting(tmp_path: Path) -> None:
    with Server(tmp_path / "server") as server:
        server.replace("[auth]\n", '[auth]\nmechanisms = ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"]\n')
        server.hang_up()
        with ImapClient(server) as client:
            assert client.mechanisms() == {"PLAIN"}, "nobody has such keys yet"
        for user in server.accounts:
            server.run_cli("user", "password", "--config", str(server.config), user, text="new password\n")
        server.hang_up()
        user, _old = server.user_of("example.org")
        for mechanism in ("SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"):
            with ImapClient(server) as client:
                assert client.mechanisms() == {"SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"}
                assert client.scram(user, "new password", mechanism, client.binding()).startswith(b"a OK")
