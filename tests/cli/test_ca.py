"""`mailserver ca`, `cert create` and `cert request`, and what clients and servers make of it."""

from __future__ import annotations

import errno
import json
import plistlib
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from OpenSSL import SSL

from mailserver.cli import ca as ca_commands
from mailserver.cli import main
from mailserver.cli.control import Answer
from mailserver.tls.ca import private_ca
from mailserver.tls.context.client_certificates import user_of
from mailserver.tls.serving import validation
from mailserver.tls.serving.policy import TlsPolicy
from tests.server import make_demonstration
from tests.tls.site import Client, Site, quiet

HOST = b"mail.example.test"


class Place:
    """A configuration, and an authority below its state directory."""

    def __init__(self, directory: Path) -> None:
        self.site = Site(directory).add("example.test", [HOST.decode()])
        self.file = self.site.write()
        self.ca = directory / "state" / "ca"
        self.out = directory / "out"

    def run(self, *words: str, text: str | None = None) -> Result:
        done = CliRunner().invoke(main, [*words, "--config", str(self.file)], input=text)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def ok(self, *words: str, text: str | None = None) -> str:
        done = self.run(*words, text=text)
        assert done.exit_code == 0, done.output
        return done.output

    def refused(self, *words: str, text: str | None = None) -> str:
        done = self.run(*words, text=text)
        assert done.exit_code != 0, done.output
        return done.output

    def create(self, *words: str, text: str | None = None) -> str:
        return self.ok("cert", "create", "--out", str(self.out), *words, text=text)

    def pair(self, name: str) -> tuple[bytes, bytes]:
        return (self.out / f"{name}.pem").read_bytes(), (self.out / f"{name}.key").read_bytes()

    def issued(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.ok("ca", "list", "--json"))
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.ok("ca", "init")
    return made


def test_a_servers_pair_is_fit_to_be_served(place: Place) -> None:
    place.create("mail.example.test", "*.example.test")
    certificate, key = place.pair("mail.example.test")
    assert (place.out / "mail.example.test.key").stat().st_mode & 0o777 == 0o600
    place.site.put("example.test", certificate, key)
    assert validation.check(place.site.config()) == []
    seen = Client().connect(TlsPolicy(place.site.config(), quiet), HOST)
    assert seen.names == ("mail.example.test", "*.example.test")


def test_rsa_and_days(place: Place) -> None:
    place.create("mail.example.test", "--key-type", "rsa2048", "--days", "825")
    made = x509.load_pem_x509_certificate(place.pair("mail.example.test")[0])
    assert isinstance(made.public_key(), rsa.RSAPublicKey)
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days == 825
    assert "825" in place.refused("cert", "create", "mail.example.test", "--days", "826")


def test_what_is_there_stays_unless_it_is_said(place: Place) -> None:
    place.create("mail.example.test")
    before = place.pair("mail.example.test")
    said = place.refused("cert", "create", "mail.example.test", "--out", str(place.out))
    assert "exists already" in said
    assert place.pair("mail.example.test") == before
    assert len(place.issued()) == 1, "nothing is signed for nothing"
    place.create("mail.example.test", "--replace")
    assert place.pair("mail.example.test") != before


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "*", "a b", "mail.example.test/../x"])
def test_names_that_are_refused(place: Place, name: str) -> None:
    assert "Error: " in place.refused("cert", "create", name, "--out", str(place.out))
    assert not place.out.exists()
    assert place.issued() == []


def test_activate_goes_the_way_of_cert_add(place: Place) -> None:
    place.site.managed.add("example.test")
    place.site.write()
    said = place.ok("cert", "create", "mail.example.test", "--activate")
    assert "mail.example.test: taken up" in said
    assert not place.out.exists(), "the key is in the state directory alone"
    [row] = json.loads(place.run("cert", "list", "--json").stdout)
    assert row["origin"] == "added"
    assert row["issuer"] == "CN=Authority of mail.example.test"
    [entry, *_] = json.loads(place.run("cert", "history", "--json").stdout)
    assert entry["reason"] == "made by CN=Authority of mail.example.test"


def test_activate_tells_why_not(place: Place) -> None:
    """The domain has files of its own; other.example.net is no host."""
    assert "has files" in place.refused("cert", "create", "mail.example.test", "--activate")
    assert "no host" in place.refused("cert", "create", "other.example.net", "--activate")
    assert place.issued() == [], "one that nobody has"


@pytest.mark.parametrize(("form", "words"), [("old", ()), ("new", ("--form", "new"))])
def test_a_user_gets_one_file(place: Place, form: str, words: Sequence[str]) -> None:
    place.create("anna@example.test", *words, text="secret words\n")
    file = place.out / "anna@example.test.p12"
    assert file.stat().st_mode & 0o777 == 0o600
    packed = pkcs12.load_pkcs12(file.read_bytes(), b"secret words")
    assert packed.cert is not None
    assert user_of(packed.cert.certificate, "rfc822Name") == "anna@example.test"
    assert user_of(packed.cert.certificate, "commonName") == "anna@example.test"
    assert [each.certificate.subject.rfc4514_string() for each in packed.additional_certs] == [
        "CN=Authority of mail.example.test"
    ]
    # The object identifiers of pbeWithSHAAnd3-KeyTripleDES-CBC and of PBES2.
    old, new = bytes.fromhex("060a2a864886f70d010c0103"), bytes.fromhex("06092a864886f70d01050d")
    assert (old in file.read_bytes(), new in file.read_bytes()) == ((True, False) if form == "old" else (False, True))


def test_the_password_of_a_file(place: Place, tmp_path: Path) -> None:
    (tmp_path / "word").write_bytes(b"from a file\nno more\n")
    place.create("anna@example.test", "--password-file", str(tmp_path / "word"))
    assert pkcs12.load_pkcs12((place.out / "anna@example.test.p12").read_bytes(), b"from a file").key is not None
    assert "1 to" in place.refused("cert", "create", "ben@example.test", "--out", str(place.out), text="\n")
    assert len(place.issued()) == 1


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])
def test_a_user_comes_in_until_it_is_revoked(place: Place, version: int) -> None:
    """The list that the authority keeps is the domain's client_crl as it stands."""
    for user in ("anna", "ben"):
        place.create(f"{user}@example.test", "--form", "pem")
    place.site.of_domain["example.test"] = [
        'client_certificates = "required"',
        'client_ca = "state/ca/ca.pem"',
        'client_crl = "state/ca/ca.crl"',
    ]
    policy = TlsPolicy(place.site.config(), quiet)
    anna, ben = (Client(version, certificate=place.pair(f"{user}@example.test")) for user in ("anna", "ben"))
    seen = anna.connect(policy, HOST)
    assert seen.client is not None
    assert user_of(seen.client, "rfc822Name") == "anna@example.test"
    said = place.ok("ca", "revoke", "anna@example.test", "--reason", "keyCompromise", "--reload")
    assert "no server is running" in said
    policy.reload(place.site.config())
    faults: list[str] = []
    with pytest.raises(SSL.Error, match="certificate revoked"):
        anna.connect(policy, HOST, seen.session, faults=faults)
    assert "revoked by client_crl" in faults[0]
    assert ben.connect(policy, HOST).client is not None


class TestRevoke:
    def test_by_serial_number_and_by_name(self, place: Place) -> None:
        for _ in range(2):
            place.create("mail.example.test", "--replace")
        first, second = (str(row["serial"]) for row in place.issued())
        said = place.refused("ca", "revoke", "mail.example.test")
        assert first in said
        assert second in said
        colons = ":".join(first.zfill(40).upper()[at : at + 2] for at in range(0, 40, 2))
        place.ok("ca", "revoke", colons)
        assert {row["serial"]: row["state"] for row in place.issued()} == {first: "revoked", second: "valid"}
        assert "already" in place.refused("ca", "revoke", first)
        place.ok("ca", "revoke", "mail.example.test")
        assert {row["state"] for row in place.issued()} == {"revoked"}

    def test_all(self, place: Place) -> None:
        for _ in range(3):
            place.create("mail.example.test", "--replace")
        place.ok("ca", "revoke", "mail.example.test", "--all", "--reason", "superseded")
        assert [row["reason"] for row in place.issued()] == ["superseded"] * 3

    @pytest.mark.parametrize("files", [False, True])
    def test_the_server_that_still_serves_it_is_told_of(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, *, files: bool
    ) -> None:
        place.create("mail.example.test")
        served = place.pair("mail.example.test")[0].decode()
        row = {"host": "mail.example.test", "certificate": served, "second_certificate": None}
        monkeypatch.setattr(ca_commands, "ask", lambda _directory, _request: Answer(True, (), [row]))
        if not files:
            place.file.write_text(re.sub(r"(?m)^(certificate|key) = .*\n", "", place.file.read_text()))
        said = place.ok("ca", "revoke", "mail.example.test")
        assert "mail.example.test is still served with it: " in said
        assert ("cert create mail.example.test --activate" in said) is not files
        assert ("replace the files" in said) is files

    def test_a_server_that_serves_another_is_not(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        place.create("mail.example.test")
        first = str(place.issued()[0]["serial"])
        place.create("mail.example.test", "--replace")
        served = place.pair("mail.example.test")[0].decode()
        row = {"host": "mail.example.test", "certificate": served, "second_certificate": None}
        asked = []

        def ask(_config: object, request: str) -> Answer:
            asked.append(request)
            return Answer(True, (), [row])

        monkeypatch.setattr(ca_commands, "ask", ask)
        assert "still served" not in place.ok("ca", "revoke", first)
        second = next(str(each["serial"]) for each in place.issued() if str(each["serial"]) != first)
        assert "still served" in place.ok("ca", "revoke", second)
        assert asked == ["cert-list"] * 2

    def test_what_was_never_issued(self, place: Place) -> None:
        assert "no certificate has that name" in place.refused("ca", "revoke", "mail.example.org")

    def test_a_new_list(self, place: Place) -> None:
        assert "0 certificates revoked" in place.ok("ca", "crl", "--days", "30")
        found = x509.load_pem_x509_crl((place.ca / "ca.crl").read_bytes())
        assert found.next_update_utc is not None
        assert (found.next_update_utc - found.last_update_utc).days == 30


class TestRequests:
    def test_from_one_to_the_other(self, place: Place) -> None:
        """The key stays where the request was made."""
        place_of_key = str(place.out)
        done = CliRunner().invoke(main, ["cert", "request", "mail.example.test", "--out", place_of_key])
        assert done.exit_code == 0, done.output
        csr = place.out / "mail.example.test.csr"
        place.ok("ca", "sign", str(csr), "--out", str(place.out / "mail.example.test.pem"))
        place.site.put("example.test", *place.pair("mail.example.test"))
        assert validation.check(place.site.config()) == []
        assert [row["names"] for row in place.issued()] == [["mail.example.test"]]

    def test_to_standard_output(self, place: Place) -> None:
        CliRunner().invoke(main, ["cert", "request", "mail.example.test", "--out", str(place.out)])
        done = place.run("ca", "sign", str(place.out / "mail.example.test.csr"))
        assert x509.load_pem_x509_certificate(done.stdout.encode()).issuer.rfc4514_string().startswith("CN=Authority")

    def test_a_user_only_where_it_is_said(self, place: Place, tmp_path: Path) -> None:
        from tests.tls.test_requests import request

        file = tmp_path / "anna.csr"
        file.write_bytes(request(x509.RFC822Name("anna@example.test")))
        assert "--client" in place.refused("ca", "sign", str(file))
        assert place.issued() == []
        place.ok("ca", "sign", str(file), "--client")
        assert [row["purpose"] for row in place.issued()] == ["client"]

    def test_no_request(self, place: Place, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"hello")
        assert "not a signing request" in place.refused("ca", "sign", str(tmp_path / "x"))
        (tmp_path / "x").write_bytes(b"-----BEGIN " * 200_000)
        assert "at most" in place.refused("ca", "sign", str(tmp_path / "x"))


class TestPassphrase:
    @pytest.fixture
    def word(self, tmp_path: Path) -> str:
        (tmp_path / "word").write_bytes(b"many long words\n")
        return str(tmp_path / "word")

    @pytest.fixture
    def locked(self, tmp_path: Path, word: str) -> Place:
        made = Place(tmp_path)
        made.ok("ca", "init", "--passphrase-file", word)
        return made

    def test_it_is_needed(self, locked: Place, word: str) -> None:
        assert b"ENCRYPTED" in (locked.ca / "ca.key").read_bytes()
        said = locked.refused("cert", "create", "mail.example.test", "--out", str(locked.out), text="wrong\n")
        assert "cannot be decrypted with that passphrase" in said
        assert locked.issued() == []
        locked.create("mail.example.test", text="many long words\n")
        locked.ok("ca", "revoke", "mail.example.test", "--passphrase-file", word)
        assert "many long" not in locked.ok("ca", "show") + said

    def test_from_standard_input(self, tmp_path: Path) -> None:
        made = Place(tmp_path)
        made.ok("ca", "init", "--passphrase", text="other words\n")
        with pytest.raises(TypeError):
            serialization.load_pem_private_key((made.ca / "ca.key").read_bytes(), None)
        assert serialization.load_pem_private_key((made.ca / "ca.key").read_bytes(), b"other words")


def test_elsewhere_without_a_configuration(tmp_path: Path) -> None:
    def run(*words: str) -> Result:
        return CliRunner().invoke(main, [*words, "--config", str(tmp_path / "none.toml")])

    where = ("--dir", str(tmp_path / "ca"))
    assert "--name" in run("ca", "init", *where).output
    made = run("ca", "init", *where, "--name", "Ours", "--only", "Example.org")
    assert made.exit_code == 0, made.output
    assert "example.org" in made.output
    assert run("cert", "create", "mail.example.org", *where, "--out", str(tmp_path / "out")).exit_code == 0
    said = run("cert", "create", "mail.example.com", *where, "--out", str(tmp_path / "out"))
    assert "may sign for example.org alone" in said.output
    guide = run("ca", "guide", "ios", *where)
    assert guide.exit_code == 0, guide.output
    assert "Certificate Trust Settings: switch on Ours" in guide.output
    assert run("ca", "export", "pem", *where).output.encode() == (tmp_path / "ca" / "ca.pem").read_bytes()
    assert "cannot be used" in run("ca", "init").output


def test_the_guide_knows_the_page_and_the_hosts(tmp_path: Path) -> None:
    make_demonstration(tmp_path, 21000, in_directory=True)
    config = ["--config", str(tmp_path / "mailserver.toml")]
    done = CliRunner().invoke(main, ["ca", "guide", *config], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "https://mail.example.test:21443/ca.mobileconfig" in done.output
    assert "switch on Demonstration of a mail server" in done.output
    shown = CliRunner().invoke(main, ["ca", "show", "--pem", *config])
    told = json.loads(CliRunner().invoke(main, ["ca", "show", "--json", *config]).stdout)
    assert (
        told["sha256"].replace(":", "").lower()
        == x509.load_pem_x509_certificate(shown.stdout.encode()).fingerprint(hashes.SHA256()).hex()
    )
    assert shown.output.encode() == (tmp_path / "ca.pem").read_bytes()
    listed = json.loads(CliRunner().invoke(main, ["ca", "list", "--json", *config]).stdout)
    assert ["mail.example.test", "localhost", "127.0.0.1", "::1"] in [row["names"] for row in listed]
    # A demonstration from before the authority was in the state directory keeps it.
    key = (tmp_path / "state/ca/ca.key").read_bytes()
    (tmp_path / "ca.key").write_bytes(key)
    for path in (tmp_path / "state/ca").iterdir():
        path.unlink()
    (tmp_path / "state/ca").rmdir()
    CliRunner().invoke(main, ["demo", "--dir", str(tmp_path), "--port-base", "21000"], catch_exceptions=False)
    assert (tmp_path / "state/ca/ca.key").read_bytes() == key
    assert not (tmp_path / "ca.key").exists()
    assert CliRunner().invoke(main, ["ca", "show", "--pem", *config]).output == shown.output


def test_where_the_list_is_goes_into_what_is_signed(place: Place, tmp_path: Path) -> None:
    url = "http://mail.example.test/ca.crl"

    def points(name: str) -> list[str]:
        certificate = x509.load_pem_x509_certificate(place.pair(name)[0])
        try:
            found = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
        except x509.ExtensionNotFound:
            return []
        return [name.value for point in found.value for name in point.full_name or ()]

    place.create("none.example.test")
    assert points("none.example.test") == []
    place.site.tls = ['private_ca = "state/ca/ca.pem"', f'private_ca_crl_url = "{url}"']
    place.site.write()
    place.create("server.example.test")
    place.create("anna@example.test", "--form", "pem")
    assert points("server.example.test") == points("anna@example.test") == [url]
    place.create("other.example.test", "--crl-url", "http://192.0.2.1:8080/list")
    assert points("other.example.test") == ["http://192.0.2.1:8080/list"]
    for bad in ("https://a.example/", "http://", "http://a b/", "ldap://a/", "http://a/\n"):
        assert "must " in place.refused("cert", "create", "x.example.test", "--crl-url", bad)
    CliRunner().invoke(main, ["cert", "request", "asked.example.test", "--out", str(place.out)])
    place.ok(
        "ca", "sign", str(place.out / "asked.example.test.csr"), "--out", str(place.out / "asked.example.test.pem")
    )
    assert points("asked.example.test") == [url]
    # Of another authority the configuration says nothing.
    place.ok("ca", "init", "--dir", str(tmp_path / "second"), "--name", "Second")
    place.create("second.example.test", "--dir", str(tmp_path / "second"))
    assert points("second.example.test") == []


def test_an_exported_profile_is_signed_as_the_page_is(place: Place, tmp_path: Path) -> None:
    words = ["openssl", "cms", "-verify", "-inform", "DER", "-in", "p", "-CAfile", "state/ca/ca.pem", "-purpose", "any"]
    host = HOST.decode()
    place.create(host)
    for old, new in zip(
        place.pair(host), (place.site.certificate("example.test"), place.site.key("example.test")), strict=True
    ):
        new.write_bytes(old)
    place.ok("ca", "export", "mobileconfig", "--out", str(tmp_path / "p"))
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    profile = plistlib.loads(done.stdout)
    [root] = profile["PayloadContent"]
    assert x509.load_der_x509_certificate(root["PayloadContent"]) == x509.load_pem_x509_certificate(
        (place.ca / "ca.pem").read_bytes()
    )
    assert host in profile["PayloadDescription"]
    place.ok("ca", "export", "mobileconfig", "--unsigned", "--out", str(tmp_path / "p"))
    assert plistlib.loads((tmp_path / "p").read_bytes()) == profile
    # What is self-signed proves nothing to anybody.
    place.site.key("example.test").unlink()
    (tmp_path / "state" / "certificates.sqlite").unlink()
    assert "no certificate of mail.example.test to sign with" in place.refused("ca", "export", "mobileconfig")


def test_the_guide_for_users_certificates(place: Place) -> None:
    own = "A certificate of your own"
    assert own not in place.ok("ca", "guide")
    assert own in place.ok("ca", "guide", "--users")
    assert "Authentication method choose TLS Certificate" in place.ok("ca", "guide", "thunderbird", "--users")
    place.site.of_domain["example.test"] = ['client_certificates = "asked"', 'client_ca = "state/ca/ca.pem"']
    place.site.write()
    assert own in place.ok("ca", "guide")


def test_a_revocation_that_was_not_listed_is_made_good(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.create("anna@example.test", "--form", "pem")

    def fail(*_given: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "ca.crl")

    with monkeypatch.context() as patched:
        patched.setattr(private_ca, "replace_file", fail)
        assert "ca.crl: No space left on device" in place.refused("ca", "revoke", "anna@example.test")
    assert "and is now on the list" in place.ok("ca", "revoke", "anna@example.test")
    assert len(x509.load_pem_x509_crl((place.ca / "ca.crl").read_bytes())) == 1
    assert "is revoked already" in place.refused("ca", "revoke", "anna@example.test")


def test_a_key_that_everybody_reads_is_told(place: Place) -> None:
    assert "warning" not in place.ok("ca", "crl")
    (place.ca / "ca.key").chmod(0o644)
    assert "ca.key can be read or changed by every user" in place.ok("ca", "crl")
