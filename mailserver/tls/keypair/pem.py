"""PEM files: reading them, and parsing certificates and private keys with a fault for each mistake."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mailserver.types import Secret

MAX_FILE: Final = 1 << 20
"""Maximum length of a PEM file, in octets."""

BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"

_NOT_OPENED: Final = "cannot be decrypted with its password: check key_password_file or key_password_command"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@frozen
class Fault:
    """One fault of a file or pair."""

    key: str
    """The key of the configuration: "certificate", "key", "hosts", "client_ca" ..."""
    reason: str
    warning: bool = False
    value: str = ""
    """A host name to show instead of the path."""


def read_file(path: Path, key: str, faults: list[Fault]) -> bytes | None:
    """Read a file; None, and a fault of the configuration's `key`, if that fails."""
    try:
        # O_NONBLOCK: opening a FIFO must not block the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        faults.append(Fault(key, f"cannot be read: {fault.strerror}"))
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        faults.append(Fault(key, "must be a regular file"))
        return None
    with open(descriptor, "rb") as file:
        try:
            octets: bytes | None = file.read(MAX_FILE + 1)
        except OSError as fault:
            faults.append(Fault(key, f"cannot be read: {fault.strerror}"))
            return None
    if octets is None:
        # Some files of /proc claim to be regular and would block.
        faults.append(Fault(key, "must be a regular file"))
        return None
    if len(octets) > MAX_FILE:
        faults.append(Fault(key, f"must be at most {MAX_FILE} octets"))
        return None
    return octets


def parse_certificates(octets: bytes, faults: list[Fault]) -> list[x509.Certificate]:
    """Parse certificates; none, and a fault, if that fails."""
    if BEGIN not in octets:
        other = "private key" if b"PRIVATE KEY-----" in octets else ""
        faults.append(Fault("certificate", _not_pem(octets, "certificate", other)))
        return []
    if octets.count(BEGIN) != octets.count(_END):
        reason = (
            "ends within a certificate: it is being written, or was truncated; replace the file by renaming a new one"
        )
        faults.append(Fault("certificate", reason))
        return []
    try:
        return x509.load_pem_x509_certificates(octets)
    except ValueError:
        faults.append(Fault("certificate", "holds a certificate that cannot be decoded: copy the file again"))
        return []


def _not_pem(octets: bytes, what: str, other: str) -> str:
    """Say why a file is not the expected PEM; `other` is what it is instead, if that is known."""
    if not octets.strip():
        return f"is empty: it must hold the {what}"
    if other:
        return f"is a {other}, not a {what} in PEM: name the {what}'s file here"
    # X.690 8.9: a SEQUENCE begins DER and PKCS #12.
    if octets[:1] == b"\x30":
        return f"is not a {what} in PEM: it is binary; `openssl x509`, `pkey` or `pkcs12 -nodes` write PEM"
    return f"is not a {what} in PEM: it has no line -----BEGIN {what.upper()}-----"


def parse_private_key(octets: bytes, password: Secret | None, faults: list[Fault]) -> PrivateKey | None:
    """Parse a private key; None, and a fault, if that fails. A weak key is a fault, too."""
    if b"PRIVATE KEY-----" not in octets:
        other = "certificate" if BEGIN in octets else ""
        faults.append(Fault("key", _not_pem(octets, "private key", other)))
        return None
    try:
        private = _decoded(octets, password)
    except TypeError:
        reason = "has a passphrase, which nobody can type: set key_password_file or key_password_command"
        faults.append(Fault("key", reason))
        return None
    except (ValueError, UnsupportedAlgorithm):
        encrypted = b"ENCRYPTED" in octets and password is not None
        faults.append(Fault("key", _NOT_OPENED if encrypted else "cannot be decoded: copy the file again"))
        return None
    if isinstance(private, rsa.RSAPrivateKey):
        if private.key_size < 2048:
            faults.append(
                Fault("key", f"is RSA of {private.key_size} bits; clients need at least 2048: make a new key")
            )
        return private
    if isinstance(private, ec.EllipticCurvePrivateKey):
        if private.curve.name not in ("secp256r1", "secp384r1"):
            faults.append(
                Fault("key", f"is on the curve {private.curve.name}; clients know P-256 and P-384: make a new key")
            )
        return private
    faults.append(Fault("key", "must be RSA or ECDSA; mail clients know nothing else: make a new key"))
    return None


def _decoded(octets: bytes, password: Secret | None) -> object:
    """Load a key. Raises: TypeError if a password is needed; ValueError, UnsupportedAlgorithm."""
    try:
        return serialization.load_pem_private_key(octets, None)
    except TypeError:
        if password is None:
            raise
        return serialization.load_pem_private_key(octets, password.reveal())
