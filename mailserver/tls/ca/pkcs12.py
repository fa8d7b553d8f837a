"""A user's certificate with its key in one file that key stores import (PKCS #12, RFC 7292)."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12

from mailserver.tls.ca.authority import PrivateKey
from mailserver.types import Secret

OLD_ROUNDS = 2048
"""Some old key stores take no more."""

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
    """Certificate, key and the authority's certificate, under a password.

    The old form (PBES1 with SHA-1 and triple DES, RFC 7292 appendix C; a MAC with SHA-1) is what key stores of older
    Windows, macOS, iOS and Android read, and newer ones too. The new form is PBES2 with AES-256 and SHA-256, which those do
    not open. Against who has the file, the old one is as good as its password.
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
            .hmac_hash(hashes.SHA1())  # noqa: S303 - what old key stores read
        )
    return pkcs12.serialize_key_and_certificates(
        name.encode(), key, certificate, [authority], builder.build(password.reveal())
    )
