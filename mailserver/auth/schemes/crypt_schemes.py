"""Schemes whose entries have a crypt(3) prefix `$id$...`: argon2, bcrypt, SHA-crypt.

They are slow on purpose. Each has bounds for the cost that an entry may request. New entries of users are made here.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable
from typing import Any, Final

import bcrypt
from argon2 import low_level as argon2
from argon2.exceptions import VerifyMismatchError
from attrs import frozen

from mailserver.auth.schemes import libcrypt
from mailserver.auth.schemes.scheme import MAX_ROUNDS, BadHash, Scheme, number, salt_text

MAX_MEMORY_KIB: Final = 256 * 1024
"""Largest memory of an argon2 entry, KiB."""
MAX_ARGON2_WORK: Final = 4 * 1024 * 1024
"""Largest memory times passes of an argon2 entry, KiB."""
MAX_BLOWFISH_COST: Final = 15
"""Largest logarithm of the rounds of a BLF-CRYPT entry."""


@frozen
class Argon2Cost:
    """Cost parameters of argon2."""

    memory_kib: int
    passes: int
    lanes: int = 1


STRONG: Final = Argon2Cost(memory_kib=65536, passes=3)
"""For passwords that users choose."""
LIGHT: Final = Argon2Cost(memory_kib=19456, passes=2)
"""The lowest sensible cost, for random passwords and small machines."""


# ARGON2ID, ARGON2I (RFC 9106, in the PHC string format)

_ARGON2 = re.compile(
    rb"\$(argon2id?)\$v=19\$m=(\d{1,9}),t=(\d{1,9}),p=(\d{1,9})\$[A-Za-z0-9+/]{8,128}\$[A-Za-z0-9+/]{16,256}"
)


def _argon2_check(kind: bytes) -> Callable[[bytes], int]:
    def check(body: bytes) -> int:
        fields = _ARGON2.fullmatch(body)
        if fields is None or fields[1] != kind:
            raise BadHash("not an argon2 hash of this scheme")
        memory, passes, lanes = (int(each) for each in fields.groups()[1:])
        if not 8 <= memory <= MAX_MEMORY_KIB:
            raise BadHash(f"argon2 memory must be between 8 and {MAX_MEMORY_KIB} KiB")
        if not 1 <= passes <= MAX_ARGON2_WORK // memory:
            raise BadHash(f"argon2 memory times passes must be at most {MAX_ARGON2_WORK} KiB")
        if not 1 <= lanes <= min(16, memory // 8):
            raise BadHash("argon2 lanes must be between 1 and 16, with 8 KiB for each")
        return memory

    return check


def _argon2_verify(kind: argon2.Type) -> Callable[[bytes, bytes], bool]:
    def check(body: bytes, password: bytes) -> bool:
        try:
            return argon2.verify_secret(body, password, kind)
        except VerifyMismatchError:
            return False

    return check


def make_argon2(password: bytes, cost: Argon2Cost) -> str:
    """The body of a new ARGON2ID entry of that cost, with a random salt of 16 octets."""
    salt = secrets.token_bytes(16)
    made = argon2.hash_secret(
        password, salt, cost.passes, cost.memory_kib, cost.lanes, hash_len=32, type=argon2.Type.ID
    )
    return made.decode("ascii")


# BLF-CRYPT

_BLOWFISH = re.compile(rb"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")


def _blowfish_check(body: bytes) -> int:
    fields = _BLOWFISH.fullmatch(body)
    if fields is None:
        raise BadHash("not a bcrypt hash")
    if not 4 <= int(fields[1]) <= MAX_BLOWFISH_COST:
        raise BadHash(f"the bcrypt cost must be between 4 and {MAX_BLOWFISH_COST}")
    return 0


def _blowfish_verify(body: bytes, password: bytes) -> bool:
    # bcrypt uses 72 octets; the library refuses more instead of ignoring them.
    return bcrypt.checkpw(password[:72], body)


def _blowfish_make(password: bytes) -> str:
    if len(password) > 72:
        raise BadHash("BLF-CRYPT uses only 72 octets: choose another scheme for a longer password")
    # Dovecot and libcrypt write the prefix 2y for the same hash.
    return "$2y$" + bcrypt.hashpw(password, bcrypt.gensalt(11)).decode("ascii")[4:]


# SHA256-CRYPT, SHA512-CRYPT

_SHA_CRYPT = re.compile(rb"\$([56])\$(?:rounds=(\d{1,9})\$)?[!-#%-9;-~]{1,16}\$([./A-Za-z0-9]+)")
_SHA_CRYPT_ROUNDS = 50000


def _sha_crypt_check(kind: bytes, length: int) -> Callable[[bytes], int]:
    def check(body: bytes) -> int:
        fields = _SHA_CRYPT.fullmatch(body)
        if fields is None or fields[1] != kind or len(fields[3]) != length:
            raise BadHash("not a SHA-crypt hash of this scheme")
        if fields[2]:
            # Every crypt(3) raises fewer than 1000 rounds to 1000, and the entry then matches nothing.
            number(fields[2].decode("ascii"), 1000, MAX_ROUNDS, "the number of SHA-crypt rounds")
        return 0

    return check


def _sha_crypt_verify(body: bytes, password: bytes) -> bool:
    made = libcrypt.crypt(password, body)
    if made is not None:
        return hmac.compare_digest(made, body)
    return bool(_portable(body[:3]).verify(password, body.decode("ascii")))


def _portable(head: bytes) -> Any:
    """The Python implementation of libpass: about 400 times slower than libcrypt."""
    # Imported here: it takes 40 ms, and is rarely needed where libcrypt exists.
    from passlib.hash import sha256_crypt, sha512_crypt  # type: ignore[import-untyped]  # noqa: PLC0415

    return sha512_crypt if head == b"$6$" else sha256_crypt


def _sha_crypt_make(kind: str) -> Callable[[bytes], str]:
    def make_body(password: bytes) -> str:
        salt = salt_text()
        made = libcrypt.crypt(password, f"${kind}$rounds={_SHA_CRYPT_ROUNDS}${salt}$".encode("ascii"))
        if made is not None:
            return made.decode("ascii")
        family = _portable(f"${kind}$".encode("ascii"))
        return str(family.using(rounds=_SHA_CRYPT_ROUNDS, salt=salt).hash(password))

    return make_body


SCHEMES: Final = (
    Scheme(
        "ARGON2ID",
        False,
        _argon2_check(b"argon2id"),
        _argon2_verify(argon2.Type.ID),
        lambda password: make_argon2(password, STRONG),
    ),
    Scheme("ARGON2I", False, _argon2_check(b"argon2i"), _argon2_verify(argon2.Type.I)),
    Scheme("BLF-CRYPT", False, _blowfish_check, _blowfish_verify, _blowfish_make),
    Scheme("SHA512-CRYPT", False, _sha_crypt_check(b"6", 86), _sha_crypt_verify, _sha_crypt_make("6")),
    Scheme("SHA256-CRYPT", False, _sha_crypt_check(b"5", 43), _sha_crypt_verify, _sha_crypt_make("5")),
)
"""In the order of the command's choices."""


_PREFIXES: Final = (
    ("$6$", "SHA512-CRYPT"),
    ("$5$", "SHA256-CRYPT"),
    ("$2a$", "BLF-CRYPT"),
    ("$2b$", "BLF-CRYPT"),
    ("$2y$", "BLF-CRYPT"),
    ("$y$", "YESCRYPT"),
    ("$gy$", "GOST-YESCRYPT"),
    ("$7$", "SCRYPT"),
    ("$1$", "MD5-CRYPT"),
    ("$argon2id$", "ARGON2ID"),
    ("$argon2i$", "ARGON2I"),
)


def crypt_family(body: str) -> str:
    """The scheme of a crypt(3) hash by its prefix; empty for another prefix."""
    return next((name for head, name in _PREFIXES if body.startswith(head)), "")
