"""Rows of a new message, within the caller's transaction."""

from __future__ import annotations

import apsw
import attrs

from mailserver.queue import schedule, statements
from mailserver.queue.interfaces import Spooled
from mailserver.queue.model import Settings


def insert(connection: apsw.Connection, spooled: Spooled, settings: Settings, now: int) -> None:
    """Insert a message whose recipients are due at once. Raises: apsw.Error."""
    envelope = spooled.envelope
    expires = schedule.expires_at(settings, envelope)
    values = attrs.asdict(envelope)
    values |= {"name": spooled.name, "start": spooled.start, "size": spooled.size, "expires": expires}
    values |= {"eight_bit": int(envelope.eight_bit), "utf8": int(envelope.utf8)}
    message = connection.execute(statements.ADD_MESSAGE, values).get
    for target in spooled.targets:
        notice = schedule.notice_at(settings, envelope, target)
        values = attrs.asdict(target)
        values |= {"message": message, "backscatter": int(target.backscatter), "due": now, "notice": notice}
        values |= {"wake": expires if notice is None else min(notice, expires)}
        connection.execute(statements.ADD_RECIPIENT, values)
    for destination in {target.destination for target in spooled.targets}:
        connection.execute(statements.NEW_WAITING, {"destination": destination, "due": now})
