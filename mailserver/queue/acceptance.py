"""Group commit: acceptances that meet in one process share one sync of the names and one transaction.

Whoever comes first commits for all that wait, in its own thread; those that come meanwhile form the next group. A file is
looked at under the lock, as a sweep may have removed it while its session hung.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import apsw
from attrs import define, field

from mailserver.errors import MailError, StorageFailure
from mailserver.queue import disk, insertion, statements
from mailserver.queue.commit_lock import WAITS
from mailserver.queue.interfaces import Spooled
from mailserver.queue.model import QueueBusy, Settings, TokenRefused
from mailserver.queue.rows import Rows
from mailserver.queue.spool import Spool


@define(eq=False)
class _Acceptance:
    """What one caller wants, and what became of it."""

    spooled: Sequence[Spooled]
    token: str
    sent: Sequence[tuple[str, int]]
    done: threading.Event = field(factory=threading.Event)
    error: Exception | None = None


class Acceptor:
    """Commits acceptances of all threads of a process."""

    def __init__(self, spool: Spool, rows: Rows, settings: Settings, clock: Callable[[], float]) -> None:
        self._spool = spool
        self._rows = rows
        self._settings = settings
        self._clock = clock
        self._waiting: list[_Acceptance] = []
        self._mutex = threading.Lock()
        """For `_waiting`."""
        self._committing = threading.Lock()
        self.doubtful: set[str] = set()
        """Files whose commit failed at the disk: a crash may still bring their rows back, so they are left to a sweep."""

    def accept(self, spooled: Sequence[Spooled], token: str, sent: Sequence[tuple[str, int]]) -> None:
        """See Acceptances."""
        acceptance = _Acceptance(spooled, token, sent)
        with self._mutex:
            self._waiting.append(acceptance)
        if self._committing.acquire(timeout=WAITS):
            try:
                if not acceptance.done.is_set():
                    self._commit()
            finally:
                self._committing.release()
        else:
            with self._mutex:
                withdrawn = acceptance in self._waiting
                if withdrawn:
                    self._waiting.remove(acceptance)
            if withdrawn:
                raise QueueBusy
            acceptance.done.wait()
        if acceptance.error is not None:
            raise acceptance.error

    def _commit(self) -> None:
        """Commit all that wait."""
        with self._mutex:
            group, self._waiting = self._waiting, []
        try:
            if any(each.spooled for each in group):
                self._spool.sync_names()
                disk.point("accept.names-synced")
            self._rows.write(lambda connection: self._insert(connection, group))
        except BaseException as error:
            if isinstance(error.__cause__, apsw.IOError):
                self.doubtful.update(each.name for one in group for each in one.spooled)
            for each in group:
                each.error = _another(error)
            if not isinstance(error, Exception):
                raise
        finally:
            for each in group:
                each.done.set()

    def _insert(self, connection: apsw.Connection, group: Sequence[_Acceptance]) -> None:
        for each in group:
            each.error = None
            connection.execute("SAVEPOINT one")
            try:
                self._insert_one(connection, each)
            except (MailError, apsw.ConstraintError) as error:
                each.error = error if isinstance(error, MailError) else _caused(error)
                connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")

    def _insert_one(self, connection: apsw.Connection, acceptance: _Acceptance) -> None:
        now = int(self._clock())
        if acceptance.token:
            if connection.execute(statements.DECISION, {"token": acceptance.token}).fetchall():
                raise TokenRefused
            connection.execute(statements.DECIDE, {"token": acceptance.token, "accepted": 1, "at": now})
        for spooled in acceptance.spooled:
            self._spool.expect(spooled.name, spooled.start + spooled.size)
            insertion.insert(connection, spooled, self._settings, now)
        for user, count in acceptance.sent:
            hour = now - now % 3600
            connection.execute(statements.ADD_SENT, {"user": user, "hour": hour, "recipients": count})


def _another(error: BaseException) -> Exception:
    """An error of its own for each thread, as an exception is raised once."""
    other = type(error)(*error.args) if isinstance(error, MailError) else _caused(error)
    other.__cause__ = error.__cause__ or other.__cause__
    return other


def _caused(error: BaseException) -> MailError:
    failure = StorageFailure("the mail queue is not available")
    failure.__cause__ = error
    return failure
