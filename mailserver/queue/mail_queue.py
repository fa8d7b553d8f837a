"""The queue of one process: spool files and rows behind the interface of sessions.

It is opened behind the process's fork. Its owner, the process that sends, opens a `work.QueueWork` on it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import apsw

from mailserver.errors import NoSpace
from mailserver.queue import disk, statements
from mailserver.queue.acceptance import Acceptor
from mailserver.queue.commit_lock import WAITS, CommitLock
from mailserver.queue.interfaces import Content, Spooled
from mailserver.queue.model import Envelope, QueueDamaged, Settings, Target
from mailserver.queue.rows import FILE_NAME, Rows
from mailserver.queue.spool import Spool
from mailserver.queue.tokens import made_at

SPOOL: Final = "msg"
LOCK: Final = "commit.lock"
ASKING: Final = 1.0
"""Seconds for which the lock is waited for to refuse or forget a token: who asks holds an account's lock, and asks again later."""


class MailQueue:
    """Implements `interfaces.Acceptances`."""

    def __init__(
        self, directory: Path, settings: Settings, *, clock: Callable[[], float] = time.time, waits: float = WAITS
    ) -> None:
        """Open the queue of a directory that exists, and make it if nothing is there yet.

        `waits`: seconds for which its lock is waited for. Raises: QueueDamaged if rows are damaged, or are missing beside spool
        files; QueueTooNew, QueueBusy, NoSpace, StorageFailure.
        """
        self.directory = directory
        self.settings = settings
        self.clock = clock
        self.lock = CommitLock(directory / LOCK)
        try:
            self.spool = Spool(directory / SPOOL)
            if not (directory / FILE_NAME).exists():
                self._create(waits)
            self.rows = Rows(directory, self.lock, waits=waits)
        except BaseException:
            self.lock.close()
            raise
        self._acceptor = Acceptor(self.spool, self.rows, settings, clock)

    def _create(self, waits: float) -> None:
        with self.lock.held(waits):
            if (self.directory / FILE_NAME).exists():
                return
            with disk.boundary():
                os.makedirs(self.spool.directory, mode=0o700, exist_ok=True)
                disk.sync_directory(self.directory)
            if next(self.spool.names(), None) is not None:
                raise QueueDamaged from FileNotFoundError(
                    errno.ENOENT,
                    "there are messages and no rows",
                    str(self.directory / FILE_NAME),
                )
            # Tokens that are older stand in a table that was here before, or elsewhere.
            until = int(self.clock())

            def fill(connection: apsw.Connection) -> None:
                connection.execute(statements.SET_TOKENS_LOST, {"until": until})

            Rows.create(self.directory, fill)

    def check_space(self, size: int) -> None:
        """See Acceptances."""
        with disk.boundary():
            status = os.statvfs(self.spool.directory)
        if status.f_bavail * status.f_frsize < size + self.settings.minimum_free:
            raise NoSpace

    def write(self, envelope: Envelope, targets: Sequence[Target], content: Content) -> Spooled:
        """See Acceptances."""
        return self.spool.write(envelope, targets, content)

    def discard(self, spooled: Spooled) -> None:
        """See Acceptances."""
        if spooled.name not in self._acceptor.doubtful:
            self.spool.remove(spooled.name)

    def accept(self, spooled: Sequence[Spooled], token: str = "", *, sent: Sequence[tuple[str, int]] = ()) -> None:
        """See Acceptances."""
        self._acceptor.accept(spooled, token, sent)

    def sent(self, user: str, since: int) -> int:
        """See Acceptances."""
        [(count,)] = self.rows.read(statements.SENT, user=user, hour=since - since % 3600)
        return int(count or 0)

    def decided(self, token: str) -> bool:
        """See Decisions."""
        if rows := self.rows.read(statements.DECISION, token=token):
            return rows[0][0] == 1

        def refuse(connection: apsw.Connection) -> bool:
            if found := connection.execute(statements.DECISION, {"token": token}).fetchall():
                return bool(found[0][0] == 1)
            now = int(self.clock())
            # Rather a copy of what was not accepted than the loss of one that was.
            made = made_at(token)
            oldest = now if made is None else min(now, made)
            accepted = bool(oldest < connection.execute(statements.TOKENS_LOST).get)
            connection.execute(statements.DECIDE, {"token": token, "accepted": int(accepted), "at": now})
            return accepted

        return self.rows.write(refuse, waits=ASKING)

    def forget(self, tokens: Sequence[str]) -> None:
        """See Decisions. A refused token stays refused, as its session may only be slow."""
        if tokens:
            self.rows.write(
                lambda connection: connection.executemany(statements.FORGET, [{"token": each} for each in tokens]),
                durable=False,
                # Nothing depends on it: who forgets is about to answer a client.
                waits=ASKING,
            )

    def close(self) -> None:
        """Close rows and lock."""
        self.rows.close()
        self.lock.close()
