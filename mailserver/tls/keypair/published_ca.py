"""The certificate of one's own authority that `[tls] private_ca` names, and its list: read where files can be, offered elsewhere."""

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
from mailserver.tls.keypair.pair import BadPair, Fault, read_authorities, read_file

LIST: Final = "ca.crl"
"""The revocation list of an authority, beside its certificate."""


@frozen
class Offered:
    """An authority that people are to import."""

    name: str
    """Its common name, else the whole subject."""
    der: bytes = field(repr=False)
    not_after: dt.datetime
    crl: bytes = field(default=b"", repr=False)
    """Its revocation list, DER, that lies beside it; empty without one."""
    crl_not_after: dt.datetime | None = None
    """When a new list is due (nextUpdate)."""


def read_offered(tls: Tls, faults: list[Fault]) -> Offered | None:
    """None where there is none; what is wrong is added to `faults`. Raises nothing."""
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
        faults.append(Fault("private_ca", "holds no authority: name the certificate that signed those of the hosts"))
        return None
    listed = list_of(found[0], tls.private_ca.with_name(LIST))
    offered = describe(found[0])
    if listed is None:
        return offered
    return attrs.evolve(offered, crl=listed.public_bytes(Encoding.DER), crl_not_after=listed.next_update_utc)


def paths_of(tls: Tls) -> tuple[Path, ...]:
    """The files that `read_offered` reads."""
    return () if tls.private_ca is None else (tls.private_ca.with_name(LIST), tls.private_ca)


def list_of(authority: x509.Certificate, path: Path) -> x509.CertificateRevocationList | None:
    """The revocation list of an authority in a file, PEM; None where that holds no such list."""
    octets, key = read_file(path, LIST, []), authority.public_key()
    try:
        found = x509.load_pem_x509_crl(octets or b"")
    except ValueError:
        return None
    is_its = isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) and found.is_signature_valid(key)
    return found if is_its else None


def has_revoked(offered: Offered | None, chain_pem: bytes) -> bool:
    """Does its list have the first certificate of a chain?"""
    if offered is None or not offered.crl:
        return False
    listed, certificate = x509.load_der_x509_crl(offered.crl), x509.load_pem_x509_certificates(chain_pem)[0]
    is_its = certificate.issuer == listed.issuer
    return is_its and listed.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


def describe(certificate: x509.Certificate) -> Offered:
    """An authority's certificate."""
    names = certificate.subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)
    name = str(names[0].value) if names else certificate.subject.rfc4514_string()
    return Offered(name, certificate.public_bytes(Encoding.DER), certificate.not_valid_after_utc)
