"""FETCH EMAILID and THREADID (RFC 8474 5.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mailserver.imap.fetch.plan import Item, Need
from mailserver.imap.object_ids import EMAIL_PREFIX
from mailserver.store.interfaces import Mailbox
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID


def _email_ids(mailbox: Mailbox, uids: Sequence[UID], _time_slice: TimeSlice) -> Mapping[UID, bytes]:
    return {
        uid: f"({EMAIL_PREFIX}{email_id})".encode("ascii") for uid, email_id in mailbox.email_ids(uids).items()
    }  # fmt: skip


def _no_thread_ids(_mailbox: Mailbox, uids: Sequence[UID], _time_slice: TimeSlice) -> Mapping[UID, bytes]:
    """Return NIL for all: 5.2 has it where threads are not kept."""
    return dict.fromkeys(uids, b"NIL")


EMAIL_ID: Final = Item(b"EMAILID", Need.LOOKUP, look_up=_email_ids)
THREAD_ID: Final = Item(b"THREADID", Need.LOOKUP, look_up=_no_thread_ids)
