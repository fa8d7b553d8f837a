"""FETCH SAVEDATE (RFC 8514 4.2): the time at which a message came into its mailbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mailserver.imap.capabilities import Capability
from mailserver.imap.fetch.plan import Item, Need
from mailserver.imap.wire import writer
from mailserver.store.interfaces import Mailbox
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID

SAVEDATE: Final = Capability("SAVEDATE", "RFC 8514", __name__, "savedate")


def _save_dates(mailbox: Mailbox, uids: Sequence[UID], _time_slice: TimeSlice) -> Mapping[UID, bytes]:
    return {uid: writer.date_time(date) for uid, date in mailbox.save_dates(uids).items()}


SAVE_DATE: Final = Item(b"SAVEDATE", Need.LOOKUP, look_up=_save_dates)
