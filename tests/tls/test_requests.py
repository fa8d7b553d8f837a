"""Signing requests: one's own, those of OpenSSL, and those that are refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from mailserver.tls.ca import authority as making
from mailserver.tls.ca.names import BadName
from mailserver.tls.ca.requests import BadSigningRequest, make_request, parse_request

KEY = making.make_key()


def request(*names: x509.GeneralName, key=KEY, common: str = "", der: bool = False) -> bytes:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
    builder = x509.CertificateSigningRequestBuilder(x509.Name(attributes))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    form = serialization.Encoding.DER if der else serialization.Encoding.PEM
    return builder.sign(key, digest).public_bytes(form)


def test_what_is_made_is_understood() -> None:
    found = parse_request(make_request(KEY, ["mail.example.org", "*.example.org"]))
    assert (found.purpose, found.names) == ("server", ("mail.example.org", "*.example.org"))
    assert found.public_key == KEY.public_key()


def test_openssl_reads_what_is_made() -> None:
    words = ["openssl", "req", "-verify", "-noout", "-text"]
    octets = make_request(KEY, ["mail.example.org"])
    done = subprocess.run(words, input=octets, capture_output=True, timeout=60, check=True)
    assert b"DNS:mail.example.org" in done.stdout


def test_one_of_openssl(tmp_path: Path) -> None:
    words = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "k", "-subj", "/CN=x"]
    more = ["-addext", "subjectAltName=DNS:Mail.Example.org", "-addext", "basicConstraints=critical,CA:TRUE"]
    octets = subprocess.run([*words, *more], capture_output=True, timeout=60, check=True).stdout
    assert parse_request(octets).names == ("mail.example.org",)


def test_der_and_the_common_name() -> None:
    assert parse_request(request(common="mail.example.org", der=True)).names == ("mail.example.org",)


def test_a_user() -> None:
    found = parse_request(request(x509.RFC822Name("anna@example.org")))
    assert (found.purpose, found.names) == ("client", ("anna@example.org",))


def forged() -> bytes:
    octets = request(x509.DNSName("mail.example.org"), der=True)
    assert octets.count(b"mail.example.org") == 1
    return octets.replace(b"mail.example.org", b"mail.example.net")


def ip() -> x509.GeneralName:
    from ipaddress import ip_address

    return x509.IPAddress(ip_address("192.0.2.1"))


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "is not a signing request"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nMII", "is not a signing request"),
        (making.make_ca("x")[0], "is not a signing request"),
        (forged(), "not signed by the key"),
        (request(), "names no host"),
        (request(x509.DNSName("mail.example.org"), ip()), "IP addresses are not signed"),
        (request(x509.DNSName("mail.example.org"), x509.RFC822Name("anna@example.org")), "in one"),
        (request(x509.RFC822Name("anna@example.org"), x509.RFC822Name("ben@example.org")), "several"),
        (request(x509.DNSName("mail.example.org"), key=rsa.generate_private_key(65537, 1024)), "1024 bits"),
        (request(x509.DNSName("mail.example.org"), key=ec.generate_private_key(ec.SECP521R1())), "P-256"),
        (request(x509.DNSName("mail.example.org"), key=ed25519.Ed25519PrivateKey.generate()), "neither RSA nor"),
    ],
    ids=["empty", "torn", "certificate", "forged", "nameless", "ip", "mixed", "two-users", "weak", "curve", "ed25519"],
)
def test_refused(octets: bytes, why: str) -> None:
    with pytest.raises(BadSigningRequest, match=why):
        parse_request(octets)


def test_a_common_name_that_is_no_host() -> None:
    with pytest.raises(BadName):
        parse_request(request(common="Anna Example"))
