"""The stored keys of a password for SCRAM (RFC 5802 3): salt, rounds, StoredKey and ServerKey.

As text `rounds,salt,StoredKey,ServerKey`, the last three base64: Dovecot's {SCRAM-SHA-256} and {SCRAM-SHA-1}.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Self

from attrs import field, frozen

from mailserver.sasl.saslprep import Unpreparable, saslprep

HASHES: Final[Mapping[str, str]] = MappingProxyType({"SHA-256": "sha256", "SHA-1": "sha1"})
"""Name in a mechanism's (RFC 7677, RFC 5802) -> hashlib's."""
ROUNDS: Final = 100_000
"""Rounds of new keys: the client has to do them all at each login."""
LEAST_ROUNDS: Final = 4096
"""RFC 7677 4."""
MAX_ROUNDS: Final = 2_000_000
"""Most rounds of keys that are read."""
SALT: Final = 16
"""Octets of a new salt."""


class BadKeys(ValueError):
    """The text is no SCRAM entry. The argument is the reason and has nothing of the text."""


@frozen
class OtherKeys:
    """The stored keys of another password of the same user, under the same salt and rounds."""

    credential: str
    """Identifies the password."""
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@frozen
class ScramKeys:
    """The stored keys of a user's passwords under one hash. Their owner can guess them, and impersonate the server."""

    rounds: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    others: tuple[OtherKeys, ...] = ()
    """Those of further passwords."""

    @classmethod
    def parse(cls, text: str, hash_name: str) -> Self:
        """Read an entry. Raises: BadKeys."""
        kind = f"SCRAM-{hash_name}"
        fields = text.split(",")
        if len(fields) != 4:
            raise BadKeys(f"not a {kind} entry")
        rounds = fields[0]
        if not (rounds.isascii() and rounds.isdigit() and len(rounds) <= 9):
            raise BadKeys("the number of SCRAM rounds is not a number")
        if not 1 <= int(rounds) <= MAX_ROUNDS:
            raise BadKeys(f"the number of SCRAM rounds must be between 1 and {MAX_ROUNDS}")
        try:
            salt, stored_key, server_key = (base64.b64decode(each, validate=True) for each in fields[1:])
        except (binascii.Error, ValueError) as error:
            raise BadKeys(f"the salt or a key of the {kind} entry is not base64") from error
        size = hashlib.new(HASHES[hash_name]).digest_size
        if not 1 <= len(salt) <= 256 or len(stored_key) != size or len(server_key) != size:
            raise BadKeys(f"the salt or a key of the {kind} entry has the wrong length")
        return cls(int(rounds), salt, stored_key, server_key)

    def text(self) -> str:
        """The entry."""
        encoded = (base64.b64encode(each).decode("ascii") for each in (self.salt, self.stored_key, self.server_key))
        return ",".join([str(self.rounds), *encoded])


def _decoy(hash_name: str) -> str:
    key = bytes(hashlib.new(HASHES[hash_name]).digest_size)
    return ScramKeys(ROUNDS, bytes(SALT), key, key).text()


_DECOYS: Final = {name: _decoy(name) for name in HASHES}


def parse_decoy(hash_name: str) -> None:
    """Take the time of parsing keys, for a user that has none: the time must not show who has some."""
    ScramKeys.parse(_DECOYS[hash_name], hash_name)


def derive(hash_name: str, password: bytes, salt: bytes, rounds: int) -> ScramKeys:
    """The keys of a password as it stands, which takes `rounds` times two of the hash."""
    algorithm = HASHES[hash_name]
    salted = hashlib.pbkdf2_hmac(algorithm, password, salt, rounds)
    stored_key = hashlib.new(algorithm, hmac.digest(salted, b"Client Key", algorithm)).digest()
    return ScramKeys(rounds, salt, stored_key, hmac.digest(salted, b"Server Key", algorithm))


def derive_under(hash_name: str, password: bytes, parameters: str) -> ScramKeys:
    """The keys of a password as it stands, under "rounds,salt"; under a new salt if that is empty."""
    rounds, _, salt = parameters.partition(",")
    octets = base64.b64decode(salt) if salt else secrets.token_bytes(SALT)
    return derive(hash_name, password, octets, int(rounds) if rounds else ROUNDS)


def prepare(password: bytes) -> bytes:
    """Normalise the password as SCRAM clients do (RFC 5802 2.2). Raises: Unpreparable."""
    try:
        return saslprep(password.decode("utf-8")).encode("utf-8")
    except UnicodeDecodeError:
        raise Unpreparable("it is not UTF-8") from None


def make_keys(hash_name: str, password: bytes, rounds: int = ROUNDS) -> ScramKeys:
    """New keys with a salt of their own. Raises: Unpreparable."""
    return derive(hash_name, prepare(password), secrets.token_bytes(SALT), rounds)
