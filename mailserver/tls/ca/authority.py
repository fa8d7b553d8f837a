"""Certificate creation: self-signed ones for new domains, and those that a private authority signs.

Phones, Windows and Apple's systems accept P-256, or RSA from 2048 bits, names as subject alternative names, extended key
usage, and at most 825 days (Apple's support page 103769; 398 days are for public authorities). This module writes no files.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

DAYS: Final = 397
"""Default life of a certificate."""

MOST_DAYS: Final = 825
"""Apple's limit for private authorities."""

AUTHORITY_DAYS: Final = 3650

PemPair = tuple[bytes, bytes]
"""A certificate and its key, both PEM; the key without a passphrase (PKCS #8)."""

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

Purpose: TypeAlias = Literal["server", "client"]

_PURPOSES: Final[Mapping[Purpose, ObjectIdentifier]] = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}

_RSA_EXPONENT: Final = 65537

_KEYS: Final[Mapping[str, Callable[[], PrivateKey]]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa2048": lambda: rsa.generate_private_key(_RSA_EXPONENT, 2048),
    "rsa3072": lambda: rsa.generate_private_key(_RSA_EXPONENT, 3072),
    "rsa4096": lambda: rsa.generate_private_key(_RSA_EXPONENT, 4096),
}

KEY_TYPES: Final = tuple(_KEYS)
"""Supported key types."""

_MAX_COMMON_NAME: Final = 64
"""RFC 5280 appendix A, ub-common-name."""


@frozen
class Authority:
    """A certificate that may sign others, and its key."""

    certificate: x509.Certificate
    key: PrivateKey


def make_key(kind: str = "p256") -> PrivateKey:
    """Make a key of one of KEY_TYPES."""
    return _KEYS[kind]()


def make_self_signed(hosts: Sequence[str], *, days: int = DAYS, now: dt.datetime | None = None) -> PemPair:
    """Make a self-signed certificate for host names, wildcards and IP addresses. Raises: ValueError."""
    key = make_key()
    subject = _subject(hosts)
    builder = _leaf(subject, subject, key.public_key(), alternatives(hosts), purpose="server", days=days, now=now)
    return certificate_pem(builder.sign(key, hashes.SHA256())), key_pem(key)


def make_ca(name: str, *, now: dt.datetime | None = None) -> PemPair:
    """Make a private authority; it may sign servers, not other authorities."""
    authority = make_authority(name, make_key(), now=now)
    return certificate_pem(authority.certificate), key_pem(authority.key)


def issue(authority: PemPair, hosts: Sequence[str], *, days: int = DAYS, now: dt.datetime | None = None) -> PemPair:
    """Make a server's certificate, signed by an authority of `make_ca`. Raises: ValueError."""
    issuer_key = serialization.load_pem_private_key(authority[1], None)
    if not isinstance(issuer_key, PrivateKey):
        raise ValueError("the authority's key is neither RSA nor ECDSA")  # noqa: TRY004 - a file's content
    issuer = Authority(x509.load_pem_x509_certificate(authority[0]), issuer_key)
    key = make_key()
    certificate = sign(issuer, key.public_key(), _subject(hosts), alternatives(hosts), "server", days=days, now=now)
    return certificate_pem(certificate), key_pem(key)


def make_authority(
    name: str,
    key: PrivateKey,
    *,
    days: int = AUTHORITY_DAYS,
    only: Sequence[str] = (),
    now: dt.datetime | None = None,
) -> Authority:
    """Make a private authority; `only` limits it to hosts and mail addresses of these domains (RFC 5280 4.2.1.10)."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_MAX_COMMON_NAME])])
    builder = (
        _dated(subject, subject, key.public_key(), days, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if only:
        builder = builder.add_extension(_constraints(only), critical=True)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def sign(
    authority: Authority,
    public_key: PublicKey,
    subject: x509.Name,
    names: Sequence[x509.GeneralName],
    purpose: Purpose,
    *,
    days: int = DAYS,
    now: dt.datetime | None = None,
    crl_url: str = "",
) -> x509.Certificate:
    """Sign a certificate for a public key; it names the revocation list's URL, if there is one."""
    issuer = authority.certificate
    builder = _leaf(subject, issuer.subject, public_key, names, purpose=purpose, days=days, now=now)
    if crl_url:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl_url)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    return builder.add_extension(_issuer_identifier(authority), critical=False).sign(authority.key, hashes.SHA256())


def make_list(
    authority: Authority,
    revoked: Iterable[tuple[int, dt.datetime, str]],
    *,
    number: int,
    days: int,
    now: dt.datetime,
) -> x509.CertificateRevocationList:
    """Make a revocation list (RFC 5280 5) from serial numbers, times and reasons; `number` must grow with each list."""
    begin = now.replace(microsecond=0) - dt.timedelta(hours=1)
    builder = x509.CertificateRevocationListBuilder(
        authority.certificate.subject, begin, begin + dt.timedelta(days=days)
    )
    for serial, time, reason in revoked:
        entry = x509.RevokedCertificateBuilder(serial, time.replace(microsecond=0))
        # RFC 5280 5.3.1: "unspecified" should be omitted.
        if reason != x509.ReasonFlags.unspecified.value:
            entry = entry.add_extension(x509.CRLReason(x509.ReasonFlags(reason)), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return (
        builder.add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_issuer_identifier(authority), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def alternatives(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Convert host names, wildcards and IP addresses to subject alternative names."""
    return [_general_name(host) for host in hosts]


def common_name(name: str) -> x509.Name:
    """Make a subject for people (programs read the alternative names); empty if the name is too long."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if len(name) <= _MAX_COMMON_NAME else [])


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Encode a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """Encode a key as PEM (PKCS #8), encrypted if there is a passphrase."""
    cipher = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)


def _issuer_identifier(authority: Authority) -> x509.AuthorityKeyIdentifier:
    """Identify the authority by its own subject key identifier, however that was made (RFC 5280 4.2.1.1)."""
    try:
        own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _leaf(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: PublicKey,
    names: Sequence[x509.GeneralName],
    *,
    purpose: Purpose,
    days: int,
    now: dt.datetime | None,
) -> x509.CertificateBuilder:
    # Devices without a better key exchange encrypt to the RSA key (RFC 5246 7.4.2).
    decrypts = purpose == "server" and isinstance(public_key, rsa.RSAPublicKey)
    usage = _usage("digital_signature", *(["key_encipherment"] if decrypts else []))
    return (
        _dated(subject, issuer, public_key, days, now)
        # RFC 5280 4.2.1.6: critical if there is no subject.
        .add_extension(x509.SubjectAlternativeName(names), critical=not list(subject))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([_PURPOSES[purpose]]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _dated(
    subject: x509.Name, issuer: x509.Name, public_key: PublicKey, days: int, now: dt.datetime | None
) -> x509.CertificateBuilder:
    start = (now or dt.datetime.now(dt.UTC)).replace(microsecond=0)
    # Valid since an hour ago: clients' clocks are wrong by that much.
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


def _usage(*bits: str) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in bits for name in names})


def _constraints(only: Sequence[str]) -> x509.NameConstraints:
    permitted: list[x509.GeneralName] = []
    for domain in only:
        # A DNS name covers its subdomains; for mail addresses `.name` does that, and `name` is the host itself.
        permitted += [x509.DNSName(domain), x509.RFC822Name(domain), x509.RFC822Name(f".{domain}")]
    addresses = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    return x509.NameConstraints(permitted, [x509.IPAddress(each) for each in addresses])


def _subject(hosts: Sequence[str]) -> x509.Name:
    if not hosts:
        raise ValueError("a certificate needs at least one name")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:_MAX_COMMON_NAME])])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.lower())
