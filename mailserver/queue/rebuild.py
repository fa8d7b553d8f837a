"""The rebuild: makes rows anew from the spool files, where they are damaged or gone.

What the lines of the files do not say is lost: which recipients were done, held or tried. So mail may go out twice, and
none is lost. Files that nobody had accepted yet are accepted by it. Tokens and counts are taken from the old rows if they
can be read. If not, a token that is asked for within a month counts as committed: its copies would be lost otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw
from attrs import frozen

from mailserver.errors import StorageFailure
from mailserver.queue import disk, insertion, owner, statements
from mailserver.queue.commit_lock import CommitLock
from mailserver.queue.mail_queue import LOCK, SPOOL
from mailserver.queue.model import MessageMissing, Settings
from mailserver.queue.rows import FILE_NAME, Rows
from mailserver.queue.spool import Spool

UNREADABLE: Final = "unreadable"
TOKENS_COUNT_AS_COMMITTED: Final = 30 * 86400
"""Seconds for which unknown tokens do, if the old ones cannot be read."""
_log = logging.getLogger(__name__)


@frozen
class Rebuilt:
    """What a rebuild has found."""

    messages: int
    unreadable: tuple[str, ...]
    """Spool files whose line cannot be read, or that are not whole. They are in the directory `unreadable` now, as the
    sweep would remove them."""
    kept: Path | None
    """The old rows; None: there were none."""
    tokens_lost: bool


def rebuild(directory: Path, settings: Settings, clock: Callable[[], float] = time.time) -> Rebuilt:
    """Make the rows anew. Processes that have the old ones open take the new ones with their next transaction.

    Raises: QueueBusy while a process sends; NoSpace, StorageFailure.
    """
    owned = owner.acquire(directory)
    try:
        lock = CommitLock(directory / LOCK)
        try:
            with lock.held():
                return _rebuild(directory, settings, int(clock()))
        finally:
            lock.close()
    finally:
        os.close(owned)


def _rebuild(directory: Path, settings: Settings, now: int) -> Rebuilt:
    spool = Spool(directory / SPOOL)
    path = directory / FILE_NAME
    old = path.exists()
    kept = directory / f"{FILE_NAME}.damaged.{now}.{os.getpid()}" if old else None
    found: list[str] = []
    unreadable: list[str] = []
    tokens = _read_old(path, statements.ALL_DECISIONS) if old else None
    counts = _read_old(path, statements.ALL_SENT) if old else None

    def fill(connection: apsw.Connection) -> None:
        connection.executemany(statements.DECIDE, tokens or [])
        connection.executemany(statements.ADD_SENT, counts or [])
        if tokens is None:
            connection.execute(statements.SET_TOKENS_LOST, {"until": now + TOKENS_COUNT_AS_COMMITTED})
        for name in sorted(spool.names()):
            try:
                spooled = spool.parse(name)
            except (MessageMissing, StorageFailure) as error:
                _log.warning("spool file %s cannot be read: %s", name, error.reason)
                unreadable.append(name)
                continue
            insertion.insert(connection, spooled, settings, now)
            found.append(name)

    with disk.boundary():
        os.makedirs(spool.directory, mode=0o700, exist_ok=True)
    Rows.create(directory, fill, aside=kept)
    if unreadable:
        with disk.boundary():
            os.makedirs(directory / UNREADABLE, mode=0o700, exist_ok=True)
            for name in unreadable:
                disk.rename(spool.directory / name, directory / UNREADABLE / name)
    return Rebuilt(len(found), tuple(unreadable), kept, tokens is None)


def _read_old(path: Path, statement: str) -> list[tuple[object, ...]] | None:
    """Rows of a table of the old rows; None if it cannot be read."""
    with contextlib.suppress(apsw.Error):
        connection = apsw.Connection(str(path.resolve()), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            return connection.execute(statement).fetchall()
        finally:
            connection.close(True)
    return None
