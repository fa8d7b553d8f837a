"""A user's certificate and key in one file for import into key stores (PKCS #12, RFC 7292)."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12

from mailserver.tls.ca.authority import PrivateKey
from mailserver.types import Secret

OLD_ROUNDS = 2048
"""Some old key stores support no more."""

NEW_ROUNDS = 100_000


def make_pkcs12(
    name: str,
    key: PrivateKey,
    certificate: x509.Certificate,
    authority: x509.Certificate,
    password: Secret,
    *,
    new: bool,
) -> bytes:
    """Pack a certificate, its key and the authority's certificate, encrypted with a password.

    The old form (PBES1 with SHA-1 and triple DES, RFC 7292 appendix C; a MAC with SHA-1) is read by key stores of older
    Windows, macOS, iOS and Android, and by newer ones. The new form (PBES2 with AES-256 and SHA-256) is not read by old
    ones. The old form protects the file only as well as its password.
    """
    builder = PrivateFormat.PKCS12.encryption_builder()
    if new:
        builder = (
            builder.kdf_rounds(NEW_ROUNDS)
            .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
            .hmac_hash(hashes.SHA256())
        )
    else:
        builder = (
            builder.kdf_rounds(OLD_ROUNDS)
            .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
            .hmac_hash(hashes.SHA1())  # noqa: S303 - for old key stores
        )
    return pkcs12.serialize_key_and_certificates(
        name.encode(), key, certificate, [authority], builder.build(password.reveal())
    )
