# ruff: noqa: S608 - what is put into the statements are names and marks from this module, never data
"""The ledger's file, SQLite in the state directory: written in batches by one process, read by the administrator's command.

It is knowledge and no truth: the last seconds may be lost, and a damaged file is begun anew.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import apsw

from mailserver.ledger.entry import NAMES, Entry, Seen, as_row

FILE: Final = "clients.db"
DAY: Final = 86400
_VERSION: Final = 1
_BUSY: Final = 5000
"""Milliseconds that one who writes waits for another."""
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

Damage = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError, apsw.SQLError)


class CannotKeep(Exception):
    """The file cannot be written or read; the argument is a sentence."""


class Ledger:
    """All calls may block."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE

    def record(self, entries: Iterable[Entry], now: int, *, keep_days: int, per_account: int, most: int) -> None:
        """Note that these were seen now, and let the oldest go. Raises: CannotKeep."""
        rows = [(*as_row(entry), now, now) for entry in entries]
        try:
            self._record(rows, now - keep_days * DAY, per_account, most)
        except Damage:
            self._begin_anew()
            self._record(rows, now - keep_days * DAY, per_account, most)

    def seen(self, account: str | None = None) -> list[Seen]:
        """Of one account or of all, the newest of each account first. Raises: CannotKeep."""
        if not self.path.exists():
            return []
        where, bindings = ("", ()) if account is None else ("WHERE account = ?", (account,))
        found = []
        with self._opened() as database:
            for row in database.execute(
                f"SELECT {_COLUMNS}, first, last FROM seen {where} ORDER BY account, last DESC", bindings
            ):
                *values, first, last = row
                found.append(Seen(Entry(*values), first, last))
        return found

    def forget(self, account: str | None = None) -> int:
        """Remove an account's entries, or all; how many. Raises: CannotKeep."""
        if not self.path.exists():
            return 0
        with self._opened() as database:
            if account is None:
                database.execute("DELETE FROM seen")
            else:
                database.execute("DELETE FROM seen WHERE account = ?", (account,))
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

    @contextlib.contextmanager
    def _opened(self) -> Iterator[apsw.Connection]:
        """Raises: CannotKeep."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # For nobody else to read, whatever the umask; SQLite gives its other files the same rights.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            database = apsw.Connection(str(self.path))
            try:
                database.set_busy_timeout(_BUSY)
                if database.pragma("user_version") != _VERSION:
                    database.execute("PRAGMA journal_mode = WAL")
                    database.execute(_CREATE)
                database.execute("PRAGMA synchronous = NORMAL")
                yield database
            finally:
                database.close()
        except Damage:
            raise
        except (OSError, apsw.Error) as error:
            raise CannotKeep(f"{self.path}: {error}") from error

    def _begin_anew(self) -> None:
        try:
            for ending in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        except OSError as error:
            raise CannotKeep(f"{self.path}: {error}") from error


def _bound(database: apsw.Connection, where: str, bindings: tuple[str | int, ...], most: int) -> None:
    """Let the oldest go that are too many."""
    number = database.execute(f"SELECT count(*) FROM seen {where}", bindings).get
    if number > most:
        keys = f"({_COLUMNS})"
        database.execute(
            f"DELETE FROM seen WHERE {keys} IN (SELECT {_COLUMNS} FROM seen {where} ORDER BY last LIMIT ?)",
            (*bindings, number - most),
        )
