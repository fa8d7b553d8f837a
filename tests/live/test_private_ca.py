"""An authority of one's own beside a server: a certificate served at once, users let in and shut out, the page."""

from __future__ import annotations

import datetime as dt
import http.client
import plistlib
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from mailserver.tls.ca import authority as making
from mailserver.tls.ca import private_ca
from tests.live.client import Client
from tests.live.conftest import no_bug
from tests.live.test_client_certificates import connect
from tests.server import Server

MANAGED = """
[[domain]]
name = "example.net"
hosts = ["mail.example.net"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """example.test demands certificates of the demonstration's authority; example.net names no files."""
    server = Server(tmp_path_factory.mktemp("authority"), append=MANAGED, workers=2)
    line = 'name = "example.test"\n'
    text = server.config.read_text()
    assert text.count(line) == 1
    demand = 'client_certificates = "required"\nclient_ca = "state/ca/ca.pem"\nclient_crl = "state/ca/ca.crl"\n'
    server.config.write_text(text.replace(line, line + demand))
    _grow_old(server)
    with server:
        yield server
    no_bug(server.log)


def _grow_old(server: Server) -> None:
    """Two thirds of the life of example.org's certificate are over, and of the list's."""
    one = private_ca.open_ca(server.dir / "state" / "ca")
    signer, key = one.unlock(None), making.make_key()
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=61)
    with pytest.MonkeyPatch.context() as patch:  # the demonstration's authority was made a moment ago
        patch.setattr(private_ca.PrivateCa, "require_clock", lambda *_arguments: None)
        made = one.sign(signer, key.public_key(), ["mail.example.org"], "server", days=90, now=before)
    (server.dir / "certs" / "mail.example.org.pem").write_bytes(making.certificate_pem(made))
    (server.dir / "certs" / "mail.example.org.key").write_bytes(making.key_pem(key))
    one.renew_list(signer, 90, before)


def run(server: Server, *words: str, text: str | None = None) -> str:
    return server.run_cli(*words, "--config", str(server.config), text=text).stdout


def test_what_is_due_is_renewed_as_the_server_starts(server: Server) -> None:
    server.wait_for(r"private CA: mail\.example\.org: renewed event=")
    server.wait_for(r"private CA: ca\.crl: renewed event=")
    for protocol in ("imaps", "pop3s", "submissions"):
        with Client(server, protocol, name="mail.example.org") as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            found = client.socket.getpeercert()
            assert found is not None
            left = ssl.cert_time_to_seconds(str(found["notAfter"])) - time.time()
            assert 89 * 86400 < left < 90 * 86400
    assert "the files have changed" in run(server, "cert", "history", "mail.example.org")


def test_a_certificate_is_served_at_once(server: Server) -> None:
    assert "mail.example.net: taken up" in run(server, "cert", "create", "mail.example.net", "--activate")
    with Client(server, "imaps", name="mail.example.net") as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        found = client.socket.getpeercert()
        assert found is not None
        # The client verifies against the authority.
        assert ("DNS", "mail.example.net") in found["subjectAltName"]


def test_a_user_is_let_in_until_the_list_is_taken_up(server: Server, tmp_path: Path) -> None:
    for user in ("anna", "ben"):
        run(server, "cert", "create", f"{user}@example.test", "--form", "pem", "--out", str(tmp_path))
    anna, ben = (
        tuple((tmp_path / f"{user}@example.test.{end}").read_bytes() for end in ("pem", "key"))
        for user in ("anna", "ben")
    )
    before = len(server.log)
    with connect(server, "imaps", "mail.example.test", anna, tmp_path) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.session is None or not client.socket.session.has_ticket, "no way past the list"
        server.wait_for(r"client-certificate .*names=anna@example.test ", since=before, seconds=15)
    assert "mail.example.test: " in run(server, "ca", "revoke", "anna@example.test", "--reload")
    before = len(server.log)
    with (
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REVOKED"),
        connect(server, "imaps", "mail.example.test", anna, tmp_path) as client,
    ):
        client.socket.recv(1)
    server.wait_for(r"tls-failed .*revoked by client_crl", since=before, seconds=15)
    with connect(server, "imaps", "mail.example.test", ben, tmp_path):
        pass
    connection = http.client.HTTPConnection("127.0.0.1", server.port("http"), timeout=30)
    connection.request("GET", "/ca.crl", headers={"Host": "mail.example.org"})
    serial = x509.load_pem_x509_certificate(anna[0]).serial_number
    listed = x509.load_der_x509_crl(connection.getresponse().read())
    connection.close()
    assert listed.get_revoked_certificate_by_serial_number(serial) is not None


def test_the_page_and_its_files(server: Server, tmp_path: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port("http"), timeout=30)

    def get(path: str) -> bytes:
        connection.request("GET", path, headers={"Host": "mail.example.org"})
        response = connection.getresponse()
        assert response.status == 200
        return response.read()

    authority = x509.load_pem_x509_certificate(server.ca.read_bytes())
    page = get("/ca").decode()
    shown = run(server, "ca", "show")
    digest = next(line.split()[1] for line in shown.splitlines() if line.startswith("SHA-256"))
    assert digest in page
    assert "mail.example.org" in page
    assert x509.load_pem_x509_certificate(get("/ca.crt")) == authority
    assert x509.load_der_x509_certificate(get("/ca.der")) == authority
    (tmp_path / "profile").write_bytes(get("/ca.mobileconfig"))
    words = ["openssl", "cms", "-verify", "-inform", "DER", "-in", "profile", "-CAfile", server.ca, "-purpose", "any"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert plistlib.loads(done.stdout)["PayloadContent"][0]["PayloadType"] == "com.apple.security.root"
    connection.close()


def test_a_bad_file_leaves_the_last_one(server: Server) -> None:
    text = server.config.read_text()
    good = str(server.dir / "state/ca/ca.pem")
    server.config.write_text(text.replace(f'private_ca = "{good}"', f'private_ca = "{server.config}"'))
    try:
        done = server.run_cli("reload", "--config", str(server.config), check=False)
        assert done.returncode == 1
        assert "[tls] private_ca: refused: is not a certificate in PEM" in done.stdout
        connection = http.client.HTTPConnection("127.0.0.1", server.port("http"), timeout=30)
        connection.request("GET", "/ca.der", headers={"Host": "mail.example.org"})
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.config.write_text(text)
        server.run_cli("reload", "--config", str(server.config))
