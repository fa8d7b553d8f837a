"""FETCH PREVIEW (RFC 8970): a message's text in 200 characters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from mailserver.errors import BadSyntax
from mailserver.imap.capabilities import Capability
from mailserver.imap.fetch.plan import Item, Need
from mailserver.imap.wire import writer
from mailserver.imap.wire.reader import Reader
from mailserver.store.interfaces import Mailbox
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID

PREVIEW: Final = Capability("PREVIEW", "RFC 8970", __name__, "preview")


def _previews(mailbox: Mailbox, uids: Sequence[UID], time_slice: TimeSlice) -> Mapping[UID, bytes]:
    return _values(mailbox.previews(uids, time_slice=time_slice))


def _kept_previews(mailbox: Mailbox, uids: Sequence[UID], time_slice: TimeSlice) -> Mapping[UID, bytes]:
    return _values(mailbox.previews(uids, only_kept=True, time_slice=time_slice))


def _values(texts: Mapping[UID, str | None]) -> Mapping[UID, bytes]:
    return {uid: writer.nstring(None if text is None else text.encode("utf-8")) for uid, text in texts.items()}


PREVIEW_ITEM: Final = Item(b"PREVIEW", Need.LOOKUP, look_up=_previews)
_LAZY: Final = re.compile(rb" \(LAZY[ )]", re.IGNORECASE)
_LAZY_ITEM: Final = Item(b"PREVIEW", Need.LOOKUP, look_up=_kept_previews)


def read_preview(reader: Reader) -> Item:
    """The item, from behind `PREVIEW`: `[SP "(" preview-mod *(SP preview-mod) ")"]`. Raises: BadSyntax.

    As the only preview-mod is LAZY, other parentheses are modifiers of FETCH: `FETCH 1 PREVIEW (CHANGEDSINCE 7)`.
    """
    if not reader.matches(_LAZY):
        return PREVIEW_ITEM
    reader.take(b" (")
    while True:
        if reader.read_word() != "LAZY":
            raise BadSyntax("unknown modifier of PREVIEW")
        if reader.skip(b")"):
            return _LAZY_ITEM
        reader.read_sp()
