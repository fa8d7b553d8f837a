"""Checks of a certificate and its chain as shown, by the requirements of all common clients.

The limits are those of Apple, Windows and Android: a subject alternative name, extended key usage serverAuth, at most
825 days, RSA of 2048 bits or a NIST curve, no SHA-1. This module checks dates and signatures itself; OpenSSL builds the path
to a trusted authority (RFC 5280 6), ignoring dates.
"""

from __future__ import annotations

import datetime as dt
import itertools
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from service_identity.cryptography import verify_certificate_hostname
from service_identity.exceptions import CertificateError, VerificationError

from mailserver.probe.finding import Finding

LONGEST_DAYS: Final = 825
SOON_DAYS: Final = 14
LEAST_RSA: Final = 2048
_WEAK_HASHES: Final = (hashes.MD5, hashes.SHA1)
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_SELF_SIGNED: Final = frozenset({18})
_UNKNOWN_ISSUER: Final = frozenset({2, 20, 21, 27})
_UNKNOWN_ROOT: Final = 19


class BadAuthorities(Exception):
    """The trusted authorities cannot be read; the argument is a sentence."""


@frozen
class Trust:
    """The authorities that clients trust."""

    store: crypto.X509Store

    @classmethod
    def load(cls, own: Sequence[Path]) -> Trust:
        """Load the system's authorities and the certificates in these files. Raises: BadAuthorities."""
        store = crypto.X509Store()
        system = ssl.get_default_verify_paths()
        if system.cafile or system.capath:
            store.load_locations(system.cafile, system.capath)
        for path in own:
            try:
                found = x509.load_pem_x509_certificates(path.read_bytes())
            except (OSError, ValueError) as error:
                raise BadAuthorities(f"{path}: {error}") from error
            for certificate in found:
                store.add_cert(crypto.X509.from_cryptography(certificate))
        return cls(store)

    def fault(self, chain: Sequence[x509.Certificate]) -> tuple[int, str] | None:
        """Return OpenSSL's error number and text if the chain leads to no trusted authority."""
        shown = [crypto.X509.from_cryptography(each) for each in chain]
        try:
            crypto.X509StoreContext(self.store, shown[0], shown[1:]).verify_certificate()
        except crypto.X509StoreContextError as error:
            return int(error.errors[0]), str(error.errors[2])
        return None


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 fingerprint, hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def common_name(name: x509.Name) -> str:
    """Return the short name of a subject or issuer, for people."""
    for attribute in reversed(list(name)):
        if attribute.oid in (x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME):
            return str(attribute.value)[:100]
    return name.rfc4514_string()[:100] or "(no name)"


def key_words(certificate: x509.Certificate) -> str:
    """Describe the key: RSA 2048, P-256, Ed25519."""
    try:
        key = certificate.public_key()
    except ValueError:
        return "unknown"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(key.curve.name, key.curve.name)
    return type(key).__name__.removesuffix("PublicKey")


def days_left(certificate: x509.Certificate, now: dt.datetime) -> int:
    """Return the whole days until the certificate ends; negative if it has ended."""
    return (certificate.not_valid_after_utc - now).days


def check_chain(
    chain: Sequence[x509.Certificate], host: str | None, trust: Trust, now: dt.datetime
) -> Iterator[Finding]:
    """Yield all faults. `host` is the name that a client wants; None if the name does not matter."""
    own = chain[0]
    subject = host or common_name(own.subject)
    for code, words, warning in (
        *_dates(chain, now),
        *_key(own),
        *_signatures(chain),
        *_extensions(own),
        *_name(own, host),
        *_way(chain, trust),
    ):
        yield Finding(code, subject, words, warning)


Fault = tuple[str, str, bool]
"""Code, text, and whether it is a warning."""


def _dates(chain: Sequence[x509.Certificate], now: dt.datetime) -> Iterator[Fault]:
    own = chain[0]
    end, begin = own.not_valid_after_utc, own.not_valid_before_utc
    if end <= now:
        yield "expired", f"the certificate ended on {end:%Y-%m-%d}: renew it", False
    elif (end - now).days < SOON_DAYS:
        yield "ends-soon", f"the certificate ends on {end:%Y-%m-%d}: renew it", True
    if begin > now:
        yield (
            "not-yet-valid",
            f"the certificate is valid from {begin:%Y-%m-%d %H:%M} UTC: check this machine's clock",
            False,
        )
    if (end - begin).days > LONGEST_DAYS:
        yield (
            "lives-too-long",
            f"the certificate lives for {(end - begin).days} days; Apple's clients accept at most {LONGEST_DAYS}",
            False,
        )
    for each in chain[1:]:
        if not each.not_valid_before_utc <= now < each.not_valid_after_utc:
            name = common_name(each.subject)
            yield "chain-expired", f"{name} in the chain is not valid today: put its newer certificate there", False


def _key(own: x509.Certificate) -> Iterator[Fault]:
    try:
        key = own.public_key()
    except ValueError as error:
        yield "weak-key", f"the key cannot be decoded: {error}", False
        return
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < LEAST_RSA:
            yield "weak-key", f"RSA of {key.key_size} bits: make a key of P-256, or RSA of 2048 bits", False
    elif not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        yield "weak-key", f"many clients do not support the key type {key_words(own)}: make a key of P-256", False


def _signatures(chain: Sequence[x509.Certificate]) -> Iterator[Fault]:
    for each in chain:
        # Clients do not check the signature of a trusted root.
        if isinstance(each.signature_hash_algorithm, _WEAK_HASHES) and each.issuer != each.subject:
            yield (
                "weak-signature",
                (
                    f"{common_name(each.subject)} is signed with {each.signature_hash_algorithm.name.upper()}, which clients no "
                    "longer accept: have it issued anew"
                ),
                False,
            )


def _extensions(own: x509.Certificate) -> Iterator[Fault]:
    if not _dns_names(own):
        yield (
            "no-alternative-name",
            "the certificate has no subject alternative name, the only one that clients read",
            False,
        )
    try:
        usage = list(own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (x509.ExtensionNotFound, ValueError):
        usage = []
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage):
        yield (
            "wrong-purpose",
            "the certificate is not made for servers (extended key usage serverAuth): have it issued anew",
            False,
        )


def _dns_names(own: x509.Certificate) -> list[str]:
    try:
        return own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.DNSName
        )
    except (x509.ExtensionNotFound, ValueError):
        return []


def _name(own: x509.Certificate, host: str | None) -> Iterator[Fault]:
    names = _dns_names(own)
    if host is None or not names:
        return
    try:
        verify_certificate_hostname(own, host)
    except (VerificationError, CertificateError):
        yield "wrong-name", f"the certificate is for {', '.join(names[:5])}: issue one that has {host}", False


def _way(chain: Sequence[x509.Certificate], trust: Trust) -> Iterator[Fault]:
    for lower, upper in itertools.pairwise(chain):
        if not _issued(lower, upper):
            yield (
                "wrong-order",
                (
                    f"{common_name(upper.subject)} follows {common_name(lower.subject)} in the chain, but did not issue it: "
                    "the file must hold the server's own certificate, then its issuer, and so on"
                ),
                False,
            )
            break
    fault = trust.fault(chain)
    if fault is None or _ends(fault[0]):
        return
    number, words = fault
    if number in _SELF_SIGNED:
        yield "self-signed", "the certificate is self-signed: no client trusts it unless it was imported", False
    elif number in _UNKNOWN_ISSUER:
        issuer = common_name(chain[-1].issuer)
        yield (
            "missing-intermediate",
            (
                f"the chain ends at a certificate of {issuer}, which is neither shown nor trusted here: add the intermediate "
                "certificate to the file; for a private authority name its file with --ca"
            ),
            False,
        )
    elif number == _UNKNOWN_ROOT:
        name = common_name(chain[-1].subject)
        yield (
            "unknown-authority",
            f"the chain ends at {name}, which clients do not know; for a private authority: --ca FILE",
            False,
        )
    else:
        yield "bad-chain", f"the chain is invalid: {words}", False


def _ends(number: int) -> bool:
    """Does the error concern dates, which `_dates` reports?"""
    return number in (9, 10)


def _issued(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    if isinstance(lower.signature_hash_algorithm, _WEAK_HASHES):
        # The library does not verify such signatures.
        return lower.issuer == upper.subject
    try:
        lower.verify_directly_issued_by(upper)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
