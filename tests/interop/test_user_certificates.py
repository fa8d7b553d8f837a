"""Programs that log in with a certificate which `mailserver cert create` has packed for a user, and after it is revoked."""

from __future__ import annotations

import mailbox
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.interop.conftest import Interop
from tests.server import Server

HOST, USER, PASSWORD = "mail.example.test", "anna@example.test", "open sesame"


@frozen
class Packed:
    """What a user was given, and what the guide has made of it."""

    file: Path
    pem: Path


@pytest.fixture(scope="module")
def site(interop: Interop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interop]:
    """A server that asks for certificates of the demonstration's own authority."""
    server = Server(tmp_path_factory.mktemp("users"), follow=True)
    line, ca = 'name = "example.test"\n', server.dir / "state" / "ca"
    asks = f'client_certificates = "asked"\nclient_ca = "{ca}/ca.pem"\nclient_crl = "{ca}/ca.crl"\n'
    server.config.write_text(server.config.read_text().replace(line, line + asks))
    with server:
        yield Interop(server, interop.wrong_ca, interop.work)
    assert "bug session=" not in server.log, server.log[-6000:]


def pack(site: Interop, form: str, user: str = USER) -> Packed:
    """A new certificate, and the PEM that the guide's command makes of it."""
    out = site.server.dir / f"for-{user}-{form}"
    out.mkdir()
    (out / "password").write_text(PASSWORD + "\n")
    words = ("cert", "create", user, "--out", str(out), "--form", form, "--password-file", str(out / "password"))
    site.server.run_cli(*words, "--config", str(site.server.config))
    file, pem = out / f"{user}.p12", out / "own.pem"
    openssl = ["openssl", "pkcs12", "-in", str(file), "-nodes", "-passin", f"pass:{PASSWORD}", "-out", str(pem)]
    subprocess.run(openssl, check=True, capture_output=True, timeout=60)
    pem.chmod(0o600)
    return Packed(file, pem)


@pytest.fixture(scope="module", params=["old", "new"])
def packed(site: Interop, request: pytest.FixtureRequest) -> Packed:
    return pack(site, request.param)


def came_in(site: Interop, protocol: str, before: int, user: str = USER) -> None:
    site.server.wait_for(rf"login session=.* protocol={protocol} .*user={user} method=EXTERNAL\n", since=before)


def curl(site: Interop, packed: Packed, url: str, *words: str, data: str | None = None, check: bool = True) -> str:
    who = ("--cert-type", "P12", "--cert", f"{packed.file}:{PASSWORD}", "--login-options", "AUTH=EXTERNAL")
    trust = ("--cacert", str(site.server.ca), "--user", f"{USER}:")
    done = site.run("curl", "-sS", "--max-time", "60", *trust, *who, *words, url, data=data, check=check)
    return done.stdout if check else done.stderr


def test_what_openssl_and_python_read_in_it(packed: Packed) -> None:
    old = "old" in packed.file.parent.name
    for more in ([], ["-legacy"]):
        words = ["openssl", "pkcs12", "-in", str(packed.file), "-info", "-noout", "-passin", f"pass:{PASSWORD}", *more]
        told = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stderr
        assert ("pbeWithSHA1And3-KeyTripleDES-CBC" in told, "MAC: sha1" in told) == (old, old)
        assert ("AES-256-CBC" in told, "MAC: sha256" in told) == (not old, not old)
    found = pkcs12.load_pkcs12(packed.file.read_bytes(), PASSWORD.encode())
    assert found.cert is not None
    assert (found.cert.friendly_name, len(found.additional_certs)) == (USER.encode(), 1)
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(packed.pem)


@pytest.mark.parametrize("scheme", ["imaps", "pop3s", "smtps"])
def test_curl_with_the_file_as_it_is(site: Interop, packed: Packed, scheme: str) -> None:
    protocol = {"smtps": "submissions"}.get(scheme, scheme)
    before = len(site.server.log)
    url = f"{scheme}://{HOST}:{site.server.port(protocol)}/"
    if scheme == "smtps":
        message = f"From: {USER}\r\nSubject: with a certificate\r\n\r\nBody\r\n"
        curl(site, packed, url, "--mail-from", USER, "--mail-rcpt", USER, "-T", "-", data=message)
    else:
        assert curl(site, packed, url + ("INBOX;MAILINDEX=1" if scheme == "imaps" else ""))
    came_in(site, protocol, before)


def test_mbsync(site: Interop, packed: Packed, tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "rc").write_text(f"""IMAPAccount there
Host {HOST}
Port {site.server.port("imaps")}
User {USER}
TLSType IMAPS
AuthMechs EXTERNAL
SystemCertificates no
CertificateFile {site.server.ca}
ClientCertificate {packed.pem}
ClientKey {packed.pem}

IMAPStore far
Account there

MaildirStore near
Path {tmp_path}/mail/
Inbox {tmp_path}/mail/INBOX

Channel all
Far :far:
Near :near:
Create Near
SyncState *
""")
    before = len(site.server.log)
    site.run("mbsync", "-c", str(tmp_path / "rc"), "all", home=tmp_path)
    assert len(mailbox.Maildir(str(tmp_path / "mail" / "INBOX"), create=False)) > 1
    came_in(site, "imaps", before)


def test_offlineimap_shows_it_beside_a_password(site: Interop, packed: Packed, tmp_path: Path) -> None:
    """It knows no EXTERNAL."""
    (tmp_path / "rc").write_text(f"""[general]
accounts = one
ui = basic
metadata = {tmp_path}/state

[Account one]
localrepository = near
remoterepository = far

[Repository near]
type = Maildir
localfolders = {tmp_path}/mail

[Repository far]
type = IMAP
remotehost = {HOST}
remoteport = {site.server.port("imaps")}
remoteuser = {USER}
remotepass = {site.server.accounts[USER]}
ssl = yes
sslcacertfile = {site.server.ca}
sslclientcert = {packed.pem}
sslclientkey = {packed.pem}
folderfilter = lambda name: name == 'INBOX'
""")
    before = len(site.server.log)
    site.run("offlineimap", "-c", str(tmp_path / "rc"), "-o", home=tmp_path)
    shown = site.server.wait_for(rf"client-certificate session=(\S+) .* names={USER} ", since=before)
    site.server.wait_for(rf"login session={shown[1]} .*user={USER} method=", since=before)


def test_mutt(site: Interop, packed: Packed, tmp_path: Path) -> None:
    site.need("mutt")
    site.need("script")
    (tmp_path / "rc").write_text(f"""set ssl_ca_certificates_file={site.server.ca}
set certificate_file={tmp_path}/none
set ssl_client_cert={packed.pem}
set imap_authenticators="external"
set imap_user={USER}
set ssl_force_tls=yes
set folder={tmp_path}
set sleep_time=0
""")
    before = len(site.server.log)
    mutt = f"mutt -F {tmp_path}/rc -f imaps://{HOST}:{site.server.port('imaps')}/INBOX -e \"push '<quit>'\""
    site.run("timeout", "60", "script", "-qec", f"stty rows 24 cols 80; {mutt}", "/dev/null", home=tmp_path)
    came_in(site, "imaps", before)


def test_a_revoked_one_is_refused(site: Interop) -> None:
    packed = pack(site, "old", "ben@example.test")
    url = f"imaps://{HOST}:{site.server.port('imaps')}/"
    before = len(site.server.log)
    curl(site, packed, url, "--user", "ben@example.test:")
    came_in(site, "imaps", before, "ben@example.test")
    before = len(site.server.log)
    site.server.run_cli("ca", "revoke", "ben@example.test", "--reload", "--config", str(site.server.config))
    said = curl(site, packed, url, "--user", "ben@example.test:", check=False)
    assert "Login denied" in said, said
    site.server.wait_for(r"revoked by client_crl", since=before)
