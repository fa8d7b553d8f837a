"""Schemes that hashlib is sufficient for: SCRAM, PBKDF2, digests with and without a salt; and PLAIN."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from functools import partial
from typing import Final

from mailserver.auth.schemes.scheme import MAX_ROUNDS, BadHash, Scheme, number, salt_text
from mailserver.sasl import scram_keys
from mailserver.sasl.saslprep import Unpreparable

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


# SCRAM-SHA-256 and SCRAM-SHA-1 (RFC 5802 3, RFC 7677), in Dovecot's format: rounds,salt,StoredKey,ServerKey


def _scram_parse(hash_name: str, body: bytes) -> scram_keys.ScramKeys:
    try:
        return scram_keys.ScramKeys.parse(body.decode("utf-8"), hash_name)
    except (scram_keys.BadKeys, UnicodeDecodeError) as error:
        raise BadHash(str(error)) from error


def _scram_verify(hash_name: str, body: bytes, password: bytes) -> bool:
    """Accept the password as it is (Dovecot) and prepared by SASLprep (other software)."""
    stored = _scram_parse(hash_name, body)
    spellings = [password]
    with contextlib.suppress(Unpreparable):
        spellings.append(scram_keys.prepare(password))
    right = False
    for spelling in dict.fromkeys(spellings):
        made = scram_keys.derive(hash_name, spelling, stored.salt, stored.rounds)
        right |= hmac.compare_digest(made.stored_key + made.server_key, stored.stored_key + stored.server_key)
    return right


def _scram_make(hash_name: str, password: bytes) -> str:
    """Make an entry. A password that SASLprep refuses is stored as it is: PLAIN can still send it."""
    try:
        return scram_keys.make_keys(hash_name, password).text()
    except Unpreparable:
        salt = secrets.token_bytes(scram_keys.SALT)
        return scram_keys.derive(hash_name, password, salt, scram_keys.ROUNDS).text()


def _scram(hash_name: str, *, offered: bool) -> Scheme:
    def check(body: bytes) -> int:
        _scram_parse(hash_name, body)
        return 0

    make = partial(_scram_make, hash_name) if offered else None
    return Scheme(f"SCRAM-{hash_name}", False, check, partial(_scram_verify, hash_name), make)


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
    _scram("SHA-256", offered=True),
    _scram("SHA-1", offered=False),
    Scheme("PBKDF2", False, _pbkdf2_check, _pbkdf2_verify, _pbkdf2_make),
    _salted("SSHA", "sha1"),
    _salted("SSHA256", "sha256"),
    _salted("SSHA512", "sha512"),
    _digest("SHA", "sha1"),
    _digest("SHA256", "sha256"),
    _digest("SHA512", "sha512"),
    Scheme("PLAIN", False, _plain_check, _plain_verify, is_free=True),
)
"""In the order of the command's choices."""
