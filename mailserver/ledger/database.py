# ruff: noqa: S608 - statements contain only names and placeholders from this module, never data
"""The ledger's SQLite file in the state directory: one process writes batches, the administrator's command reads.

It is informative only: a crash may lose the last seconds, and a damaged file is replaced by an empty one.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import apsw
from attrs import astuple, evolve

from mailserver.ledger.credential_use import CredentialUse
from mailserver.ledger.entry import NAMES, Entry, SeenEntry, as_row

FILE: Final = "clients.db"
DAY: Final = 86400
_VERSION: Final = 1
_BUSY: Final = 5000
"""Milliseconds to wait for another writer."""
_COLUMNS: Final = ", ".join(f'"{name}"' for name in NAMES)
_CREATE: Final = f"""
CREATE TABLE IF NOT EXISTS seen (
    {", ".join(f'"{name}" {"INTEGER" if name == "port" else "TEXT"} NOT NULL' for name in NAMES)},
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY ({_COLUMNS})
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_last ON seen (last);
PRAGMA user_version = {_VERSION};
"""
_ADD: Final = """
CREATE TABLE IF NOT EXISTS used (
    credential TEXT PRIMARY KEY, account TEXT NOT NULL, network TEXT NOT NULL, protocol TEXT NOT NULL, last INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS used_last ON used (last);
"""
"""Tables that files of earlier releases lack. The version stays, so that those releases go on with the file."""

Damage = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError, apsw.SQLError)


class LedgerUnavailable(Exception):
    """The file cannot be written or read; the argument is a sentence."""


class Ledger:
    """The file. All calls may block."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE

    def record(self, entries: Iterable[Entry], now: int, *, keep_days: int, per_account: int, most: int) -> None:
        """Record that these entries were seen now, and delete the oldest. Raises: LedgerUnavailable."""
        rows = [(*as_row(entry), now, now) for entry in entries]
        try:
            self._record(rows, now - keep_days * DAY, per_account, most)
        except Damage:
            self._replace_damaged()
            self._record(rows, now - keep_days * DAY, per_account, most)

    def record_uses(self, uses: Iterable[CredentialUse], now: int, *, keep_days: int, most: int) -> None:
        """Record last uses of app passwords, and delete the oldest. Raises: LedgerUnavailable."""
        # The time is a worker's, which is not trusted.
        rows, oldest = [astuple(evolve(each, last=min(each.last, now))) for each in uses], now - keep_days * DAY
        try:
            self._record_uses(rows, oldest, most)
        except Damage:
            self._replace_damaged()
            self._record_uses(rows, oldest, most)

    def uses(self, credentials: Iterable[str]) -> dict[str, CredentialUse]:
        """The last uses of app passwords, by their identifiers, whatever their account is called now. Raises: LedgerUnavailable."""
        if not self.path.exists():
            return {}
        with self._opened() as database:
            rows = database.execute(
                "SELECT credential, account, network, protocol, last FROM used"
                " WHERE credential IN (SELECT value FROM json_each(?))",
                (json.dumps(list(credentials)),),
            )
            return {row[0]: CredentialUse(*row) for row in rows}

    def seen(self, account: str | None = None) -> list[SeenEntry]:
        """Return the entries of an account or of all, the newest of each account first. Raises: LedgerUnavailable."""
        if not self.path.exists():
            return []
        where, bindings = ("", ()) if account is None else ("WHERE account = ?", (account,))
        found = []
        with self._opened() as database:
            for row in database.execute(
                f"SELECT {_COLUMNS}, first, last FROM seen {where} ORDER BY account, last DESC", bindings
            ):
                *values, first, last = row
                found.append(SeenEntry(Entry(*values), first, last))
        return found

    def forget(self, account: str | None = None) -> int:
        """Delete an account's entries, or all; return their number. Raises: LedgerUnavailable."""
        if not self.path.exists():
            return 0
        with self._opened() as database:
            where, bindings = ("", ()) if account is None else ("WHERE account = ?", (account,))
            database.execute(f"DELETE FROM used {where}", bindings)
            database.execute(f"DELETE FROM seen {where}", bindings)
            return database.changes()

    def _record(self, rows: list[tuple[str | int, ...]], oldest: int, per_account: int, most: int) -> None:
        marks = ", ".join("?" * (len(NAMES) + 2))
        with self._opened() as database, database:
            database.executemany(
                f"INSERT INTO seen VALUES ({marks}) ON CONFLICT DO UPDATE SET last = max(last, excluded.last)", rows
            )
            database.execute("DELETE FROM seen WHERE last < ?", (oldest,))
            for account in dict.fromkeys(row[0] for row in rows):
                _bound(database, "WHERE account = ?", (account,), per_account)
            _bound(database, "", (), most)

    def _record_uses(self, rows: list[tuple[str | int, ...]], oldest: int, most: int) -> None:
        with self._opened() as database, database:
            database.executemany(
                "INSERT INTO used VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET account = excluded.account,"
                " network = excluded.network, protocol = excluded.protocol, last = excluded.last"
                " WHERE excluded.last >= last",
                rows,
            )
            database.execute("DELETE FROM used WHERE last < ?", (oldest,))
            database.execute(
                "DELETE FROM used WHERE credential IN (SELECT credential FROM used ORDER BY last DESC LIMIT -1 OFFSET ?)",
                (most,),
            )

    @contextlib.contextmanager
    def _opened(self) -> Iterator[apsw.Connection]:
        """Open the file. Raises: LedgerUnavailable."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Readable by its owner alone, whatever the umask; SQLite gives its other files the same mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            database = apsw.Connection(str(self.path))
            try:
                database.set_busy_timeout(_BUSY)
                if database.pragma("user_version") != _VERSION:
                    database.execute("PRAGMA journal_mode = WAL")
                    database.execute(_CREATE)
                database.execute(_ADD)
                database.execute("PRAGMA synchronous = NORMAL")
                yield database
            finally:
                database.close()
        except Damage:
            raise
        except (OSError, apsw.Error) as error:
            raise LedgerUnavailable(f"{self.path}: {error}") from error

    def _replace_damaged(self) -> None:
        try:
            for ending in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        except OSError as error:
            raise LedgerUnavailable(f"{self.path}: {error}") from error


def _bound(database: apsw.Connection, where: str, bindings: tuple[str | int, ...], most: int) -> None:
    """Delete the oldest entries above a limit."""
    number = database.execute(f"SELECT count(*) FROM seen {where}", bindings).get
    if number > most:
        keys = f"({_COLUMNS})"
        database.execute(
            f"DELETE FROM seen WHERE {keys} IN (SELECT {_COLUMNS} FROM seen {where} ORDER BY last LIMIT ?)",
            (*bindings, number - most),
        )
