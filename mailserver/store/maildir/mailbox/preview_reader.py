"""Previews (RFC 8970) of the messages of a Maildir: from the index, else from the beginning of the files, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mailserver.cancellation import check
from mailserver.errors import MessageExpunged, StoreUnavailable
from mailserver.message.preview import LARGEST, preview
from mailserver.store.index.database import Index
from mailserver.store.index.records import MailboxState
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.mailbox.contents import Readable
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID

_AT_ONCE: Final = 16
"""Small messages that are read together."""
_BATCH: Final = 100
"""Previews that are made between two commits."""


def kept_previews(home: Home, state: MailboxState, uids: Sequence[UID]) -> dict[UID, str | None]:
    """Return the previews that are kept, of messages (rising) that exist; None for the others."""
    key = state.key
    known = home.read(lambda index: index.previews.get(key, uids))
    return {uid: known.get(uid) for uid in home.read(lambda index: index.messages.present(key, uids))}


def make_previews(
    home: Home, state: MailboxState, messages: Readable, uids: Sequence[UID], time_slice: TimeSlice | None
) -> dict[UID, str | None]:
    """Return previews of messages (rising), made and kept where missing, until the time slice is full.

    Messages that are gone or unreadable are left out.
    """
    found: dict[UID, str | None] = {}
    for start in range(0, len(uids), _BATCH):
        part = uids[start : start + _BATCH]
        known = kept_previews(home, state, part)
        missing = [uid for uid, text in known.items() if text is None]
        made = _make(messages, missing, time_slice)
        _keep(home, state, made)
        known.update(made)
        is_full = time_slice is not None and time_slice.full
        last = max(made, default=0)
        found.update((uid, text) for uid, text in known.items() if text is not None and not (is_full and uid > last))
        if is_full:
            break
    return found


def _make(messages: Readable, uids: Sequence[UID], time_slice: TimeSlice | None) -> dict[UID, str]:
    made: dict[UID, str] = {}
    at = 0
    while at < len(uids):
        read = messages.read_whole(uids[at : at + _AT_ONCE], LARGEST) or _beginning(messages, uids[at])
        for uid, data in read:
            check()
            made[uid] = preview(data)
            if time_slice is not None and time_slice.take(len(made[uid])):
                return made
        at += len(read) or 1
    return made


def _beginning(messages: Readable, uid: UID) -> list[tuple[UID, bytes]]:
    """Read one message that is large, or not at its indexed place; none if that is impossible."""
    try:
        message = messages.open_message(uid)
    except (MessageExpunged, StoreUnavailable):
        return []
    try:
        return [(uid, message.read(0, LARGEST))]
    except StoreUnavailable:
        return []
    finally:
        message.close()


def _keep(home: Home, state: MailboxState, made: dict[UID, str]) -> None:
    """Write to the index, unless it was made anew meanwhile: the key may be another mailbox's."""

    def save(index: Index) -> None:
        if index.mailboxes.has(state.key, state.guid):
            index.previews.put(state.key, made.items())

    if made:
        home.update(save, len(made))
