"""The tables of an account's index, and connections to them.

Faults of the file, and their consequences:

*   This version, but summaries of another rendering: they are removed, and rendered again when needed.
*   Absent, empty, of another version, damaged, or not SQLite at all: the file is made anew. Only speed and the history
    of expunges are lost, as the files of the Maildir are the truth.
*   The disk is full or read-only: SQLite then cannot open a WAL database even for reading. The same tables are made in
    memory and filled from the Maildir.
*   Removed while open: the connection writes into a file that no other process sees; `Index.is_current` tells.
"""

from __future__ import annotations

import contextlib
import os
import stat
from array import array
from typing import Any, Final

import apsw

from mailserver.message.summary import RENDERING
from mailserver.store.index import field_texts, previews, sort_keys, sums

APPLICATION_ID: Final = 0x4D534958
VERSION: Final = 6
"""Version of the tables. SQLite's user_version has it, with RENDERING in the bits above its 16."""
_USER_VERSION: Final = RENDERING << 16 | VERSION
BUSY_TIMEOUT: Final = 10_000
"""Milliseconds that a writer waits for another."""
IN_MEMORY: Final = ":memory:"
WAL_KEPT: Final = 4 << 20
"""Octets to which a WAL file is truncated once all of it is in the database."""

Broken = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError, apsw.SchemaChangeError, apsw.SQLError)
"""The file is not a usable index, or no longer."""

Busy = (apsw.BusyError, apsw.LockedError)
"""Another process was writing for longer than the timeout; among Unusable too."""

Unusable = (
    apsw.FullError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.PermissionsError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.ProtocolError,
    apsw.TooBigError,
    apsw.NoMemError,
)
"""The machine does not let the file be used now."""

_TABLES: Final = """
CREATE TABLE mailboxes (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    guid BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    uid_validity INTEGER NOT NULL,
    uid_next INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    recent_from INTEGER NOT NULL,
    keywords TEXT NOT NULL,
    keywords_signature TEXT NOT NULL,
    uidlist_signature TEXT NOT NULL,
    new_mtime INTEGER NOT NULL,
    new_racy INTEGER NOT NULL,
    cur_mtime INTEGER NOT NULL,
    cur_racy INTEGER NOT NULL,
    boot TEXT NOT NULL
);
-- id is mailboxes.key << 32 | UID: one range of it is a mailbox by rising UID.
-- save_date and email_id have their place here for RFC 8514 and RFC 8474.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    mailbox INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    size INTEGER,
    date INTEGER,
    base BLOB NOT NULL,
    suffix BLOB NOT NULL,
    place INTEGER NOT NULL,
    save_date INTEGER,
    email_id BLOB
);
CREATE INDEX messages_modseq ON messages (mailbox, modseq);
CREATE INDEX messages_new ON messages (mailbox) WHERE place = 0;
CREATE UNIQUE INDEX messages_base ON messages (mailbox, base);
-- id is that of the first message, last that of the last one; data comes last, as it has pages of its own.
CREATE TABLE bundles (
    id INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    low_base BLOB NOT NULL,
    high_base BLOB NOT NULL,
    in_new INTEGER NOT NULL,
    unseen INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX bundles_modseq ON bundles (modseq);
CREATE INDEX bundles_new ON bundles (in_new) WHERE in_new > 0;
CREATE INDEX bundles_base ON bundles (high_base);
CREATE TABLE expunged (
    mailbox INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq, uid)
) WITHOUT ROWID;
CREATE TABLE packed_columns (
    mailbox INTEGER PRIMARY KEY,
    modseq INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE summaries (
    id INTEGER PRIMARY KEY,
    envelope BLOB NOT NULL,
    body BLOB NOT NULL,
    body_structure BLOB NOT NULL,
    fields BLOB NOT NULL
);
-- One for each message whose header was searched: rows that are short, as SEARCH reads them by the thousand.
CREATE TABLE header_texts (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL,
    sent INTEGER
);
"""
_ADDED: Final = field_texts.TABLE + previews.TABLE + sort_keys.TABLE + sums.TABLES


class NotOurs(Exception):
    """A database of another application or version."""


def connect(path: str, *, create: bool) -> apsw.Connection:
    """Connect to a database with the tables in place. Raises: NotOurs, those of Broken, those of Unusable."""
    connection = open_file(path, create=create)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT)
        connection.execute("PRAGMA cache_size = -256", can_cache=False)
        version: Any = connection.pragma("user_version")
        identity = (connection.pragma("application_id"), version & 0xFFFF)
        if identity == (0, 0) and create and not connection.pragma("schema_version"):
            _make_tables(connection)
        elif identity != (APPLICATION_ID, VERSION):
            raise NotOurs(f"application and version {identity}")  # noqa: TRY301 - closes the connection on the way
        else:
            # Tables that were made before there were these are as good with them.
            connection.execute(_ADDED)
            if version != _USER_VERSION:
                _forget_summaries(connection)
        if path != IN_MEMORY:
            connection.pragma("journal_mode", "wal")
            keep_wal(connection)
        connection.execute(f"PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = {WAL_KEPT}", can_cache=False)
    except BaseException:
        connection.close(force=True)
        raise
    return connection


def open_file(path: str, *, create: bool) -> apsw.Connection:
    """Connect to a file that only its owner can read, whatever the umask. Raises: those of Unusable.

    SQLite gives the files beside it, which contain mail text too, the mode that it has when they are made.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW | (apsw.SQLITE_OPEN_CREATE if create else 0)
    if path == IN_MEMORY:
        return apsw.Connection(path, flags=flags)
    if create:
        # Never an existing one: closing it would end this process's locks on it (fcntl(2)).
        with contextlib.suppress(OSError):  # SQLite says what is wrong
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = apsw.Connection(path, flags=flags)
    for name in _files(path):
        with contextlib.suppress(OSError):
            mode = os.lstat(name).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                os.chmod(name, 0o600)
    return connection


def _forget_summaries(connection: apsw.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "DELETE FROM summaries; DELETE FROM header_texts; DELETE FROM field_texts; DELETE FROM previews; DELETE FROM sort_keys"
        )
        connection.pragma("user_version", _USER_VERSION)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def remove(path: str) -> None:
    """Remove the index's files."""
    for name in _files(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _files(path: str) -> tuple[str, str, str]:
    return path, path + "-wal", path + "-shm"


def _make_tables(connection: apsw.Connection) -> None:
    # It is empty: three syncs would be for nothing. After a power cut there is no file, or one without tables, or one
    # that is visibly unusable; each is made anew. Later content is synced before it replaces these pages.
    connection.execute("PRAGMA synchronous = OFF")
    connection.pragma("journal_mode", "wal")
    with connection:
        connection.execute(_TABLES + _ADDED)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", _USER_VERSION)


def keep_wal(connection: apsw.Connection) -> None:
    """Leave the WAL file in place at close: making it anew costs more than the rest of opening."""
    keep = array("i", [1])
    connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, keep.buffer_info()[0])
