"""Stored passwords, `{SCHEME}hash`, in Dovecot's notation: parsing, verification, creation.

The problems. A users file may hold any of a dozen formats, some of which let the author of an entry request a gigabyte of
memory or minutes of work. crypt(3) and argon2 use a core for a tenth of a second and more. bcrypt uses only 72 octets, and
C strings end at NUL.

The rules. `parse` is cheap and refuses an entry that costs more than its scheme allows, so a file is checked without
hashing. `verify` does the work and runs in a child process (`auth.schemes.hash_process`), unless the scheme is free. Comparisons
take constant time. A password with NUL is never right.

The schemes are rows in `crypt_schemes`, `libcrypt_schemes` and `digest_schemes`.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from attrs import frozen

from mailserver.auth.schemes import crypt_schemes, digest_schemes, libcrypt_schemes
from mailserver.auth.schemes.crypt_schemes import LIGHT, MAX_MEMORY_KIB, STRONG, Argon2Cost
from mailserver.auth.schemes.scheme import BadHash, Scheme, UnknownScheme

__all__ = [
    "LIGHT",
    "MAX_MEMORY_KIB",
    "MAX_PASSWORD",
    "SCHEMES",
    "STRONG",
    "Argon2Cost",
    "BadHash",
    "Entry",
    "Scheme",
    "UnknownScheme",
    "dummy_like",
    "make",
    "nearest_name",
    "parse",
    "verify",
]

MAX_PASSWORD: Final = 2048
"""Longest password, octets: some schemes take more time for a longer one."""
SCHEMES: Final[Mapping[str, Scheme]] = MappingProxyType(
    {row.name: row for row in (*crypt_schemes.SCHEMES, *libcrypt_schemes.SCHEMES, *digest_schemes.SCHEMES)}
)
"""All schemes by their names in Dovecot."""

_ALIASES: Final = MappingProxyType({"SHA1": "SHA", "CLEAR": "PLAIN", "CLEARTEXT": "PLAIN", "MD5": "MD5-CRYPT"})
_CRYPT_FORMS: Final = MappingProxyType({**SCHEMES, **{row.name: row for row in libcrypt_schemes.CRYPT_FORMS}})
_NOT_VERIFIED: Final = frozenset(
    [
        "CRAM-MD5",
        "DES-CRYPT",
        "DIGEST-MD5",
        "HMAC-MD5",
        "LANMAN",
        "LDAP-MD5",
        "NTLM",
        "OTP",
        "PLAIN-MD4",
        "PLAIN-MD5",
        "PLAIN-TRUNC",
        "RPA",
        "SKEY",
        "SMD5",
    ]
)
"""Schemes of Dovecot that are not supported here; no similar name is suggested for them."""
_MEANT: Final = MappingProxyType({"BCRYPT": "BLF-CRYPT", "SCRYPT": "", "MD4": ""})
_OWN_PARAMETERS: Final = MappingProxyType({"YESCRYPT": 40, "GOST-YESCRYPT": 40, "SCRYPT": 11})
"""Schemes whose second field begins with their parameters, and the maximum number of their letters."""
_NO_CRYPT: Final = (
    "is not a supported crypt(3) hash, as an entry without a scheme, or with {CRYPT}, must be; write {PLAIN} before a"
    " password in clear text"
)


@frozen
class Entry:
    """A stored password, parsed and checked."""

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
        fields = self.body.decode("latin-1").split("$")
        if self.scheme.name in _OWN_PARAMETERS:
            return f"{self.scheme.name} {fields[2][: _OWN_PARAMETERS[self.scheme.name]]}"
        parameters = [each for each in fields[2:] if re.fullmatch(r"rounds=\d+|m=\d+.*|\d{1,8}", each)]
        return " ".join([self.scheme.name, *parameters])


def parse(stored: str) -> Entry:
    """Parse `{SCHEME}body`. `{SCHEME.b64}` and `{SCHEME.hex}` name an encoding; without a scheme it is CRYPT.

    Raises: UnknownScheme, BadHash.
    """
    name, body = "CRYPT", stored
    if stored.startswith("{"):
        name, closed, body = stored[1:].partition("}")
        if not closed:
            raise BadHash("'{' without '}' in the password field")
    name, _, encoding = name.upper().partition(".")
    if name == "ARGON2":
        # Dovecot's name for both, which the hash distinguishes.
        name = "ARGON2ID" if body.startswith("$argon2id$") else "ARGON2I"
    if name == "CRYPT":
        scheme = _CRYPT_FORMS.get(crypt_schemes.crypt_family(body))
    else:
        scheme = SCHEMES.get(_ALIASES.get(name, name))
    if scheme is None:
        reason = _NO_CRYPT if name == "CRYPT" else ""
        if name in _NOT_VERIFIED:
            reason = f"{name} is a scheme of Dovecot that is not supported here"
        raise UnknownScheme(name, reason)
    if not body:
        raise BadHash("the password field is empty after its scheme")
    raw = _decode(body, encoding, scheme)
    return Entry(scheme, raw, scheme.check(raw))


def verify(stored: str, password: bytes) -> bool:
    """Does the password match? Takes the cost of the entry, within the bounds. Raises: UnknownScheme, BadHash."""
    entry = parse(stored)
    if not password or b"\0" in password or len(password) > MAX_PASSWORD:
        return False
    return entry.scheme.verify(entry.body, password)


def make(password: bytes, scheme: str = "ARGON2ID", cost: Argon2Cost = STRONG) -> str:
    """A new entry `{SCHEME}body` with a random salt.

    `cost`: of ARGON2ID alone. Raises: UnknownScheme if new entries of that scheme cannot be made; BadHash for a
    password that no protocol can send.
    """
    if not password or b"\0" in password or len(password) > MAX_PASSWORD:
        raise BadHash(f"a password must have 1 to {MAX_PASSWORD} octets and no NUL")
    if scheme == "ARGON2ID":
        return f"{{ARGON2ID}}{crypt_schemes.make_argon2(password, cost)}"
    row = SCHEMES.get(scheme)
    if row is None or row.make is None:
        raise UnknownScheme(scheme)
    return f"{{{scheme}}}{row.make(password)}"


def dummy_like(stored: str) -> str:
    """An entry of the same scheme and cost that no known password matches. Raises: BadHash."""
    text = stored.rstrip("=")
    dummy = f"{text[:-16]}{'A' * 16}{'=' * (len(stored) - len(text))}"
    parse(dummy)
    return dummy


def _decode(body: str, encoding: str, scheme: Scheme) -> bytes:
    """Decode the body. Text is used as it is unless an encoding is named; binary is base64 unless it is all hexadecimal."""
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
    try:
        # A line of the users file that is not UTF-8 keeps its octets.
        return body.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BadHash("the password field is not text") from error


def nearest_name(name: str) -> str:
    """The scheme probably meant by an unknown name; empty if there is none."""
    if name == "CRYPT" or name in _NOT_VERIFIED:
        return ""
    if name in _MEANT:
        return _MEANT[name]
    near = difflib.get_close_matches(name, SCHEMES, 1, cutoff=0.75)
    # Other digits mean another scheme; only their order may be wrong.
    return near[0] if near and sorted(re.findall(r"\d", near[0])) == sorted(re.findall(r"\d", name)) else ""
