"""The side of the queue's process: what is due, the results of tries, reports, and the end of finished messages."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Final, cast

import apsw

from mailserver.queue import destinations, disk, insertion, owner, statements
from mailserver.queue.changes import Changes
from mailserver.queue.interfaces import Spooled, Try
from mailserver.queue.mail_queue import MailQueue
from mailserver.queue.model import Hop, Message, QueueBusy, Recipient, TokenRefused
from mailserver.queue.outcome import Outcome
from mailserver.queue.records import RECIPIENT_WIDTH, message_of, recipient_of
from mailserver.queue.report_files import ReportTarget, ReportWriter
from mailserver.queue.rows import Row
from mailserver.queue.sweep import sweep

TAKE_AT_MOST: Final = 1000
"""Recipients of one `take`."""
OVERDUE_AT_ONCE: Final = 200
"""Recipients whose notice or expiry is handled in one transaction."""
_TRIES: Final = 10
"""Attempts at a transaction whose rows a command changes meanwhile."""

Plan = Callable[[apsw.Connection], Changes]
_log = logging.getLogger(__name__)


class QueueWork:
    """Implements `interfaces.Work`. Holds `owner.lock` until it is closed, or its process ends."""

    def __init__(self, queue: MailQueue, report_target: ReportTarget) -> None:
        """Raises: QueueBusy if another process is at work, StorageFailure."""
        self._queue = queue
        self._rows = queue.rows
        self._spool = queue.spool
        self._settings = queue.settings
        self._reports = ReportWriter(queue.spool, queue.settings, report_target)
        self._finished: set[str] = set()
        self._mutex = threading.Lock()
        """For `_finished`."""
        self._owner = owner.acquire(queue.directory)

    def close(self) -> None:
        """Let another process work; the caller has synced before."""
        os.close(self._owner)

    # --- what is due

    def changed(self) -> bool:
        """See Work."""
        return self._rows.changed()

    def due(self, now: int, limit: int, besides: Collection[str] = ()) -> Sequence[str]:
        """See Work."""
        rows = self._rows.read(statements.DUE, now=now, count=limit + len(besides))
        return [str(row[0]) for row in rows if row[0] not in besides][:limit]

    def next_due(self, besides: Collection[str] = ()) -> int | None:
        """See Work."""
        for destination, ready in self._rows.read(statements.NEXT_DUE, count=1 + len(besides)):
            if destination not in besides:
                return int(ready or 0)
        return None

    def take(self, destination: str, now: int, limit: int, besides: Collection[int] = ()) -> Sequence[Try]:
        """See Work."""
        found: dict[int, tuple[Message, list[Recipient]]] = {}
        count = 0
        with self._rows.reading() as connection:
            cursor = connection.execute(statements.TAKE, {"destination": destination, "now": now})
            for row in cursor:
                if row[0] in besides:
                    continue
                recipient = recipient_of(row[:RECIPIENT_WIDTH])
                if recipient.message not in found:
                    if len(found) >= limit:
                        break
                    found[recipient.message] = message_of(row[RECIPIENT_WIDTH:]), []
                found[recipient.message][1].append(recipient)
                count += 1
                if count >= TAKE_AT_MOST:
                    break
            cursor.close(True)
        return [Try(message, tuple(recipients)) for message, recipients in found.values()]

    def open(self, message: Message) -> int:
        """See Work."""
        return self._spool.open(message)

    def hops(self) -> Sequence[Hop]:
        """See Work."""
        return [
            Hop(str(destination), int(until or 0), int(failures or 0), str(reply))
            for destination, until, failures, reply in self._rows.read(statements.HOPS)
        ]

    # --- results

    def results(self, results: Sequence[tuple[Recipient, Outcome]], now: int, *, token: str = "") -> Sequence[Spooled]:
        """See Work."""

        def plan(connection: apsw.Connection) -> Changes:
            changes = Changes()
            seen = set()
            for recipient, outcome in results:
                row = _find(connection, recipient.id)
                # Without a row it was dropped by a command.
                if row is not None and recipient.id not in seen:
                    seen.add(recipient.id)
                    changes.add(message_of(row[RECIPIENT_WIDTH:]), recipient_of(row[:RECIPIENT_WIDTH]), outcome, self._settings, now)  # fmt: skip
                elif outcome.result == "hop_failed":
                    changes.destinations[recipient.target.destination] = outcome.diagnostic or "no connection"
            return changes

        return self._carry_out(plan, now, token)

    def overdue(self, now: int, besides: Collection[int] = ()) -> Sequence[Spooled]:
        """See Work."""
        reports: list[Spooled] = []
        for (destination,) in self._rows.read(statements.DEAD, now=now):
            more = True
            while more:
                more = False

                def plan(connection: apsw.Connection, destination: str = str(destination)) -> Changes:
                    nonlocal more
                    changes = Changes()
                    hop = destinations.hop_of(connection, destination)
                    cursor = connection.execute(statements.OVERDUE, {"destination": destination, "now": now})
                    for row in cursor if hop.until > now else ():
                        if row[0] in besides:
                            continue
                        if len(changes.rows) == OVERDUE_AT_ONCE:
                            more = True
                            break
                        message = message_of(row[RECIPIENT_WIDTH:])
                        changes.add_overdue(message, recipient_of(row[:RECIPIENT_WIDTH]), hop.reply, now)
                    cursor.close(True)
                    return changes

                reports += self._carry_out(plan, now, "")
        return reports

    def _carry_out(self, plan: Plan, now: int, token: str) -> Sequence[Spooled]:
        """Plan, write the reports, and commit if the rows are still those of the plan; else all again."""
        for _attempt in range(_TRIES):
            with self._rows.reading() as connection:
                changes = plan(connection)
            if not changes.rows and not changes.destinations and not token:
                return []
            written = self._write_reports(changes, now)
            try:
                names = self._rows.write(
                    lambda connection, changes=changes, written=written: self._commit(connection, changes, written, now, token),  # type: ignore[misc]
                    durable=False,
                )  # fmt: skip
            except BaseException as error:
                if not isinstance(error.__cause__, apsw.IOError):
                    self._discard(written)
                raise
            if names is None:
                self._discard(written)
                continue
            with self._mutex:
                self._finished.update(names)
            for message, recipient, outcome, reported in changes.failures:
                _log.info(
                    "message %s from <%s> for <%s> failed, %s: %s",
                    message.name,
                    message.envelope.sender,
                    recipient.target.address,
                    "which is reported" if reported else "without a report",
                    outcome.diagnostic,
                )
            return written
        raise QueueBusy

    def _write_reports(self, changes: Changes, now: int) -> list[Spooled]:
        written: list[Spooled] = []
        try:
            for pending in changes.reports():
                spooled = self._reports.write(pending, now)
                if spooled is not None:
                    written.append(spooled)
            if written:
                self._spool.sync_names()
        except BaseException:
            self._discard(written)
            raise
        return written

    def _discard(self, written: Sequence[Spooled]) -> None:
        for each in written:
            self._spool.remove(each.name)

    def _commit(
        self, connection: apsw.Connection, changes: Changes, reports: Sequence[Spooled], now: int, token: str
    ) -> list[str] | None:
        """Write the rows. Return the files of messages that are finished; None if the plan is out of date."""
        for recipient in changes.rows:
            row = _find(connection, recipient.id)
            if row is None or recipient_of(row[:RECIPIENT_WIDTH]) != recipient:
                return None
        if token:
            if connection.execute(statements.DECISION, {"token": token}).fetchall():
                raise TokenRefused
            connection.execute(statements.DECIDE, {"token": token, "accepted": 1, "at": now})
        for each in reports:
            insertion.insert(connection, each, self._settings, now)
        connection.executemany(statements.REMOVE_RECIPIENT, [{"id": each.id} for each in changes.gone])
        for recipient, expires in changes.waiting:
            notice = recipient.notice
            connection.execute(
                statements.UPDATE_RECIPIENT,
                {
                    "id": recipient.id,
                    "due": recipient.due,
                    "tries": recipient.tries,
                    "notice": notice,
                    "wake": expires if notice is None else min(notice, expires),
                    "hop": recipient.hop,
                    "reply": recipient.reply,
                },
            )
        finished: list[str] = []
        for message in {each.message for each in changes.gone}:
            finished += (str(row[0]) for row in connection.execute(statements.REMOVE_FINISHED, {"id": message}))
        for destination, reason in changes.destinations.items():
            if reason is None:
                destinations.refresh(connection, destination)
            elif reason:
                destinations.failed(connection, destination, reason, self._settings, now)
            else:
                destinations.reached(connection, destination)
        return finished

    # --- the end of messages

    def sync(self) -> int:
        """See Work."""
        with self._mutex:
            names = list(self._finished)
        self._rows.sync()
        for name in names:
            disk.point("sync.unlink")
            self._spool.remove(name)
        with self._mutex:
            self._finished.difference_update(names)
        return len(names)

    def sweep(self, now: int) -> Sequence[str]:
        """See Work."""
        return sweep(self._spool, self._rows, now)


def _find(connection: apsw.Connection, recipient: int) -> Row | None:
    """The columns of a recipient and its message."""
    rows = cast("list[Row]", connection.execute(statements.RECIPIENT, {"id": recipient}).fetchall())
    return rows[0] if rows else None
