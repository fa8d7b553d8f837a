"""Delivery reports as messages of the queue: their files are written before the transaction that adds their rows."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from typing import Final

from attrs import frozen

from mailserver.errors import BadSyntax, MailError
from mailserver.queue import report
from mailserver.queue.changes import Pending
from mailserver.queue.interfaces import Content, Spooled
from mailserver.queue.model import Envelope, Message, Settings, Target
from mailserver.queue.spool import Spool

ReportTarget = Callable[[str], Target]
"""Returns where a report to an address leads. Does not block. Raises: MailError if it leads nowhere."""
_HEADER: Final = 2 * report.MAX_HEADER
_log = logging.getLogger(__name__)


@frozen
class ReportWriter:
    """Writes the files of reports."""

    spool: Spool
    settings: Settings
    target: ReportTarget

    def write(self, pending: Pending, now: int) -> Spooled | None:
        """Write and sync the file of a report; None if it leads nowhere. Raises: NoSpace, StorageFailure."""
        message = pending.message
        sender = message.envelope.sender
        try:
            target = self.target(sender)
            target.check()
        except MailError as error:
            _log.warning("message %s: a report to <%s> leads nowhere: %s", message.name, sender, error.reason)
            return None
        whole = report.returns_whole(pending.action, message.envelope, message.size)
        content = self._read(message, message.size if whole else min(message.size, _HEADER))
        whole = whole and len(content) == message.size
        subject = report.Subject(message.envelope, message.name, message.expires, content, whole)
        unique = f"{now:x}.{secrets.token_hex(8)}"
        hostname = self.settings.hostname
        octets = report.compose(pending.action, subject, pending.recipients, hostname=hostname, now=now, unique=unique)
        envelope = Envelope(
            "",
            now,
            eight_bit=not octets.isascii(),
            utf8=message.envelope.utf8,
            session=message.envelope.session,
            message_id=f"<{unique}@{hostname}>",
            parent=message.name,
        )
        try:
            return self.spool.write(envelope, (target,), Content(octets))
        except BadSyntax as error:
            _log.warning("message %s: no report can be sent to <%s>: %s", message.name, sender, error.reason)
            return None

    def _read(self, message: Message, count: int) -> bytes:
        """The start of the message; without its file, a report goes without it."""
        try:
            fd = self.spool.open(message)
            try:
                return os.pread(fd, count, message.start)
            finally:
                os.close(fd)
        except (MailError, OSError) as error:
            _log.warning("message %s cannot be read for a report: %s", message.name, error)
            return b""
