"""The record of certificates that a private authority has issued and revoked: one SQLite file, for its owner alone.

A certificate is recorded and synced before anybody gets it, so that each can be revoked. A damaged or missing file is never
replaced automatically: a revocation list made from an empty record would withdraw every revocation.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

import apsw
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mailserver.tls.ca.authority import Purpose
from mailserver.tls.state.history import BUSY_TIME

FILE: Final = "ca.sqlite"
_VERSION: Final = 1

_TABLES: Final = """
CREATE TABLE issued (
    serial TEXT PRIMARY KEY, purpose TEXT NOT NULL, names TEXT NOT NULL, time INTEGER NOT NULL, until INTEGER NOT NULL,
    certificate BLOB NOT NULL, revoked INTEGER, reason TEXT) WITHOUT ROWID;
CREATE TABLE list (number INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL);
"""

_COLUMNS: Final = "serial, purpose, names, time, until, certificate, revoked, reason"


class CaFault(Exception):
    """The authority cannot do something; the text says what to do."""


@frozen
class Record:
    """One certificate."""

    serial: str
    """Hexadecimal, lower case."""
    purpose: Purpose
    names: tuple[str, ...]
    """Host names, or the address of a user."""
    time: int
    """Unix time of issue."""
    until: int
    certificate: bytes
    """DER."""
    revoked: int | None
    """Unix time."""
    reason: str | None
    """RFC 5280 5.3.1."""

    def state(self, now: dt.datetime) -> Literal["valid", "expired", "revoked"]:
        """Return the certificate's state."""
        if self.revoked is not None:
            return "revoked"
        return "valid" if self.until > now.timestamp() else "expired"


class Records:
    """The open file. All calls raise CaFault if it cannot be used."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, directory: Path) -> Records:
        """Create the file if there is none."""
        path = directory / FILE
        with _sqlite_errors(path):
            # SQLite would create it with wider permissions; its journal gets the mode of the file.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            return cls(path, _connect(path, new=True))

    @classmethod
    def open(cls, directory: Path) -> Records:
        """Open the existing file."""
        path = directory / FILE
        if not path.exists():
            raise CaFault(
                f"{path}, the record of issued and revoked certificates, is missing: restore it from a backup, or begin "
                "a new one for this authority with `mailserver ca init`"
            )
        with _sqlite_errors(path):
            return cls(path, _connect(path, new=False))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def add(self, certificate: x509.Certificate, purpose: Purpose, names: Sequence[str], now: dt.datetime) -> Record:
        """Record a certificate before it is handed out."""
        record = Record(
            f"{certificate.serial_number:x}",
            purpose,
            tuple(names),
            int(now.timestamp()),
            int(certificate.not_valid_after_utc.timestamp()),
            certificate.public_bytes(Encoding.DER),
            None,
            None,
        )
        with _sqlite_errors(self.path), self._transaction():
            self._connection.execute(
                f"INSERT INTO issued ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",  # noqa: S608 - ours
                (record.serial, purpose, json.dumps(names), record.time, record.until, record.certificate),
            )
        return record

    def all(self) -> list[Record]:
        """Return all certificates, the newest first."""
        return self._read("ORDER BY time DESC, serial")

    def find(self, which: str) -> list[Record]:
        """Find certificates by serial number (as `list` shows it, or with colons) or by name."""
        serial = which.replace(":", "").lower().lstrip("0")
        found = self._read("WHERE serial = ?", serial)
        return found or [record for record in self.all() if which.lower() in map(str.lower, record.names)]

    def revoke(self, serials: Sequence[str], reason: str, now: dt.datetime) -> None:
        """Revoke all of these certificates or none; a revoked one keeps its time and reason."""
        rows = [(int(now.timestamp()), reason, serial) for serial in serials]
        with _sqlite_errors(self.path), self._transaction():
            self._connection.executemany(
                "UPDATE issued SET revoked = ?, reason = ? WHERE serial = ? AND revoked IS NULL", rows
            )

    def revoked(self) -> list[Record]:
        """Return the revoked certificates."""
        return self._read("WHERE revoked IS NOT NULL ORDER BY revoked, serial")

    def next_list(self, now: dt.datetime, least: int) -> tuple[int, list[Record]]:
        """Return the number of a new revocation list (RFC 5280 5.2.3), `least` or more, and its certificates."""
        with _sqlite_errors(self.path), self._transaction():
            self._connection.execute(
                "INSERT INTO list (number, time) SELECT max(?, 1 + coalesce(max(number), 0)), ? FROM list",
                (least, int(now.timestamp())),
            )
            return self._connection.last_insert_rowid(), self.revoked()

    def _read(self, condition: str, *values: object) -> list[Record]:
        query = f"SELECT {_COLUMNS} FROM issued {condition}"  # noqa: S608 - ours
        with _sqlite_errors(self.path):
            rows = [cast("tuple[Any, ...]", row) for row in self._connection.execute(query, cast("Any", values))]
        return [Record(row[0], row[1], tuple(json.loads(row[2])), *row[3:]) for row in rows]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _connect(path: Path, *, new: bool) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY_TIME)
        connection.execute("PRAGMA synchronous = EXTRA")
        (check,) = next(connection.execute("PRAGMA quick_check(1)"))
        if check != "ok":
            raise apsw.CorruptError(str(check))  # noqa: TRY301 - closed as for any other fault
        (version,) = next(connection.execute("PRAGMA user_version"))
        if version == 0 and new:
            connection.execute(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT")
        elif version == 0:
            raise apsw.CorruptError("it is empty")  # noqa: TRY301
        elif version != _VERSION:
            raise CaFault(f"{path} is of another version of mailserver ({version})")  # noqa: TRY301
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise CaFault(f"{path} is damaged ({error}): restore it from a backup") from error
    except apsw.FullError as error:
        raise CaFault(f"{path} cannot be used: no space is left on the disk") from error
    except apsw.BusyError as error:
        raise CaFault(f"{path} cannot be used: another process holds it") from error
    except (apsw.Error, OSError) as error:
        raise CaFault(f"{path} cannot be used: {getattr(error, 'strerror', None) or error}") from error
