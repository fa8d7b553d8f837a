"""Values for DNS records of a certificate: the digest of its key (TLSA) and the name of its authority (CAA)."""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

ISSUERS: Final = {
    "Let's Encrypt": "letsencrypt.org",
    "ZeroSSL": "sectigo.com",
    "Sectigo Limited": "sectigo.com",
    "Google Trust Services": "pki.goog",
    "Google Trust Services LLC": "pki.goog",
    "DigiCert Inc": "digicert.com",
    "DigiCert, Inc.": "digicert.com",
    "Buypass AS-983163327": "buypass.com",
    "SSL Corporation": "ssl.com",
    "GlobalSign nv-sa": "globalsign.com",
    "Actalis S.p.A.": "actalis.it",
    "HARICA": "harica.gr",
    "Hellenic Academic and Research Institutions CA": "harica.gr",
}
"""Organization in a certificate's issuer -> the authority's name for CAA (RFC 8659 4.2)."""


def key_digest(pem: bytes) -> str:
    """Return the SHA-256 of the first certificate's SubjectPublicKeyInfo (TLSA 3 1 1, RFC 6698 2.1), hexadecimal. Raises: ValueError."""
    spki = _first(pem).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def issuer_name(pem: bytes) -> str | None:
    """Return the CAA name of the first certificate's authority; None if it is not known here. Raises: ValueError."""
    organizations = _first(pem).issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return next((ISSUERS[str(each.value)] for each in organizations if str(each.value) in ISSUERS), None)


def _first(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pem)[0]
