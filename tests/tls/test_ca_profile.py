"""What Apple's systems, Windows and Android ask of a private authority's certificates: each rule by its name."""

from __future__ import annotations

import datetime as dt
import functools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from mailserver.tls.ca import authority as making
from mailserver.tls.ca.authority import Authority
from mailserver.tls.ca.pkcs12 import make_pkcs12
from mailserver.types import Secret

HOST = "mail.example.org"
NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
KINDS = ("p256", "p384", "rsa2048", "rsa3072")


@functools.cache
def signer(kind: str = "p256", only: tuple[str, ...] = ()) -> Authority:
    return making.make_authority("Authority", making.make_key(kind), only=only)


@functools.cache
def server(kind: str = "p256", days: int = making.DAYS) -> x509.Certificate:
    key = making.make_key(kind)
    names = [x509.DNSName(HOST), x509.DNSName("*.example.org")]
    return making.sign(signer(kind), key.public_key(), making.common_name(HOST), names, "server", days=days)


def extension(certificate: x509.Certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def life(certificate: x509.Certificate) -> int:
    return (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days


def is_strong(certificate: x509.Certificate) -> bool:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= 2048
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in ("secp256r1", "secp384r1")


RULES: list[tuple[str, Callable[[x509.Certificate], bool]]] = [
    # Apple, support article 103769.
    ("apple-rsa-2048-or-ecdsa", is_strong),
    ("apple-sha-2", lambda one: isinstance(one.signature_hash_algorithm, hashes.SHA256)),
    ("apple-name-is-alternative", lambda one: HOST in extension(one, x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)),
    ("apple-eku-server", lambda one: ExtendedKeyUsageOID.SERVER_AUTH in extension(one, x509.ExtendedKeyUsage).value),
    ("apple-825-days", lambda one: life(one) <= 825),
    ("public-398-days", lambda one: life(one) <= 398),
    # Windows: chain by key identifiers, key usage, no authority.
    ("windows-ski", lambda one: bool(extension(one, x509.SubjectKeyIdentifier).value.digest)),
    (
        "windows-aki-is-the-authority's-ski",
        lambda one: extension(one, x509.AuthorityKeyIdentifier).value.key_identifier
        in [extension(signer(kind).certificate, x509.SubjectKeyIdentifier).value.digest for kind in KINDS],
    ),
    ("windows-digital-signature", lambda one: extension(one, x509.KeyUsage).value.digital_signature),
    ("rfc5280-basic-constraints", lambda one: not extension(one, x509.BasicConstraints).value.ca),
    ("rfc5280-serial-20-octets", lambda one: 0 < one.serial_number < 1 << 159),
    ("rfc5280-no-signing", lambda one: not extension(one, x509.KeyUsage).value.key_cert_sign),
    ("rfc5280-version-3", lambda one: one.version is x509.Version.v3),
]  # fmt: skip

AUTHORITY_RULES: list[tuple[str, Callable[[x509.Certificate], bool]]] = [
    ("android-ca-true", lambda one: extension(one, x509.BasicConstraints).value.ca),
    ("android-constraints-critical", lambda one: extension(one, x509.BasicConstraints).critical),
    ("no-other-authority-below", lambda one: extension(one, x509.BasicConstraints).value.path_length == 0),
    ("apple-cert-sign", lambda one: extension(one, x509.KeyUsage).value.key_cert_sign),
    ("windows-crl-sign", lambda one: extension(one, x509.KeyUsage).value.crl_sign),
    ("usage-critical", lambda one: extension(one, x509.KeyUsage).critical),
    ("windows-ski", lambda one: bool(extension(one, x509.SubjectKeyIdentifier).value.digest)),
    ("has-a-subject", lambda one: bool(list(one.subject))),
    ("strong", is_strong),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", [each[1] for each in RULES], ids=[each[0] for each in RULES])
def test_of_a_server(rule: Callable[[x509.Certificate], bool], kind: str) -> None:
    assert rule(server(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", [each[1] for each in AUTHORITY_RULES], ids=[each[0] for each in AUTHORITY_RULES])
def test_of_the_authority(rule: Callable[[x509.Certificate], bool], kind: str) -> None:
    assert rule(signer(kind).certificate)


def test_rsa_deciphers_for_old_devices_and_ecdsa_does_not() -> None:
    assert extension(server("rsa2048"), x509.KeyUsage).value.key_encipherment
    assert not extension(server("p256"), x509.KeyUsage).value.key_encipherment


def test_a_name_too_long_for_a_subject_is_an_alternative_alone() -> None:
    """RFC 5280 4.2.1.6: then it is critical."""
    name = ".".join(("a" * 60, "b" * 60, "example.org"))
    made = making.sign(
        signer(), making.make_key().public_key(), making.common_name(name), [x509.DNSName(name)], "server"
    )
    assert list(made.subject) == []
    assert extension(made, x509.SubjectAlternativeName).critical


def test_only_for_some_domains() -> None:
    """RFC 5280 4.2.1.10."""
    found = extension(signer("p256", ("example.org",)).certificate, x509.NameConstraints)
    assert found.critical
    assert x509.DNSName("example.org") in found.value.permitted_subtrees
    assert [str(each.value) for each in found.value.excluded_subtrees] == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize(("name", "good"), [("mail.example.org", True), ("mail.example.com", False)])
def test_openssl_heeds_the_constraint(tmp_path: Path, name: str, good: bool) -> None:
    one = signer("p256", ("example.org",))
    made = making.sign(one, making.make_key().public_key(), making.common_name(name), [x509.DNSName(name)], "server")
    assert (openssl_verify(tmp_path, one, made, "sslserver", name).returncode == 0) == good


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_takes_it(tmp_path: Path, kind: str) -> None:
    done = openssl_verify(tmp_path, signer(kind), server(kind), "sslserver", HOST)
    assert done.returncode == 0, done.stderr
    assert openssl_verify(tmp_path, signer(kind), server(kind), "sslserver", "mail.example.com").returncode != 0
    assert openssl_verify(tmp_path, signer(kind), server(kind), "sslclient", HOST).returncode != 0


def openssl_verify(
    directory: Path, one: Authority, made: x509.Certificate, purpose: str, name: str
) -> subprocess.CompletedProcess[str]:
    (directory / "ca.pem").write_bytes(making.certificate_pem(one.certificate))
    (directory / "one.pem").write_bytes(making.certificate_pem(made))
    words = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-verify_hostname", name, "-CAfile"]
    return subprocess.run(
        [*words, directory / "ca.pem", directory / "one.pem"], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("certtool") is None, reason="needs gnutls-bin")
@pytest.mark.parametrize("kind", KINDS)
def test_gnutls_takes_it(tmp_path: Path, kind: str) -> None:
    (tmp_path / "ca.pem").write_bytes(making.certificate_pem(signer(kind).certificate))
    (tmp_path / "one.pem").write_bytes(making.certificate_pem(server(kind)))
    words = ["certtool", "--verify", "--load-ca-certificate", "ca.pem", "--infile", "one.pem", "--verify-hostname"]
    for name, good in ((HOST, True), ("mail.example.com", False)):
        done = subprocess.run([*words, name], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode == 0) == good, done.stdout


class TestPkcs12:
    @pytest.fixture
    def user(self) -> tuple[making.PrivateKey, x509.Certificate]:
        key = making.make_key("rsa2048")
        name = "anna@example.org"
        subject, names = making.common_name(name), [x509.RFC822Name(name)]
        return key, making.sign(signer(), key.public_key(), subject, names, "client")

    @pytest.fixture(params=[False, True], ids=["old", "new"])
    def file(self, request: pytest.FixtureRequest, tmp_path: Path, user) -> tuple[Path, bool]:
        path = tmp_path / "anna.p12"
        octets = make_pkcs12("anna", *user, signer().certificate, Secret(b"secret"), new=request.param)
        path.write_bytes(octets)
        return path, request.param

    def test_openssl_reads_it_in_its_form(self, file: tuple[Path, bool], user) -> None:
        path, new = file
        words = ["openssl", "pkcs12", "-in", str(path), "-passin", "pass:secret", "-nodes", "-info"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            # OpenSSL 3 reads old forms by its legacy provider, where they need one.
            done = subprocess.run([*words, "-legacy"], capture_output=True, text=True, timeout=60, check=True)
        form = ("PBES2, PBKDF2, AES-256-CBC", "MAC: sha256") if new else ("pbeWithSHA1And3-KeyTripleDES", "MAC: sha1")
        assert all(part in done.stderr for part in form), done.stderr
        assert done.stdout.count("BEGIN CERTIFICATE") == 2, "the user's and the authority's"
        key = done.stdout[done.stdout.index("-----BEGIN PRIVATE KEY") :]
        found = serialization.load_pem_private_key(key.encode(), None)
        assert found.private_numbers() == user[0].private_numbers()

    def test_nobody_reads_it_without_the_password(self, file: tuple[Path, bool]) -> None:
        words = ["openssl", "pkcs12", "-in", str(file[0]), "-passin", "pass:other", "-noout"]
        assert subprocess.run(words, capture_output=True, timeout=60, check=False).returncode != 0

    @pytest.mark.interop
    @pytest.mark.skipif(shutil.which("keytool") is None, reason="needs a Java runtime")
    def test_java_reads_it(self, file: tuple[Path, bool]) -> None:
        words = ["keytool", "-list", "-keystore", str(file[0]), "-storepass", "secret"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert "PrivateKeyEntry" in done.stdout, done.stdout + done.stderr
