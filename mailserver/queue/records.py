"""Values of rows: messages and recipients from the columns that `statements` names."""

from __future__ import annotations

from typing import Final, cast

from mailserver.queue.model import Envelope, Kind, Message, Recipient, State, Target
from mailserver.queue.rows import Row

RECIPIENT_WIDTH: Final = 15
"""Columns of a recipient; those of its message follow."""


def message_of(row: Row) -> Message:
    """A message from MESSAGE_COLUMNS."""
    id_, name, start, size, expires, sender, received, eight_bit, utf8, *texts = row
    envid, ret, user, source, session, message_id, parent = (str(each) for each in texts)
    envelope = Envelope(
        str(sender),
        _number(received),
        bool(eight_bit),
        bool(utf8),
        envid,
        ret,
        user,
        source,
        session,
        message_id,
        parent,
    )
    return Message(_number(id_), str(name), _number(start), _number(size), _number(expires), envelope)


def recipient_of(row: Row) -> Recipient:
    """A recipient from RECIPIENT_COLUMNS."""
    (
        id_,
        message,
        address,
        destination,
        kind,
        sender,
        orcpt,
        notify,
        backscatter,
        state,
        due,
        tries,
        notice,
        hop,
        reply,
    ) = row
    target = Target(
        str(address),
        str(destination),
        cast("Kind", kind),
        None if sender is None else str(sender),
        str(orcpt),
        str(notify),
        bool(backscatter),
    )
    return Recipient(
        _number(id_),
        _number(message),
        target,
        cast("State", state),
        _number(due),
        _number(tries),
        None if notice is None else _number(notice),
        str(hop),
        str(reply),
    )


def _number(value: object) -> int:
    return int(cast("int", value))
