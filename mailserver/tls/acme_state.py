"""What ACME must remember: the account's key at each authority, and the failed attempts of each host.

One SQLite file beside the history of certificates, its owner's alone, opened for each use: these are rare.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import apsw
import attrs
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mailserver.config.model import Config
from mailserver.tls.acme_plan import Attempts
from mailserver.tls.history import BUSY_TIME, CannotRecord, make_directory, why_not
from mailserver.types import Secret

FILE: Final = "acme.sqlite"
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS account (directory TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (
    host TEXT PRIMARY KEY, failures INTEGER NOT NULL, tried INTEGER NOT NULL, until INTEGER NOT NULL,
    error TEXT NOT NULL) WITHOUT ROWID;
"""


def account_key(directory: Path, authority: str) -> Secret:
    """The key of the account at an authority, PEM; made at the first call. Raises: CannotRecord."""
    with _opened(directory) as connection:
        connection.execute("BEGIN IMMEDIATE")
        rows = list(connection.execute("SELECT key FROM account WHERE directory = ?", (authority,)))
        if rows:
            return Secret(cast("bytes", rows[0][0]))
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        connection.execute("INSERT INTO account VALUES (?, ?)", (authority, key))
        connection.execute("COMMIT")
        return Secret(key)


def all_attempts(directory: Path) -> dict[str, Attempts]:
    """By host. Raises: CannotRecord."""
    with _opened(directory) as connection:
        rows = connection.execute("SELECT host, failures, tried, until, error FROM attempts")
        return {str(row[0]): Attempts(*cast("tuple[Any, ...]", row)) for row in rows}


def save(directory: Path, attempts: Attempts) -> None:
    """Remember a host's. Raises: CannotRecord."""
    with _opened(directory) as connection:
        connection.execute("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?)", attrs.astuple(attempts))


def with_account(config: Config) -> Config:
    """With the thumbprint of the account's key, where a host wants one. Raises: CannotRecord."""
    if config.acme is None or not config.acme_hosts:
        return config
    key = account_key(config.server.state_dir, config.acme.directory)
    return attrs.evolve(config, acme=attrs.evolve(config.acme, thumbprint=thumbprint(key)))


def thumbprint(key_pem: Secret) -> str:
    """Of a key of `account_key` (RFC 7638 3.1)."""
    key = serialization.load_pem_private_key(key_pem.reveal(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    numbers = key.public_key().public_numbers()
    words = {"crv": "P-256", "kty": "EC", "x": _base64url(numbers.x), "y": _base64url(numbers.y)}
    octets = hashlib.sha256(json.dumps(words, separators=(",", ":"), sort_keys=True).encode()).digest()
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _base64url(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[apsw.Connection]:
    path = directory / FILE
    try:
        make_directory(directory)
        # SQLite would make it readable by more.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        with contextlib.closing(connection):
            connection.set_busy_timeout(BUSY_TIME)
            connection.execute(f"PRAGMA synchronous = EXTRA; {_TABLES}")
            yield connection
    except (apsw.Error, OSError) as error:
        raise CannotRecord(why_not(path, error)) from error
