"""DKIM keys, and the DNS records that publish them (RFC 6376 3.6, RFC 8463 4, RFC 8301 3)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, Literal, TypeAlias

from attrs import field, frozen
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key

Algorithm: TypeAlias = Literal["rsa", "ed25519"]

RSA_BITS: Final = 2048
"""Size of our keys (RFC 8301 3.2); a longer one takes too long on the reactor's thread."""
LEAST_BITS: Final = 1024
MOST_BITS: Final = 4096
"""Sizes of RSA keys that are verified (RFC 8301 3.2)."""
MOST_EXPONENT: Final = 1 << 32
"""Public exponents beyond it make verification slow; all in use are 65537 or 3."""
MOST_RECORD: Final = 4096
"""Octets of a DNS record that are examined."""

_TAG = re.compile(r"[ \t\r\n]*([A-Za-z][A-Za-z0-9_]*)[ \t\r\n]*=[ \t\r\n]*(.*?)[ \t\r\n]*", re.DOTALL)
_WHITE: Final = re.compile(r"[ \t\r\n]+")


class BadKey(Exception):
    """A key cannot be used; the argument says why, without a subject: "has 1024 bits"."""


class BadTags(Exception):
    """A list of tags cannot be read; the argument says why."""


@frozen
class SigningKey:
    """A private key with its selector, as plain values for another process."""

    selector: str
    algorithm: Algorithm
    pem: bytes = field(repr=False)
    """PKCS #8, without a passphrase."""


def make_key(selector: str, algorithm: Algorithm) -> SigningKey:
    """Make a key. RSA takes some 100 ms."""
    made: RSAPrivateKey | Ed25519PrivateKey
    made = generate_private_key(65537, RSA_BITS) if algorithm == "rsa" else Ed25519PrivateKey.generate()
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SigningKey(selector, algorithm, pem)


def load_private(key: SigningKey, *, validated: bool = False) -> RSAPrivateKey | Ed25519PrivateKey:
    """Load a private key. `validated`: it was loaded before, and its consistency need not be examined. Raises: BadKey."""
    try:
        loaded = serialization.load_pem_private_key(key.pem, None, unsafe_skip_rsa_key_validation=validated)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey("is no private key in PEM without a passphrase") from error
    if key.algorithm == "ed25519" and isinstance(loaded, Ed25519PrivateKey):
        return loaded
    if key.algorithm == "rsa" and isinstance(loaded, RSAPrivateKey):
        if loaded.key_size != RSA_BITS:
            raise BadKey(f"has {loaded.key_size} bits, and must have {RSA_BITS}")
        return loaded
    raise BadKey(f"is no {key.algorithm} key")


def sign(key: RSAPrivateKey | Ed25519PrivateKey, data: bytes) -> bytes:
    """Sign octets: rsa-sha256 or ed25519-sha256 (RFC 8463 3)."""
    if isinstance(key, RSAPrivateKey):
        return key.sign(data, PKCS1v15(), hashes.SHA256())
    return key.sign(_sha256(data))


def is_signed(key: RSAPublicKey | Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    """Is it the key's signature of the octets?"""
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signature, data, PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature, _sha256(data))
    except InvalidSignature:
        return False
    return True


def _sha256(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


def public_record(key: SigningKey) -> str:
    """The text of the DNS record of a key. Raises: BadKey."""
    public = load_private(key).public_key()
    if isinstance(public, RSAPublicKey):
        octets = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    else:
        octets = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return f"v=DKIM1; k={key.algorithm}; h=sha256; p={base64.b64encode(octets).decode()}"


def record_name(selector: str, domain: str) -> str:
    """The DNS name of a key's record, with its dot (RFC 6376 3.6.2.1)."""
    return f"{selector}._domainkey.{domain}."


def parse_tags(text: str) -> dict[str, str]:
    """Parse a tag list (RFC 6376 3.2). Raises: BadTags."""
    tags: dict[str, str] = {}
    pieces = text.split(";")
    if not pieces[-1].strip(" \t\r\n"):
        del pieces[-1]
    for piece in pieces:
        found = _TAG.fullmatch(piece)
        if found is None:
            raise BadTags("a part of it is no tag=value")
        if found[1] in tags:
            raise BadTags(f"has the tag {found[1]} twice")
        tags[found[1]] = found[2]
    return tags


@frozen
class KeyRecord:
    """A published key."""

    key: RSAPublicKey | Ed25519PublicKey
    algorithm: Algorithm
    strict: bool
    """Flag s: the domain of `i=` must be that of `d=`."""
    testing: bool
    """Flag y."""


def parse_record(text: str) -> KeyRecord:
    """Parse a key record (RFC 6376 3.6.1). Raises: BadKey."""
    if len(text) > MOST_RECORD:
        raise BadKey("is too long")
    try:
        tags = parse_tags(text)
    except BadTags as error:
        raise BadKey(f"is no list of tags: {error}") from error
    if tags.get("v", "DKIM1") != "DKIM1" or ("v" in tags and next(iter(tags)) != "v"):
        raise BadKey("does not begin with v=DKIM1")
    if "p" not in tags:
        raise BadKey("has no p=, the key")
    if not tags["p"]:
        raise BadKey("is revoked: its p= is empty")
    if "h" in tags and "sha256" not in _words(tags["h"]):
        raise BadKey("does not allow SHA-256 in h=")
    if not {"*", "email"} & set(_words(tags.get("s", "*"))):
        raise BadKey("is not for mail, by its s=")
    algorithm = tags.get("k", "rsa")
    try:
        octets = base64.b64decode(_WHITE.sub("", tags["p"]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadKey("has a p= that is no base64") from error
    flags = _words(tags.get("t", ""))
    strict, testing = "s" in flags, "y" in flags
    if algorithm == "ed25519":
        try:
            return KeyRecord(Ed25519PublicKey.from_public_bytes(octets), "ed25519", strict, testing)
        except ValueError as error:
            raise BadKey("has no Ed25519 key of 32 octets in p=") from error
    if algorithm != "rsa":
        raise BadKey("has a key of an unknown type in k=")
    return KeyRecord(_rsa_key(octets), "rsa", strict, testing)


def _rsa_key(octets: bytes) -> RSAPublicKey:
    """Load an RSA key of a size and an exponent that are verified fast. Raises: BadKey."""
    try:
        loaded = serialization.load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey("has no RSA key in p=") from error
    if not isinstance(loaded, RSAPublicKey):
        raise BadKey("has no RSA key in p=")
    if not LEAST_BITS <= loaded.key_size <= MOST_BITS:
        raise BadKey(f"has an RSA key of {loaded.key_size} bits, and {LEAST_BITS} to {MOST_BITS} are accepted")
    if loaded.public_numbers().e > MOST_EXPONENT:
        raise BadKey("has an RSA key with a very large exponent")
    return loaded


def _words(value: str) -> list[str]:
    return [word.strip(" \t\r\n") for word in value.split(":")]
