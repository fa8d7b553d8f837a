"""Certificates of clients on live ports, and what the log says of them."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.client import Client
from tests.live.conftest import no_bug
from tests.server import Server
from tests.tls.client_authority import DAY, ClientAuthority


@pytest.fixture(scope="module")
def clients() -> ClientAuthority:
    return ClientAuthority()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, clients: ClientAuthority) -> Iterator[Server]:
    """example.org asks, example.test demands."""
    directory = tmp_path_factory.mktemp("clients")
    server = Server(directory)
    text = server.config.read_text()
    for domain, how in (("example.test", "required"), ("example.org", "asked")):
        line = f'name = "{domain}"\n'
        assert text.count(line) == 1
        text = text.replace(line, f'{line}client_certificates = "{how}"\nclient_ca = "clients.pem"\n')
    server.config.write_text(text)
    (directory / "clients.pem").write_bytes(clients.pem)
    with server:
        yield server
    no_bug(server.log)


def connect(
    server: Server,
    protocol: str,
    name: str | None,
    shown: tuple[bytes, bytes] | None,
    directory: Path,
    port: int | None = None,
) -> Client:
    client = Client(server, protocol, name=name, tls=False, port=port)
    if shown is not None:
        (directory / "client.pem").write_bytes(b"".join(shown))
        client.context.load_cert_chain(directory / "client.pem")
    if protocol != client.family:
        client.start_tls()
    else:
        client.greeting()
        client.upgrade()
    return client


@pytest.mark.parametrize("protocol", ["imaps", "imap", "submission"])
def test_who_shows_a_good_one_is_told_in_the_log(
    server: Server, clients: ClientAuthority, tmp_path: Path, protocol: str
) -> None:
    before = len(server.log)
    with connect(server, protocol, "mail.example.test", clients.issue(), tmp_path):
        server.wait_for(
            rf"client-certificate session=\S+ protocol={protocol} .*subject=\"?CN=Anna\"? names=anna@example.test ",
            since=before,
            seconds=15,
        )


@pytest.mark.parametrize("protocol", ["pop3s", "imap"])
def test_who_shows_none_ends_with_an_alert(server: Server, tmp_path: Path, protocol: str) -> None:
    before = len(server.log)
    with (
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
        connect(server, protocol, "mail.example.test", None, tmp_path) as client,
    ):
        client.socket.recv(1)
    server.wait_for(
        r"tls-failed session=\S+ .*reason=\"a certificate is required and the client has shown none", since=before
    )


def test_an_expired_one_ends_with_an_alert(server: Server, clients: ClientAuthority, tmp_path: Path) -> None:
    before = len(server.log)
    shown = clients.issue(begin=-3 * DAY, end=-DAY)
    with (
        pytest.raises(ssl.SSLError, match="CERTIFICATE_EXPIRED"),
        connect(server, "imaps", "mail.example.test", shown, tmp_path) as client,
    ):
        client.socket.recv(1)
    server.wait_for(
        r"tls-failed session=\S+ .*reason=\"it has expired: give the user a new one", since=before, seconds=15
    )


def test_where_it_is_only_asked_for_an_expired_one_is_none(
    server: Server, clients: ClientAuthority, tmp_path: Path
) -> None:
    before = len(server.log)
    shown = clients.issue(begin=-3 * DAY, end=-DAY)
    with connect(server, "imaps", "mail.example.org", shown, tmp_path) as client:
        client.greeting()
        server.wait_for(r"client-certificate-refused session=\S+ .*reason=\"it has expired", since=before, seconds=15)
        assert client.log_in(*server.user_of("example.org"))


def test_no_other_name_is_a_way_around_what_is_required(
    server: Server, clients: ClientAuthority, tmp_path: Path
) -> None:
    user, password = server.user_of("example.test")
    for protocol in ("imaps", "pop3s", "submissions"):
        before = len(server.log)
        with connect(server, protocol, "mail.example.org", None, tmp_path) as client:
            client.greeting()
            assert re.match(rb"a NO \[AUTH|-ERR \[AUTH\]|535", client.try_login(user, password)), protocol
        server.wait_for(rf"login-failed session=.*the domain of {user} requires a client certificate", since=before)
    # A certificate that its own domain would have taken is as good here.
    with connect(server, "imaps", "mail.example.org", clients.issue(mail=[user]), tmp_path) as client:
        client.greeting()
        client.log_in(user, password)


def test_a_password_with_the_certificate_of_another_user_is_refused(
    server: Server, clients: ClientAuthority, tmp_path: Path
) -> None:
    user, password = server.user_of("example.test")
    other = next(name for name in server.accounts if name.endswith("@example.test") and name != user)
    for protocol, shown in (("imaps", other), ("pop3s", other), ("submissions", other), ("imaps", None)):
        before = len(server.log)
        certificate = clients.issue(mail=[shown] if shown else [])
        with connect(server, protocol, "mail.example.test", certificate, tmp_path) as client:
            client.greeting()
            assert re.match(rb"a NO \[AUTH|-ERR \[AUTH\]|535", client.try_login(user, password)), protocol
        label = rf"the certificate of {shown or 'no user'} .subject CN=Anna, SHA-256 [0-9a-f]{{64}}"
        server.wait_for(rf"login-failed session=.*with the user's own name: the client presented {label}", since=before)
