"""The schemes that hashlib has all it takes for: SCRAM, PBKDF2, digests with a salt and without; and PLAIN."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Final

from mailserver.auth.scheme import MAX_ROUNDS, BadHash, Scheme, number, salt_text

# Digests, salted (RFC 2307's SSHA and its kin) and not


def _digest_check(algorithm: str, *, salted: bool) -> Callable[[bytes], int]:
    size = hashlib.new(algorithm).digest_size

    def check(body: bytes) -> int:
        if len(body) < size or len(body) > size + 64 * salted:
            raise BadHash(f"not a {'salted ' if salted else ''}{algorithm} digest")
        return 0

    return check


def _digest_verify(algorithm: str) -> Callable[[bytes, bytes], bool]:
    size = hashlib.new(algorithm).digest_size

    def check(body: bytes, password: bytes) -> bool:
        return hmac.compare_digest(hashlib.new(algorithm, password + body[size:]).digest(), body[:size])

    return check


def _digest_make(algorithm: str) -> Callable[[bytes], str]:
    def make_body(password: bytes) -> str:
        salt = secrets.token_bytes(8)
        return base64.b64encode(hashlib.new(algorithm, password + salt).digest() + salt).decode("ascii")

    return make_body


# PBKDF2, in Dovecot's own format: $1$salt$rounds$hex, HMAC-SHA-1, 20 octets


def _pbkdf2_check(body: bytes) -> int:
    fields = body.split(b"$")
    if len(fields) != 5 or fields[:2] != [b"", b"1"] or not re.fullmatch(rb"[0-9A-Fa-f]{40}", fields[4]):
        raise BadHash("not a PBKDF2 hash")
    number(fields[3].decode("latin-1"), 1, MAX_ROUNDS, "the number of PBKDF2 rounds")
    return 0


def _pbkdf2_verify(body: bytes, password: bytes) -> bool:
    _, _, salt, rounds, digest = body.split(b"$")
    made = hashlib.pbkdf2_hmac("sha1", password, salt, int(rounds), 20)
    return hmac.compare_digest(made, bytes.fromhex(digest.decode("ascii")))


def _pbkdf2_make(password: bytes) -> str:
    salt = salt_text()
    rounds = 600_000
    return f"$1${salt}${rounds}${hashlib.pbkdf2_hmac('sha1', password, salt.encode('ascii'), rounds, 20).hex()}"


# SCRAM-SHA-256 (RFC 5802 3, RFC 7677), in Dovecot's format: rounds,salt,StoredKey,ServerKey


def _scram_keys(password: bytes, salt: bytes, rounds: int) -> tuple[bytes, bytes]:
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, rounds)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256")


def _scram_fields(body: bytes) -> tuple[int, bytes, bytes, bytes]:
    fields = body.split(b",")
    if len(fields) != 4:
        raise BadHash("not a SCRAM-SHA-256 entry")
    rounds = number(fields[0].decode("latin-1"), 1, MAX_ROUNDS, "the number of SCRAM rounds")
    try:
        salt, stored_key, server_key = (base64.b64decode(each, validate=True) for each in fields[1:])
    except binascii.Error as error:
        raise BadHash("the salt or a key of the SCRAM-SHA-256 entry is not base64") from error
    if not salt or len(stored_key) != 32 or len(server_key) != 32:
        raise BadHash("the salt or a key of the SCRAM-SHA-256 entry has the wrong length")
    return rounds, salt, stored_key, server_key


def _scram_check(body: bytes) -> int:
    _scram_fields(body)
    return 0


def _scram_verify(body: bytes, password: bytes) -> bool:
    rounds, salt, stored_key, server_key = _scram_fields(body)
    made = b"".join(_scram_keys(password, salt, rounds))
    return hmac.compare_digest(made, stored_key + server_key)


def _scram_make(password: bytes) -> str:
    salt = secrets.token_bytes(16)
    rounds = 100_000
    encoded = (base64.b64encode(each).decode("ascii") for each in (salt, *_scram_keys(password, salt, rounds)))
    return ",".join([str(rounds), *encoded])


# PLAIN


def _plain_check(body: bytes) -> int:
    del body
    return 0


def _plain_verify(body: bytes, password: bytes) -> bool:
    return hmac.compare_digest(body, password)


def _digest(name: str, algorithm: str) -> Scheme:
    size = hashlib.new(algorithm).digest_size
    return Scheme(name, True, _digest_check(algorithm, salted=False), _digest_verify(algorithm), digest_size=size)


def _salted(name: str, algorithm: str) -> Scheme:
    return Scheme(name, True, _digest_check(algorithm, salted=True), _digest_verify(algorithm), _digest_make(algorithm))


SCHEMES: Final = (
    Scheme("SCRAM-SHA-256", False, _scram_check, _scram_verify, _scram_make),
    Scheme("PBKDF2", False, _pbkdf2_check, _pbkdf2_verify, _pbkdf2_make),
    _salted("SSHA", "sha1"),
    _salted("SSHA256", "sha256"),
    _salted("SSHA512", "sha512"),
    _digest("SHA", "sha1"),
    _digest("SHA256", "sha256"),
    _digest("SHA512", "sha512"),
    Scheme("PLAIN", False, _plain_check, _plain_verify, is_free=True),
)
"""In the order in which they are offered."""
