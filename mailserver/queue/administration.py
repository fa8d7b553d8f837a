"""What an administrator sees and changes, on the rows themselves: the server may run or not.

Changes are made in transactions of a bounded size, so that acceptances go on beside them. A recipient that is being tried may
be held or dropped: its result is then recorded for what is left of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import apsw
from attrs import frozen

from mailserver.queue import destinations, selection, statements
from mailserver.queue.mail_queue import MailQueue
from mailserver.queue.model import Hop, Message, NotInQueue, Recipient
from mailserver.queue.records import message_of, recipient_of
from mailserver.queue.rows import Row
from mailserver.queue.selection import Selection

AT_ONCE: Final = 500
"""Recipients that one transaction changes."""
_log = logging.getLogger(__name__)


@frozen
class Queued:
    """A message with its recipients that are left."""

    message: Message
    recipients: tuple[Recipient, ...]


@frozen
class DestinationCount:
    """What waits for one destination."""

    destination: str
    recipients: int
    held: int
    oldest: int
    """When the first of these messages was received."""
    hop: Hop | None
    """None: it can be reached, as far as is known."""


@frozen
class Statistics:
    """The size of the queue."""

    messages: int
    recipients: int
    held: int
    octets: int
    oldest: int | None
    """When the first message was received; None: the queue is empty."""
    destinations: tuple[DestinationCount, ...]
    """Those with most recipients."""


class Administration:
    """The queue for commands. Each call may raise QueueBusy, QueueDamaged, StorageFailure, and changes also NoSpace."""

    def __init__(self, queue: MailQueue) -> None:
        self._queue = queue
        self._rows = queue.rows

    # --- looking

    def list(self, wanted: Selection = Selection(), *, after: int = 0, limit: int = 100) -> Sequence[Queued]:  # noqa: B008 - frozen
        """Return a page of messages with all their recipients, in the order of acceptance.

        `after`: the id of the last message of the page before.
        """
        with self._rows.reading() as connection:
            found = connection.execute(selection.MESSAGES, wanted.values | {"after": after, "count": limit}).fetchall()
            return [_queued(connection, row[0]) for row in found]

    def show(self, name: str) -> Queued:
        """Return a message by its spool name. Raises: NotInQueue."""
        found = self.list(Selection(name=name), limit=1)
        if not found:
            raise NotInQueue
        return found[0]

    def statistics(self, limit: int = 20) -> Statistics:
        """Count everything, and the destinations with most recipients."""
        with self._rows.reading() as connection:
            size: Any = connection.execute(statements.SIZE).fetchall()
            recipients: Any = connection.execute(statements.RECIPIENTS).fetchall()
            counts: Any = connection.execute(statements.BY_DESTINATION, {"count": limit}).fetchall()
            [(messages, octets, oldest)], [(number, held)] = size, recipients
            by_destination = tuple(_destination_count(connection, *row) for row in counts)
        return Statistics(messages, number, held, octets, oldest, by_destination)

    # --- changing

    def hold(self, wanted: Selection) -> int:
        """Keep recipients from being tried, until they are released. Return their number."""
        return self._change(wanted, statements.HOLD)

    def release(self, wanted: Selection) -> int:
        """Let held recipients be tried at once. Return their number."""
        return self._change(wanted, statements.RELEASE)

    def retry(self, wanted: Selection) -> int:
        """Let waiting recipients be tried at once, also where their destination could not be reached. Return their number."""
        return self._change(wanted, statements.RETRY, destinations.contact_now)

    def drop(self, wanted: Selection) -> int:
        """Remove recipients without a report. Return their number. The files of finished messages go, too."""
        count = self._change(wanted, statements.DROP)
        if count:
            _log.warning("%d recipients were dropped from the mail queue: %s", count, _words(wanted))
        return count

    def _change(
        self,
        wanted: Selection,
        statement: str,
        destination_too: Callable[[apsw.Connection, str], None] = destinations.refresh,
    ) -> int:
        query = selection.RECIPIENTS if wanted.name is None else selection.OF_MESSAGE
        values = wanted.values | {"now": int(self._queue.clock())}
        changed, after = 0, 0
        while True:
            page = self._rows.read(query, **wanted.values, after=after, count=AT_ONCE)
            if not page:
                return changed
            after = int(page[-1][0] or 0)

            def body(connection: apsw.Connection, page: Sequence[Row] = page) -> tuple[int, list[str]]:
                touched: set[str] = set()
                count = 0
                for id_, _message, destination in page:
                    connection.execute(statement, {"id": id_, "now": values["now"]})
                    if connection.changes():
                        count += 1
                        touched.add(str(destination))
                for destination in touched:
                    destination_too(connection, destination)
                finished: list[str] = []
                if statement == statements.DROP:
                    for message in {row[1] for row in page}:
                        rows = connection.execute(statements.REMOVE_FINISHED, {"id": message})
                        finished += (str(row[0]) for row in rows)
                return count, finished

            count, finished = self._rows.write(body)
            changed += count
            # The transaction was a durable one: no power cut brings these rows back.
            for name in finished:
                self._queue.spool.remove(name)


def _queued(connection: apsw.Connection, message: Any) -> Queued:
    values = {"id": message}
    messages: Any = connection.execute(statements.MESSAGE, values).fetchall()
    rows: Any = connection.execute(statements.RECIPIENTS_OF, values).fetchall()
    return Queued(message_of(messages[0]), tuple(recipient_of(each) for each in rows))


def _destination_count(
    connection: apsw.Connection, destination: str, recipients: int, held: int, oldest: int
) -> DestinationCount:
    hop = destinations.hop_of(connection, destination)
    return DestinationCount(destination, recipients, held, oldest, hop if hop.failures else None)


def _words(wanted: Selection) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in wanted.values.items() if value is not None) or "all"
