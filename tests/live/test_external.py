"""EXTERNAL on live ports: who a client's certificate lets in, in each protocol."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import no_bug
from tests.live.test_client_certificates import connect
from tests.server import Server
from tests.tls.client_authority import ClientAuthority

ASK = {"imap": b"a AUTHENTICATE EXTERNAL ", "pop3": b"AUTH EXTERNAL ", "submission": b"AUTH EXTERNAL "}
DONE = {"imap": b"a OK", "pop3": b"+OK", "submission": b"235"}
FAILED = {"imap": b"a NO [AUTHENTICATIONFAILED]", "pop3": b"-ERR [AUTH]", "submission": b"535"}


@pytest.fixture(scope="module")
def clients() -> ClientAuthority:
    return ClientAuthority("Clients of example.test")


@pytest.fixture(scope="module")
def others() -> ClientAuthority:
    return ClientAuthority("Clients of example.org")


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, clients: ClientAuthority, others: ClientAuthority
) -> Iterator[Server]:
    """Both domains ask; each has an authority of its own. A listener has example.org as its default."""
    directory = tmp_path_factory.mktemp("external")
    own = '\n[[listener]]\nprotocol = "imaps"\nport = {a}\naddresses = ["127.0.0.1"]\ndefault = "mail.example.org"\n'
    server = Server(directory, append=own)
    text = server.config.read_text()
    for domain, authority in (("example.test", clients), ("example.org", others)):
        line = f'name = "{domain}"\n'
        text = text.replace(line, f'{line}client_certificates = "asked"\nclient_ca = "{domain}.pem"\n')
        (directory / f"{domain}.pem").write_bytes(authority.pem)
    server.config.write_text(text)
    with server:
        yield server
    no_bug(server.log)


def external(
    server: Server,
    protocol: str,
    name: str | None,
    shown: tuple[bytes, bytes] | None,
    directory: Path,
    acts: bytes = b"",
    port: int | None = None,
) -> bytes:
    with connect(server, protocol, name, shown, directory, port) as client:
        if protocol != client.family:
            client.greeting()
        if client.family == "submission":
            client.hello()
        client.send(ASK[client.family] + (base64.b64encode(acts) or b"=") + b"\r\n")
        return client.line()


@pytest.mark.parametrize("protocol", ["imaps", "imap", "pop3s", "pop3", "submissions", "submission"])
def test_a_certificate_lets_its_user_in(
    server: Server, clients: ClientAuthority, tmp_path: Path, protocol: str
) -> None:
    before = len(server.log)
    family = protocol.removesuffix("s") if protocol != "imap" else protocol
    assert external(server, protocol, "mail.example.test", clients.issue(), tmp_path).startswith(DONE[family])
    server.wait_for(r"login session=.* user=anna@example.test method=EXTERNAL\n", since=before)


def test_whom_it_does_not_let_in(
    server: Server, clients: ClientAuthority, others: ClientAuthority, tmp_path: Path
) -> None:
    before = len(server.log)
    said = external(server, "imaps", "mail.example.test", clients.issue(mail=["nobody@example.test"]), tmp_path)
    assert said.startswith(FAILED["imap"])
    server.wait_for(r"login-failed session=.*names nobody@example.test, which is not a user here", since=before)
    # The authority of example.org signs a name of example.test.
    said = external(server, "imaps", "mail.example.org", others.issue(mail=["anna@example.test"]), tmp_path)
    assert said.startswith(FAILED["imap"])
    server.wait_for(r"login-failed session=.*of a domain with another client_ca", since=before)
    said = external(server, "imaps", "mail.example.test", others.issue(), tmp_path)
    assert said.startswith(b"a NO [CANNOT]"), "not verified, and so not offered"
    assert external(server, "imaps", "mail.example.test", None, tmp_path).startswith(b"a NO [CANNOT]")
    said = external(server, "imaps", "mail.example.test", clients.issue(), tmp_path, b"ben@example.test")
    assert said.startswith(b"a NO [AUTHORIZATIONFAILED]")


def test_without_sni_it_speaks_for_the_listener_s_domain(
    server: Server, clients: ClientAuthority, others: ClientAuthority, tmp_path: Path
) -> None:
    before = len(server.log)
    user, _password = server.user_of("example.org")
    own, _b, _c = server.spare_ports
    shown = others.issue(mail=[user])
    assert external(server, "imaps", None, shown, tmp_path, port=own).startswith(DONE["imap"])
    server.wait_for(rf"login session=.* user={user} method=EXTERNAL\n", since=before)
    # It is verified there by that domain's authority alone.
    assert external(server, "imaps", None, clients.issue(), tmp_path, port=own).startswith(b"a NO [CANNOT]")
    said = external(server, "imaps", None, others.issue(mail=["anna@example.test"]), tmp_path, port=own)
    assert said.startswith(FAILED["imap"])
    server.wait_for(r"login-failed session=.*valid for mail.example.org, but anna@example.test is of", since=before)
    # Elsewhere such a client is one of the default of all.
    assert external(server, "imaps", None, shown, tmp_path).startswith(b"a NO [CANNOT]")


def test_a_disabled_user_stays_out(server: Server, clients: ClientAuthority, tmp_path: Path) -> None:
    user = next(name for name in server.accounts if name.endswith("@example.test") and not name.startswith("anna"))
    before = len(server.log)
    shown = clients.issue(mail=[user])
    assert external(server, "imaps", "mail.example.test", shown, tmp_path).startswith(DONE["imap"])
    server.run_cli("user", "disable", "--config", str(server.config), user)
    server.hang_up()
    assert external(server, "imaps", "mail.example.test", shown, tmp_path).startswith(FAILED["imap"])
    server.wait_for(rf"login-failed session=.*user {user} is disabled", since=before)
