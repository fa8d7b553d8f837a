"""Stored passwords, `{SCHEME}hash`, as Dovecot writes them: read, verified, made.

The problems. A users file may hold any of a dozen formats, some of which let the file's writer ask for a gigabyte of
memory or for minutes of work. `crypt(3)` and argon2 hold a core for a tenth of a second and more. bcrypt sees only 72
octets, C strings end at NUL.

The rules. `parse` is cheap and refuses what costs more than the bounds below, so the file is checked without hashing.
`verify` does the work and runs in a process of its own (`auth.hashworker`). Compares take constant time. A password
with NUL is never right.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import ctypes.util
import difflib
import functools
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import bcrypt
from argon2 import low_level as argon2
from argon2.exceptions import VerifyMismatchError
from attrs import frozen

MAX_PASSWORD: Final = 2048
"""Longest password, octets: some schemes cost more for a longer one."""
MAX_MEMORY_KIB: Final = 256 * 1024
"""Most memory that an argon2 entry may ask for, KiB."""
MAX_ARGON2_WORK: Final = 4 * 1024 * 1024
"""Most memory times passes of an argon2 entry, KiB."""
MAX_ROUNDS: Final = 2_000_000
"""Most rounds of an entry of SHA-crypt, PBKDF2 or SCRAM."""
MAX_BLOWFISH_COST: Final = 15
"""Largest logarithm of the rounds of a BLF-CRYPT entry."""


class BadHash(ValueError):
    """The entry cannot be used. The argument says why and holds nothing of the hash."""


class UnknownScheme(BadHash):
    """No scheme of that name here; `name` is the one asked for."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown password scheme {name!r}")
        self.name = name


@frozen
class Argon2Cost:
    """What an argon2 hash costs."""

    memory_kib: int
    passes: int
    lanes: int = 1


STRONG: Final = Argon2Cost(memory_kib=65536, passes=3)
"""For users' own passwords."""
LIGHT: Final = Argon2Cost(memory_kib=19456, passes=2)
"""The least that is sensible, for random passwords and small machines."""


@frozen
class Scheme:
    """One way to store a password."""

    name: str
    binary: bool
    """The body is base64 or hexadecimal instead of text."""
    check: Callable[[bytes], int]
    """Cheap look at the decoded body. Returns the memory it needs, KiB. Raises: BadHash."""
    verify: Callable[[bytes, bytes], bool]
    """(decoded body, password) -> right?"""
    make: Callable[[bytes], str] | None = None
    """Password -> body; None where new entries should not be made."""
    digest_size: int = 0
    """Octets of an unsalted digest: tells hexadecimal from base64."""


@frozen
class Entry:
    """A stored password, read and found usable."""

    scheme: Scheme
    body: bytes
    memory_kib: int

    @property
    def kind(self) -> str:
        """Scheme and cost: entries of one kind take the same time."""
        if self.scheme.binary or self.scheme.name == "PLAIN":
            return self.scheme.name
        if self.scheme.name.startswith("SCRAM"):
            return f"{self.scheme.name} {self.body.split(b',', 1)[0].decode('ascii')}"
        fields = self.body.decode("ascii").split("$")
        parameters = [each for each in fields[2:] if re.fullmatch(r"rounds=\d+|m=\d+.*|\d{1,8}", each)]
        return " ".join([self.scheme.name, *parameters])


def parse(stored: str) -> Entry:
    """Read `{SCHEME}body`; `{SCHEME.b64}` and `{SCHEME.hex}` name an encoding; no scheme means CRYPT.

    Raises: UnknownScheme, BadHash.
    """
    name, body = "CRYPT", stored
    if stored.startswith("{"):
        name, closed, body = stored[1:].partition("}")
        if not closed:
            raise BadHash("'{' without '}' in the password field")
    name, _, encoding = name.upper().partition(".")
    if name == "CRYPT":
        name = _crypt_family(body)
    scheme = SCHEMES.get(_ALIASES.get(name, name))
    if scheme is None:
        raise UnknownScheme(name)
    if not body:
        raise BadHash("the password field is empty after its scheme")
    raw = _decode(body, encoding, scheme)
    return Entry(scheme, raw, scheme.check(raw))


def verify(stored: str, password: bytes) -> bool:
    """Is it the password? Costs what the entry asks for, within the bounds. Raises: UnknownScheme, BadHash."""
    entry = parse(stored)
    if not password or b"\0" in password or len(password) > MAX_PASSWORD:
        return False
    return entry.scheme.verify(entry.body, password)


def make(password: bytes, scheme: str = "ARGON2ID", cost: Argon2Cost = STRONG) -> str:
    """A new entry `{SCHEME}body` with a random salt.

    `cost` counts for ARGON2ID alone. Raises: UnknownScheme when new entries of that scheme are not made; BadHash for
    a password that no protocol could send.
    """
    if not password or b"\0" in password or len(password) > MAX_PASSWORD:
        raise BadHash(f"a password has 1 to {MAX_PASSWORD} octets and no NUL")
    if scheme == "ARGON2ID":
        return f"{{ARGON2ID}}{_argon2_make(password, cost)}"
    row = SCHEMES.get(scheme)
    if row is None or row.make is None:
        raise UnknownScheme(scheme)
    return f"{{{scheme}}}{row.make(password)}"


def dummy_like(stored: str) -> str:
    """An entry of the same scheme and cost that no known password fits. Raises: BadHash."""
    text = stored.rstrip("=")
    dummy = f"{text[:-16]}{'A' * 16}{'=' * (len(stored) - len(text))}"
    parse(dummy)
    return dummy


def _decode(body: str, encoding: str, scheme: Scheme) -> bytes:
    """The body's octets. Text stands as it is unless an encoding is named; binary is base64 unless it is all hex."""
    try:
        if encoding == "HEX" or (scheme.digest_size and not encoding and len(body) == 2 * scheme.digest_size):
            return bytes.fromhex(body)
        if encoding in {"B64", "BASE64"} or (scheme.binary and not encoding):
            return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
        if encoding:
            raise BadHash(f"unknown encoding {encoding!r} of the password field")
    except (binascii.Error, ValueError) as error:
        if isinstance(error, BadHash):
            raise
        raise BadHash("the password field is not in its scheme's encoding") from error
    return body.encode("utf-8")


def _number(text: str, least: int, most: int, what: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 9):
        raise BadHash(f"{what} is not a number")
    if not least <= int(text) <= most:
        raise BadHash(f"{what} must be between {least} and {most}")
    return int(text)


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


def _argon2_make(password: bytes, cost: Argon2Cost) -> str:
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
    # Only 72 octets count, as everywhere; the library refuses more instead of ignoring them.
    return bcrypt.checkpw(password[:72], body)


def _blowfish_make(password: bytes) -> str:
    if len(password) > 72:
        raise BadHash("BLF-CRYPT sees only 72 octets: choose another scheme for a longer password")
    # Dovecot and libcrypt write the prefix as 2y; the same hash.
    return "$2y$" + bcrypt.hashpw(password, bcrypt.gensalt(11)).decode("ascii")[4:]


# SHA256-CRYPT, SHA512-CRYPT

_SHA_CRYPT = re.compile(rb"\$([56])\$(?:rounds=(\d{1,9})\$)?[!-#%-9;-~]{1,16}\$([./A-Za-z0-9]+)")
_SALT_LETTERS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LIBCRYPT_MAX = 511
_SHA_CRYPT_ROUNDS = 50000


def _sha_crypt_check(kind: bytes, length: int) -> Callable[[bytes], int]:
    def check(body: bytes) -> int:
        fields = _SHA_CRYPT.fullmatch(body)
        if fields is None or fields[1] != kind or len(fields[3]) != length:
            raise BadHash("not a SHA-crypt hash of this scheme")
        if fields[2]:
            # Fewer than 1000 are raised to 1000 by every crypt(3), and the entry then matches nothing.
            _number(fields[2].decode("ascii"), 1000, MAX_ROUNDS, "the number of SHA-crypt rounds")
        return 0

    return check


def _sha_crypt_verify(body: bytes, password: bytes) -> bool:
    made = _by_libcrypt(password, body)
    if made is not None:
        return hmac.compare_digest(made, body)
    return bool(_portable(body[:3]).verify(password, body.decode("ascii")))


def _by_libcrypt(password: bytes, setting: bytes) -> bytes | None:
    """What crypt(3) makes, or None where there is no libcrypt or it does not take so long a password."""
    library = _libcrypt()
    if library is None or len(password) > _LIBCRYPT_MAX:
        return None
    made = library(password, setting)
    return None if made is None or made.startswith(b"*") else made


def _portable(head: bytes) -> Any:
    """Libpass's implementation in Python: some 400 times slower than libcrypt."""
    # Imported here: it costs 40 ms, and where libcrypt is there it is hardly ever needed.
    from passlib.hash import sha256_crypt, sha512_crypt  # type: ignore[import-untyped]  # noqa: PLC0415

    return sha512_crypt if head == b"$6$" else sha256_crypt


@functools.cache
def _libcrypt() -> Callable[[bytes, bytes], bytes | None] | None:
    """crypt() of the C library, or None. Its answer stands in one static buffer: one thread of a process calls it."""
    # The name of glibc's and libxcrypt's with the old interface, of libxcrypt's without it, of whatever else there is.
    for name in ("libcrypt.so.1", "libcrypt.so.2", ctypes.util.find_library("crypt")):
        function = _crypt_of(name)
        if function is not None:
            return function
    return None


def _crypt_of(name: str | None) -> Callable[[bytes, bytes], bytes | None] | None:
    """crypt() of that library, if it is there and knows the SHA families."""
    if name is None:
        return None
    try:
        function = ctypes.CDLL(name).crypt
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_char_p
    function.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    known = b"$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
    # A libcrypt without the SHA families exists (musl's stub, old BSDs): believe only a right answer.
    return function if function(b"Hello world!", known) == known else None


def _sha_crypt_make(kind: str) -> Callable[[bytes], str]:
    def make_body(password: bytes) -> str:
        salt = "".join(secrets.choice(_SALT_LETTERS) for _ in range(16))
        made = _by_libcrypt(password, f"${kind}$rounds={_SHA_CRYPT_ROUNDS}${salt}$".encode("ascii"))
        if made is not None:
            return made.decode("ascii")
        family = _portable(f"${kind}$".encode("ascii"))
        return str(family.using(rounds=_SHA_CRYPT_ROUNDS, salt=salt).hash(password))

    return make_body


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
    _number(fields[3].decode("latin-1"), 1, MAX_ROUNDS, "the number of PBKDF2 rounds")
    return 0


def _pbkdf2_verify(body: bytes, password: bytes) -> bool:
    _, _, salt, rounds, digest = body.split(b"$")
    made = hashlib.pbkdf2_hmac("sha1", password, salt, int(rounds), 20)
    return hmac.compare_digest(made, bytes.fromhex(digest.decode("ascii")))


def _pbkdf2_make(password: bytes) -> str:
    salt = "".join(secrets.choice(_SALT_LETTERS) for _ in range(16))
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
    rounds = _number(fields[0].decode("latin-1"), 1, MAX_ROUNDS, "the number of SCRAM rounds")
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


def _crypt_family(body: str) -> str:
    """The scheme that the head of a crypt(3) hash names."""
    for head, name in (
        ("$6$", "SHA512-CRYPT"),
        ("$5$", "SHA256-CRYPT"),
        ("$2a$", "BLF-CRYPT"),
        ("$2b$", "BLF-CRYPT"),
        ("$2y$", "BLF-CRYPT"),
        ("$argon2id$", "ARGON2ID"),
        ("$argon2i$", "ARGON2I"),
    ):
        if body.startswith(head):
            return name
    return "CRYPT"


def _digest(name: str, algorithm: str) -> Scheme:
    size = hashlib.new(algorithm).digest_size
    return Scheme(name, True, _digest_check(algorithm, salted=False), _digest_verify(algorithm), digest_size=size)


def _salted(name: str, algorithm: str) -> Scheme:
    return Scheme(name, True, _digest_check(algorithm, salted=True), _digest_verify(algorithm), _digest_make(algorithm))


SCHEMES: Final[Mapping[str, Scheme]] = MappingProxyType(
    {
        row.name: row
        for row in (
            Scheme(
                "ARGON2ID",
                False,
                _argon2_check(b"argon2id"),
                _argon2_verify(argon2.Type.ID),
                lambda password: _argon2_make(password, STRONG),
            ),
            Scheme("ARGON2I", False, _argon2_check(b"argon2i"), _argon2_verify(argon2.Type.I)),
            Scheme("BLF-CRYPT", False, _blowfish_check, _blowfish_verify, _blowfish_make),
            Scheme("SHA512-CRYPT", False, _sha_crypt_check(b"6", 86), _sha_crypt_verify, _sha_crypt_make("6")),
            Scheme("SHA256-CRYPT", False, _sha_crypt_check(b"5", 43), _sha_crypt_verify, _sha_crypt_make("5")),
            Scheme("SCRAM-SHA-256", False, _scram_check, _scram_verify, _scram_make),
            Scheme("PBKDF2", False, _pbkdf2_check, _pbkdf2_verify, _pbkdf2_make),
            _salted("SSHA", "sha1"),
            _salted("SSHA256", "sha256"),
            _salted("SSHA512", "sha512"),
            _digest("SHA", "sha1"),
            _digest("SHA256", "sha256"),
            _digest("SHA512", "sha512"),
            Scheme("PLAIN", False, _plain_check, _plain_verify),
        )
    }
)
"""Every scheme by its name in Dovecot."""

_ALIASES: Final = MappingProxyType({"SHA1": "SHA", "CLEAR": "PLAIN", "CLEARTEXT": "PLAIN"})


def nearest_name(name: str) -> str:
    """The scheme probably meant by an unknown name; empty if none is near."""
    near = difflib.get_close_matches(name, SCHEMES, 1)
    return near[0] if near else ""
