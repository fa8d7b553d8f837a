"""The certificate of one's own authority that `[tls] private_ca` names: read where files can be, offered elsewhere."""

from __future__ import annotations

import datetime as dt

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mailserver.config.model import Tls
from mailserver.tls.pair import BadPair, Fault, read_authorities


@frozen
class Offered:
    """An authority that people are to import."""

    name: str
    """Its common name, else the whole subject."""
    der: bytes = field(repr=False)
    not_after: dt.datetime


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
    return describe(found[0])


def describe(certificate: x509.Certificate) -> Offered:
    """An authority's certificate."""
    names = certificate.subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)
    name = str(names[0].value) if names else certificate.subject.rfc4514_string()
    return Offered(name, certificate.public_bytes(Encoding.DER), certificate.not_valid_after_utc)
