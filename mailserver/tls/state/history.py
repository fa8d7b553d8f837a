"""Which certificate was served for a host name when, with the pairs to go back to: one SQLite file, its owner's alone.

Problems: a change must be there whole after a power cut, or not at all; two commands may come at once; the clock may
jump back; the disk may be full or the file damaged, and mail must be served all the same.

Rules: every change is one transaction, synced before it is told; what came last is told by the id, never by the time.
A damaged file is set aside and a new one begun; where none can be had the history is in memory, and `problem` says so.

Rejected: files for the pairs and a journal of lines. Both together are whole only with an order of syncs, a recovery,
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

from mailserver.tls.context.contexts import Origin
from mailserver.tls.keypair.pair import Pair, parse_pair

FILE: Final = "certificates.sqlite"
IN_MEMORY: Final = ":memory:"
BUSY_TIME: Final = 5000
"""Milliseconds that another process may hold the file."""
_VERSION: Final = 1
MOST: Final = 1000
"""Activations of a host, however young: an authority, or a program that writes files, may be out of order."""
_MOST_READ: Final = 4096
"""Pairs that stay parsed."""

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
"""Beside those that version 1 began with; a server that does not know them does without."""

_COLUMNS: Final = "id, time, reason, origin, restores, fingerprint, digest, second"


class CannotRecord(Exception):
    """The history cannot be read or written; the text says why. Nothing of the transaction is there."""


@frozen
class Entry:
    """One activation."""

    id: int
    """Grows with each."""
    time: int
    """Unix time, as the clock said."""
    reason: str
    origin: Origin
    restores: int | None
    """The activation that it went back to."""
    fingerprint: str
    digest: bytes
    """Of the pair."""
    second: bytes | None
    """Of the pair beside it, with a key of the other type."""

    @property
    def content(self) -> bytes:
        """The same of all pairs, as `content` gives it."""
        return self.digest + (self.second or b"")


class History:
    """The open file. One thread at a time."""

    def __init__(self, connection: apsw.Connection, path: Path, problem: str, keep: int, keep_days: int) -> None:
        self.problem = problem
        """Why it is not durable, or what was set aside; "" if all is well."""
        self.path = path
        self.keep = keep
        """Activations for each host, however old."""
        self.keep_days = keep_days
        """Those that are younger are kept too, up to MOST."""
        self._connection = connection
        self._read: dict[bytes, Pair] = {}
        self._version = self._data_version()

    @classmethod
    def open(cls, directory: Path, keep: int, keep_days: int = 0) -> History:
        """The history in a directory, made if it is not there; in memory where that cannot be. Raises nothing."""
        path = directory / FILE
        problem = ""
        for _attempt in range(2):
            try:
                return cls(_connect(path), path, problem, keep, keep_days)
            except (apsw.CorruptError, apsw.NotADBError) as error:
                aside = path.with_suffix(".damaged")
                problem = f"{path} is damaged ({error}): it was set aside as {aside}, and begun anew"
                with contextlib.suppress(OSError):
                    os.replace(path, aside)
                    path.with_name(f"{FILE}-journal").unlink(missing_ok=True)
            except (apsw.Error, OSError) as error:
                problem = why_not(path, error)
                break
        problem = f"{problem}; certificates are remembered until the server stops, and none can be added"
        return cls(_prepare(apsw.Connection(IN_MEMORY)), path, problem, keep, keep_days)

    @property
    def is_durable(self) -> bool:
        """Is there a file behind it?"""
        return bool(self._connection.filename)

    def close(self) -> None:
        """Give up the file."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is changed inside, or nothing where that raises. Raises: CannotRecord."""
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
            raise CannotRecord(why_not(self.path, error)) from error

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
        """An activation of a pair for hosts; its id."""
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
        """The host's files are passed over as long as they have this `content`."""
        self._connection.execute("INSERT OR REPLACE INTO pinned VALUES (?, ?)", (host, digest))

    def unpin(self, host: str) -> None:
        """The host's files count again."""
        self._connection.execute("DELETE FROM pinned WHERE host = ?", (host,))

    def warned(self, host: str, fingerprint: str, days: int, time: int) -> None:
        """Somebody was told of so many days."""
        row = (host, fingerprint, days, time)
        self._connection.execute("INSERT OR REPLACE INTO warned VALUES (?, ?, ?, ?)", row)

    def revoke(self, fingerprint: str) -> None:
        """An authority has revoked the certificate."""
        self._connection.execute("INSERT OR IGNORE INTO revoked VALUES (?)", (fingerprint,))

    # --- Questions. Raise: CannotRecord

    def is_revoked(self, fingerprint: str) -> bool:
        """Has an authority revoked it, as far as is known here?"""
        return bool(self._rows("SELECT 1 FROM revoked WHERE fingerprint = ?", fingerprint))

    def was_changed(self) -> bool:
        """Has another process changed it since it was opened, or since this was asked last?"""
        before = self._version
        try:
            self._version = self._data_version()
        except apsw.Error as error:
            raise CannotRecord(why_not(self.path, error)) from error
        return self._version != before

    def current(self, host: str) -> Entry | None:
        """The last activation of a host."""
        return next(self._entries("host = ? ORDER BY id DESC LIMIT 1", host), None)

    def before(self, host: str) -> Entry | None:
        """What a rollback goes back to: again and again it is one step further."""
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
        """Its activations, the newest first."""
        return list(self._entries("host = ? ORDER BY id DESC", host))

    def entry(self, host: str, number: int) -> Entry | None:
        """One of them."""
        return next(self._entries("host = ? AND id = ?", host, number), None)

    def hosts(self) -> list[str]:
        """All hosts of which anything is known."""
        return [cast("str", host) for (host,) in self._rows("SELECT DISTINCT host FROM served ORDER BY host")]

    def pair(self, digest: bytes) -> Pair:
        """A pair that was recorded. Raises: BadPair where what was good once is none by now."""
        if digest not in self._read:
            (chain, key), *_ = self._rows("SELECT chain, key FROM pair WHERE digest = ?", digest)
            if len(self._read) >= _MOST_READ:
                self._read.clear()
            self._read[digest] = parse_pair(cast("bytes", chain), cast("bytes", key))
        return self._read[digest]

    def pinned(self, host: str) -> bytes | None:
        """What `pin` was told."""
        rows = self._rows("SELECT digest FROM pinned WHERE host = ?", host)
        return cast("bytes", rows[0][0]) if rows else None

    def warned_at(self, host: str, fingerprint: str, days: int) -> int | None:
        """Unix time of the last such warning."""
        rows = self._rows(
            "SELECT time FROM warned WHERE host = ? AND fingerprint = ? AND days = ?", host, fingerprint, days
        )
        return cast("int", rows[0][0]) if rows else None

    # --- Inside

    def _data_version(self) -> int:
        """Another one once another connection has changed something. Raises: apsw.Error."""
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
            raise CannotRecord(why_not(self.path, error)) from error

    def _trim(self) -> None:
        """No more for each host than is to be kept, no pair that no activation has."""
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
    """What tells the pairs of one activation from those of another."""
    return pair.digest + (second.digest if second is not None else b"")


def make_directory(directory: Path, owner: tuple[int, int] | None = None) -> None:
    """The state directory, its owner's alone; one that is there stays as it is. Raises: OSError."""
    if directory.exists():
        return
    directory.mkdir(mode=0o700, parents=True)
    if owner is not None:
        os.chown(directory, *owner, follow_symlinks=False)


def _connect(path: Path) -> apsw.Connection:
    make_directory(path.parent)
    # SQLite would make it readable by more; its journal gets the mode of the file.
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


def why_not(path: Path, error: Exception) -> str:
    """What keeps a file of SQLite from being used, in words."""
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
