"""The published private authority, `[tls] private_ca`, and its revocation list."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Final

import attrs
from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from mailserver.config.model import Tls
from mailserver.tls.keypair.pair import BadPair, read_authorities
from mailserver.tls.keypair.pem import Fault, read_file

LIST: Final = "ca.crl"
"""File name of an authority's revocation list, beside its certificate."""


@frozen
class PublishedCa:
    """The authority that people are to import."""

    name: str
    """Its common name, or the whole subject without one."""
    der: bytes = field(repr=False)
    not_after: dt.datetime
    crl: bytes = field(default=b"", repr=False)
    """Its revocation list, DER, from the file beside it; empty without one."""
    crl_not_after: dt.datetime | None = None
    """When the next list is due (nextUpdate)."""


def read_published_ca(tls: Tls, faults: list[Fault]) -> PublishedCa | None:
    """Read the configured authority, if any; faults are added to `faults`. Raises nothing."""
    if tls.private_ca is None:
        return None
    try:
        found = read_authorities(tls.private_ca)
    except BadPair as bad:
        faults += [Fault("private_ca", fault.reason) for fault in bad.faults]
        return None
    if len(found) != 1:
        faults.append(Fault("private_ca", f"must hold one certificate, not {len(found)}"))
        return None
    try:
        is_authority = found[0].extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        is_authority = False
    if not is_authority:
        faults.append(Fault("private_ca", "is not an authority: name the certificate that signed those of the hosts"))
        return None
    listed = list_of(found[0], tls.private_ca.with_name(LIST))
    published = describe(found[0])
    if listed is None:
        return published
    return attrs.evolve(published, crl=listed.public_bytes(Encoding.DER), crl_not_after=listed.next_update_utc)


def paths_of(tls: Tls) -> tuple[Path, ...]:
    """Return the files that `read_published_ca` reads."""
    return () if tls.private_ca is None else (tls.private_ca.with_name(LIST), tls.private_ca)


def list_of(authority: x509.Certificate, path: Path) -> x509.CertificateRevocationList | None:
    """Read an authority's revocation list from a PEM file; None if that holds no list of it."""
    octets, key = read_file(path, LIST, []), authority.public_key()
    try:
        found = x509.load_pem_x509_crl(octets or b"")
    except ValueError:
        return None
    is_its = isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) and found.is_signature_valid(key)
    return found if is_its else None


def has_revoked(published: PublishedCa | None, chain_pem: bytes) -> bool:
    """Does the authority's list contain the first certificate of a chain?"""
    if published is None or not published.crl:
        return False
    listed, certificate = x509.load_der_x509_crl(published.crl), x509.load_pem_x509_certificates(chain_pem)[0]
    is_its = certificate.issuer == listed.issuer
    return is_its and listed.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


def describe(certificate: x509.Certificate) -> PublishedCa:
    """Describe an authority's certificate, without its list."""
    names = certificate.subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)
    name = str(names[0].value) if names else certificate.subject.rfc4514_string()
    return PublishedCa(name, certificate.public_bytes(Encoding.DER), certificate.not_valid_after_utc)
