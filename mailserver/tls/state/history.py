"""The history of served certificates for each host name, with the pairs to go back to: one SQLite file, for its owner alone.

Problems: a change must survive a power cut whole or not at all; two commands may run at once; the clock may jump back; the
disk may be full or the file damaged, and mail must be served all the same.

Rules: every change is one transaction, synced before it is reported. Order is by id, never by time. A damaged file is set
aside and a new one begun. If no file can be used the history is in memory, and `problem` says so.

Rejected: files for the pairs and a journal of lines. Both together are consistent only with an order of syncs, a recovery
and a lock of our own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time as clock
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import apsw
from attrs import frozen

from mailserver.tls.context.context_map import Origin
from mailserver.tls.keypair.pair import Pair, parse_pair

FILE: Final = "certificates.sqlite"
IN_MEMORY: Final = ":memory:"
BUSY_TIME: Final = 5000
"""Milliseconds to wait while another process locks the file."""
_VERSION: Final = 1
MOST: Final = 1000
"""Maximum activations of a host, however young: an authority, or a program that writes files, may be out of order."""
_MOST_READ: Final = 4096
"""Maximum number of parsed pairs in memory."""

_TABLES: Final = """
CREATE TABLE pair (digest BLOB PRIMARY KEY, chain BLOB NOT NULL, key BLOB NOT NULL);
CREATE TABLE activation (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, reason TEXT NOT NULL, origin TEXT NOT NULL,
    restores INTEGER, fingerprint TEXT NOT NULL,
    digest BLOB NOT NULL REFERENCES pair, second BLOB REFERENCES pair);
CREATE TABLE served (host TEXT, id INTEGER REFERENCES activation, PRIMARY KEY (host, id)) WITHOUT ROWID;
CREATE INDEX served_by_id ON served (id);
CREATE TABLE pinned (host TEXT PRIMARY KEY, digest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE warned (
    host TEXT, fingerprint TEXT, days INTEGER, time INTEGER NOT NULL, PRIMARY KEY (host, fingerprint, days)) WITHOUT ROWID;
"""
_LATER_TABLES: Final = "CREATE TABLE IF NOT EXISTS revoked (fingerprint TEXT PRIMARY KEY) WITHOUT ROWID"
"""Added after version 1; an older server ignores them."""

_COLUMNS: Final = "id, time, reason, origin, restores, fingerprint, digest, second"


class CannotRecord(Exception):
    """The history cannot be read or written; the text says why. The transaction was rolled back."""


@frozen
class Entry:
    """One activation."""

    id: int
    """Larger than all earlier ones."""
    time: int
    """Unix time, by the clock of that moment."""
    reason: str
    origin: Origin
    restores: int | None
    """The activation that this one restored."""
    fingerprint: str
    digest: bytes
    """Digest of the pair."""
    second: bytes | None
    """Digest of the second pair, with a key of the other type."""

    @property
    def content(self) -> bytes:
        """Digests of all pairs, as the function `content` gives them."""
        return self.digest + (self.second or b"")


class History:
    """The open file. One thread at a time."""

    def __init__(self, connection: apsw.Connection, path: Path, problem: str, keep: int, keep_days: int) -> None:
        self.problem = problem
        """Why the history is not durable, or which damaged file was moved away; "" if there is no problem."""
        self.path = path
        self.keep = keep
        """Number of activations kept for each host, however old."""
        self.keep_days = keep_days
        """Younger activations are kept too, up to MOST."""
        self._connection = connection
        self._read: dict[bytes, Pair] = {}
        self._version = self._data_version()

    @classmethod
    def open(cls, directory: Path, keep: int, keep_days: int = 0) -> History:
        """Open or make the history in a directory; keep it in memory if that is impossible. Raises nothing."""
        path = directory / FILE
        problem = ""
        for _attempt in range(2):
            try:
                return cls(_connect(path), path, problem, keep, keep_days)
            except (apsw.CorruptError, apsw.NotADBError) as error:
                aside = path.with_suffix(".damaged")
                problem = f"{path} is damaged ({error}): it was moved to {aside}, and a new one begun"
                with contextlib.suppress(OSError):
                    os.replace(path, aside)
                    path.with_name(f"{FILE}-journal").unlink(missing_ok=True)
            except (apsw.Error, OSError) as error:
                problem = unusable_reason(path, error)
                break
        problem = f"{problem}; certificates are remembered until the server stops, and none can be added"
        return cls(_prepare(apsw.Connection(IN_MEMORY)), path, problem, keep, keep_days)

    @property
    def is_durable(self) -> bool:
        """Is it stored in a file?"""
        return bool(self._connection.filename)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all changes made inside, or none if an exception is raised. Raises: CannotRecord."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._trim()
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except apsw.Error as error:
            raise CannotRecord(unusable_reason(self.path, error)) from error

    # --- Changes, inside a transaction

    def add(
        self,
        pair: Pair,
        hosts: Sequence[str],
        *,
        second: Pair | None = None,
        time: int,
        reason: str,
        origin: Origin,
        restores: int | None = None,
    ) -> int:
        """Record an activation of a pair for hosts; return its id."""
        for each in (pair,) if second is None else (pair, second):
            row = (each.digest, each.chain_pem, each.key_pem.reveal())
            self._connection.execute("INSERT OR IGNORE INTO pair VALUES (?, ?, ?)", row)
        of_second = None if second is None else second.digest
        self._connection.execute(
            "INSERT INTO activation (time, reason, origin, restores, fingerprint, digest, second) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (time, reason, origin, restores, pair.fingerprint, pair.digest, of_second),
        )
        number = self._connection.last_insert_rowid()
        self._connection.executemany("INSERT INTO served VALUES (?, ?)", [(host, number) for host in hosts])
        return number

    def pin(self, host: str, digest: bytes) -> None:
        """Ignore the host's files as long as they have this `content`."""
        self._connection.execute("INSERT OR REPLACE INTO pinned VALUES (?, ?)", (host, digest))

    def unpin(self, host: str) -> None:
        """Use the host's files again."""
        self._connection.execute("DELETE FROM pinned WHERE host = ?", (host,))

    def record_warning(self, host: str, fingerprint: str, days: int, time: int) -> None:
        """Record that a warning for this threshold was given."""
        row = (host, fingerprint, days, time)
        self._connection.execute("INSERT OR REPLACE INTO warned VALUES (?, ?, ?, ?)", row)

    def revoke(self, fingerprint: str) -> None:
        """Record that an authority has revoked the certificate."""
        self._connection.execute("INSERT OR IGNORE INTO revoked VALUES (?)", (fingerprint,))

    # --- Queries. All raise: CannotRecord

    def is_revoked(self, fingerprint: str) -> bool:
        """Has an authority revoked the certificate, as far as is recorded?"""
        return bool(self._rows("SELECT 1 FROM revoked WHERE fingerprint = ?", fingerprint))

    def was_changed(self) -> bool:
        """Has another process changed the file since it was opened, or since the last call?"""
        before = self._version
        try:
            self._version = self._data_version()
        except apsw.Error as error:
            raise CannotRecord(unusable_reason(self.path, error)) from error
        return self._version != before

    def current(self, host: str) -> Entry | None:
        """Return the last activation of a host."""
        return next(self._entries("host = ? ORDER BY id DESC LIMIT 1", host), None)

    def before(self, host: str) -> Entry | None:
        """Return the activation that a rollback restores; repeated rollbacks go back further."""
        last = self.current(host)
        if last is None:
            return None
        found = self._entries(
            "host = ? AND id < ? AND (digest != ? OR second IS NOT ?) AND restores IS NULL AND origin != 'self-signed' "
            "AND fingerprint NOT IN (SELECT fingerprint FROM revoked) ORDER BY id DESC LIMIT 1",
            host,
            last.restores or last.id,
            last.digest,
            last.second,
        )
        return next(found, None)

    def of_host(self, host: str) -> list[Entry]:
        """Return the activations of a host, the newest first."""
        return list(self._entries("host = ? ORDER BY id DESC", host))

    def entry(self, host: str, number: int) -> Entry | None:
        """Return one activation of a host."""
        return next(self._entries("host = ? AND id = ?", host, number), None)

    def hosts(self) -> list[str]:
        """Return all recorded hosts."""
        return [cast("str", host) for (host,) in self._rows("SELECT DISTINCT host FROM served ORDER BY host")]

    def pair(self, digest: bytes) -> Pair:
        """Return a recorded pair. Raises: BadPair if this version no longer accepts it."""
        if digest not in self._read:
            (chain, key), *_ = self._rows("SELECT chain, key FROM pair WHERE digest = ?", digest)
            if len(self._read) >= _MOST_READ:
                self._read.clear()
            self._read[digest] = parse_pair(cast("bytes", chain), cast("bytes", key))
        return self._read[digest]

    def pinned(self, host: str) -> bytes | None:
        """Return the content that is pinned for a host."""
        rows = self._rows("SELECT digest FROM pinned WHERE host = ?", host)
        return cast("bytes", rows[0][0]) if rows else None

    def warned_at(self, host: str, fingerprint: str, days: int) -> int | None:
        """Return the Unix time of the last such warning."""
        rows = self._rows(
            "SELECT time FROM warned WHERE host = ? AND fingerprint = ? AND days = ?", host, fingerprint, days
        )
        return cast("int", rows[0][0]) if rows else None

    # --- Inside

    def _data_version(self) -> int:
        """Return SQLite's counter of changes by other connections. Raises: apsw.Error."""
        ((version,),) = self._connection.execute("PRAGMA data_version")
        return cast("int", version)

    def _entries(self, condition: str, *values: object) -> Iterator[Entry]:
        query = f"SELECT {_COLUMNS} FROM served JOIN activation USING (id) WHERE {condition}"  # noqa: S608 - ours
        for row in self._rows(query, *values):
            yield Entry(*cast("tuple[Any, ...]", row))

    def _rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        try:
            return list(self._connection.execute(query, cast("Any", values)))
        except apsw.Error as error:
            raise CannotRecord(unusable_reason(self.path, error)) from error

    def _trim(self) -> None:
        """Delete activations beyond the limits, and pairs without an activation."""
        self._connection.execute(
            "DELETE FROM served WHERE (host, id) IN (SELECT host, id FROM (SELECT host, id, time, "
            "row_number() OVER (PARTITION BY host ORDER BY id DESC) AS place FROM served JOIN activation USING (id)) "
            "WHERE place > ? AND (time < ? OR place > ?))",
            (self.keep, clock.time() - self.keep_days * 86400, max(self.keep, MOST)),
        )
        for statement in (
            "DELETE FROM activation WHERE id NOT IN (SELECT id FROM served)",
            (
                "DELETE FROM pair WHERE digest NOT IN (SELECT digest FROM activation "
                "UNION SELECT second FROM activation WHERE second IS NOT NULL)"
            ),
            "DELETE FROM warned WHERE fingerprint NOT IN (SELECT fingerprint FROM activation)",
            "DELETE FROM revoked WHERE fingerprint NOT IN (SELECT fingerprint FROM activation)",
        ):
            self._connection.execute(statement)


def content(pair: Pair, second: Pair | None) -> bytes:
    """Return a key that identifies the pairs of an activation."""
    return pair.digest + (second.digest if second is not None else b"")


def make_directory(directory: Path, owner: tuple[int, int] | None = None) -> None:
    """Make the state directory, for its owner alone, unless it exists. Raises: OSError."""
    if directory.exists():
        return
    directory.mkdir(mode=0o700, parents=True)
    if owner is not None:
        os.chown(directory, *owner, follow_symlinks=False)


def _connect(path: Path) -> apsw.Connection:
    make_directory(path.parent)
    # SQLite would create it with wider permissions; its journal gets the mode of the file.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    return _prepare(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE))


def _prepare(connection: apsw.Connection) -> apsw.Connection:
    try:
        connection.set_busy_timeout(BUSY_TIME)
        connection.execute("PRAGMA synchronous = EXTRA; PRAGMA secure_delete = ON; PRAGMA foreign_keys = OFF")
        (check,) = next(connection.execute("PRAGMA quick_check(1)"))
        if check != "ok":
            raise apsw.CorruptError(str(check))  # noqa: TRY301 - closed as for any other fault
        connection.execute("BEGIN IMMEDIATE")
        (version,) = next(connection.execute("PRAGMA user_version"))
        if version == 0:
            connection.execute(f"{_TABLES} PRAGMA user_version = {_VERSION}")
        elif version != _VERSION:
            raise OSError(errno.EINVAL, f"it is of another version of mailserver ({version})")  # noqa: TRY301
        connection.execute(_LATER_TABLES)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def unusable_reason(path: Path, error: Exception) -> str:
    """Say why an SQLite file cannot be used."""
    match error:
        case apsw.FullError():
            reason = "no space is left on the disk"
        case apsw.BusyError():
            reason = "another process holds it"
        case OSError():
            reason = error.strerror or str(error)
        case _:
            reason = str(error)
    return f"{path} cannot be used: {reason}"
