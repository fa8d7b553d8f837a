"""ACME state: the account's key at each authority; failed attempts, a pending order and a renewal window for each host.

It is one SQLite file beside the history of certificates, readable by its owner alone. Each use opens it: uses are rare.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import apsw
import attrs
from attrs import frozen
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mailserver.config.model import Config
from mailserver.tls.acme.jws import base64url, jwk_of
from mailserver.tls.acme.schedule import Attempts, Window
from mailserver.tls.state.history import BUSY_TIME, CannotRecord, make_directory, unusable_reason
from mailserver.types import Secret

FILE: Final = "acme.sqlite"
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS account (directory TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (
    host TEXT PRIMARY KEY, failures INTEGER NOT NULL, tried INTEGER NOT NULL, until INTEGER NOT NULL,
    error TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS next_account (directory TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders (
    host TEXT PRIMARY KEY, directory TEXT NOT NULL, key_type TEXT NOT NULL, address TEXT NOT NULL, key BLOB NOT NULL,
    request BLOB NOT NULL, begun INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS windows (
    host TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, chosen INTEGER NOT NULL, start INTEGER NOT NULL,
    "end" INTEGER NOT NULL, again INTEGER NOT NULL, explanation TEXT NOT NULL) WITHOUT ROWID;
"""


@frozen
class PendingOrder:
    """An order that was placed, with the key and request of its certificate."""

    host: str
    directory: str
    key_type: str
    address: str
    key_pem: Secret
    request_pem: bytes
    placed: int
    """Unix time."""


def account_key(directory: Path, authority: str) -> Secret:
    """Return the account's key at an authority, PEM; the first call makes it. Raises: CannotRecord."""
    with _opened(directory) as connection:
        connection.execute("BEGIN IMMEDIATE")
        rows = list(connection.execute("SELECT key FROM account WHERE directory = ?", (authority,)))
        if rows:
            return Secret(cast("bytes", rows[0][0]))
        key = _new_key()
        connection.execute("INSERT INTO account VALUES (?, ?)", (authority, key))
        connection.execute("COMMIT")
        return Secret(key)


def next_account_key(directory: Path, authority: str) -> Secret:
    """Return the account's next key; the first call makes it, and it stays until `take_next_key` or `drop_next_key`.

    An interrupted change of keys can thus be completed, whether or not the authority has applied it. Raises: CannotRecord.
    """
    with _opened(directory) as connection:
        connection.execute("INSERT OR IGNORE INTO next_account VALUES (?, ?)", (authority, _new_key()))
        (key,) = next(connection.execute("SELECT key FROM next_account WHERE directory = ?", (authority,)))
        return Secret(cast("bytes", key))


def is_changing(directory: Path, authority: str) -> bool:
    """Is a change of the account's key unfinished? Raises: CannotRecord."""
    with _opened(directory) as connection:
        return bool(list(connection.execute("SELECT 1 FROM next_account WHERE directory = ?", (authority,))))


def take_next_key(directory: Path, authority: str) -> None:
    """Make the next key the account's key, and forget the previous one. Raises: CannotRecord."""
    with _opened(directory) as connection, connection:
        connection.execute(
            "INSERT OR REPLACE INTO account SELECT directory, key FROM next_account WHERE directory = ?", (authority,)
        )
        connection.execute("DELETE FROM next_account WHERE directory = ?", (authority,))


def drop_next_key(directory: Path, authority: str) -> None:
    """Forget the next key: the account keeps its key. Raises: CannotRecord."""
    with _opened(directory) as connection:
        connection.execute("DELETE FROM next_account WHERE directory = ?", (authority,))


def forget_account(directory: Path, authority: str) -> None:
    """Forget the keys and orders of an account that has ended. Raises: CannotRecord."""
    with _opened(directory) as connection, connection:
        for table in ("account", "next_account", "orders"):
            connection.execute(f"DELETE FROM {table} WHERE directory = ?", (authority,))  # noqa: S608 - ours


def pending_order(directory: Path, host: str) -> PendingOrder | None:
    """Return the pending order of a host. Raises: CannotRecord."""
    with _opened(directory) as connection:
        rows = list(connection.execute("SELECT * FROM orders WHERE host = ?", (host,)))
    if not rows:
        return None
    host, authority, key_type, address, key, request, moment = cast("tuple[Any, ...]", rows[0])
    return PendingOrder(host, authority, key_type, address, Secret(key), request, moment)


def save_order(directory: Path, order: PendingOrder) -> None:
    """Record an order, in place of an earlier one of the host. Raises: CannotRecord."""
    row = attrs.astuple(attrs.evolve(order, key_pem=order.key_pem.reveal()), recurse=False)  # type: ignore[arg-type]
    with _opened(directory) as connection:
        connection.execute("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def drop_order(directory: Path, host: str) -> None:
    """Forget an order that has ended. Raises: CannotRecord."""
    with _opened(directory) as connection:
        connection.execute("DELETE FROM orders WHERE host = ?", (host,))


def all_windows(directory: Path) -> dict[str, Window]:
    """Return all renewal windows by host. Raises: CannotRecord."""
    with _opened(directory) as connection:
        rows = connection.execute("SELECT * FROM windows")
        return {str(row[0]): Window(*cast("tuple[Any, ...]", row)) for row in rows}


def save_windows(directory: Path, windows: Iterable[Window]) -> None:
    """Record renewal windows. Raises: CannotRecord."""
    kept = attrs.filters.exclude("failures")
    rows = [attrs.astuple(window, filter=kept) for window in windows]
    with _opened(directory) as connection, connection:
        connection.executemany("INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def all_attempts(directory: Path) -> dict[str, Attempts]:
    """Return all attempts by host. Raises: CannotRecord."""
    with _opened(directory) as connection:
        rows = connection.execute("SELECT host, failures, tried, until, error FROM attempts")
        return {str(row[0]): Attempts(*cast("tuple[Any, ...]", row)) for row in rows}


def save(directory: Path, attempts: Attempts) -> None:
    """Record the attempts of a host. Raises: CannotRecord."""
    with _opened(directory) as connection:
        connection.execute("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?)", attrs.astuple(attempts))


def with_account(config: Config) -> Config:
    """Add the thumbprint of the account's key to a configuration with ACME hosts. Raises: CannotRecord."""
    if config.acme is None or not config.acme_hosts:
        return config
    key = account_key(config.server.state_dir, config.acme.directory)
    return attrs.evolve(config, acme=attrs.evolve(config.acme, thumbprint=thumbprint(key)))


def thumbprint(key_pem: Secret) -> str:
    """Return the thumbprint of a key of `account_key` (RFC 7638 3.1)."""
    key = serialization.load_pem_private_key(key_pem.reveal(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    words = json.dumps(jwk_of(key.public_key()), separators=(",", ":"), sort_keys=True)
    return base64url(hashlib.sha256(words.encode()).digest())


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[apsw.Connection]:
    path = directory / FILE
    try:
        make_directory(directory)
        # SQLite would create it with wider permissions.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        with contextlib.closing(connection):
            connection.set_busy_timeout(BUSY_TIME)
            connection.execute(f"PRAGMA synchronous = EXTRA; {_TABLES} PRAGMA secure_delete = ON")
            yield connection
    except (apsw.Error, OSError) as error:
        raise CannotRecord(unusable_reason(path, error)) from error
