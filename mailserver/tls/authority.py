"""Making certificates: self-signed ones for a new domain, and a small private authority that signs others.

What phones, Windows and Apple's systems take: P-256, names as subject alternative names, extended key usage
serverAuth, at most 825 days. Nothing is written to disk here.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS: Final = 397
"""Life of a certificate for a server; phones refuse more than 825 days, public authorities give at most 398."""

AUTHORITY_DAYS: Final = 3650

PemPair = tuple[bytes, bytes]
"""A certificate and its key, both PEM; the key without a passphrase (PKCS #8)."""

_MAX_COMMON_NAME: Final = 64
"""RFC 5280 appendix A, ub-common-name."""


def make_self_signed(hosts: Sequence[str], *, days: int = DAYS, now: dt.datetime | None = None) -> PemPair:
    """A certificate that vouches for itself, for host names, wildcards and IP addresses. Raises: ValueError."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject(hosts)
    builder = _server(hosts, key.public_key(), name, days, now)
    return _pem(builder.sign(key, hashes.SHA256())), _key_pem(key)


def make_ca(name: str, *, now: dt.datetime | None = None) -> PemPair:
    """A private authority whose certificate clients are told to trust; it signs servers, not other authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_MAX_COMMON_NAME])])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _dated(subject, subject, key.public_key(), AUTHORITY_DAYS, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _pem(builder.sign(key, hashes.SHA256())), _key_pem(key)


def issue(authority: PemPair, hosts: Sequence[str], *, days: int = DAYS, now: dt.datetime | None = None) -> PemPair:
    """A certificate for a server, signed by an authority of `make_ca`. Raises: ValueError."""
    issuer = x509.load_pem_x509_certificate(authority[0])
    issuer_key = serialization.load_pem_private_key(authority[1], None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is not of the kind that make_ca makes")  # noqa: TRY004 - a file's content
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _server(hosts, key.public_key(), issuer.subject, days, now).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
    )
    return _pem(builder.sign(issuer_key, hashes.SHA256())), _key_pem(key)


def _server(
    hosts: Sequence[str],
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    days: int,
    now: dt.datetime | None,
) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _dated(_subject(hosts), issuer, public_key, days, now)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _dated(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    days: int,
    now: dt.datetime | None,
) -> x509.CertificateBuilder:
    start = (now or dt.datetime.now(dt.UTC)).replace(microsecond=0)
    # Valid an hour ago: clocks of clients go wrong by that much.
    begin = start - dt.timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=days))
    )


def _subject(hosts: Sequence[str]) -> x509.Name:
    if not hosts:
        raise ValueError("a certificate needs at least one name")
    # Clients read the alternative names; this one is for people.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:_MAX_COMMON_NAME])])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.lower())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
