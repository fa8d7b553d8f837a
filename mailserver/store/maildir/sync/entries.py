"""Index entries made from the files of a Maildir, and the UIDs of new messages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from mailserver.errors import LimitReached
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.maildir.format import keywords, uidlist_format
from mailserver.store.maildir.format.filename import MaildirName, info_mask
from mailserver.store.maildir.format.paths import MailboxPaths
from mailserver.store.maildir.sync import scan
from mailserver.store.name_sizes import claimed_size
from mailserver.types import UID, UNKNOWN_SIZE, ModSeq

_DELIVERED = re.compile("[0-9]{1,18}", re.ASCII)


def read_keywords(paths: MailboxPaths, state: MailboxState) -> bool:
    """Read changed keyword files. Return whether the names changed."""
    signature = keywords.signature(paths.keywords, paths.further_keywords)
    if signature == state.keywords_signature:
        return False
    names = keywords.read(paths.keywords, paths.further_keywords).names
    state.keywords_signature = signature
    if names == state.keywords:
        return False
    state.keywords = names
    return True


def next_uids(state: MailboxState, count: int) -> list[UID]:
    """Return the next of its 2**32 - 2 UIDs, none of which is used twice. The state stays as it is. Raises:
    LimitReached.
    """
    if state.uid_next + count - 1 > uidlist_format.HIGHEST_UID:
        raise LimitReached("the mailbox has no UIDs left")
    return [UID(uid) for uid in range(state.uid_next, state.uid_next + count)]


def fresh_entries(messages: Iterable[tuple[UID, str, scan.Found]], modseq: ModSeq) -> list[Entry]:
    """Make entries of (uid, base, where) that are new to the index, with the sizes that their names claim."""
    masks = {"": 0}
    make = tuple.__new__
    entries = []
    for uid, base, (place, name) in messages:
        suffix = name[len(base) :]
        mask = masks.get(suffix)
        if mask is None:
            mask = masks[suffix] = info_mask(suffix[1:])
        size: int | None = claimed_size(os.fsencode(base))
        if size == UNKNOWN_SIZE:
            size = None
        entries.append(make(Entry, (uid, modseq, mask, size, None, base, suffix, int(place == "cur"))))
    return entries


def moved_entry(entry: Entry, found: scan.Found, modseq: ModSeq) -> Entry:
    """Make the entry of the same message under another name. It has changed only if its flags did."""
    mask = MaildirName.parse(found.name).mask
    return entry._replace(
        modseq=entry.modseq if mask == entry.flags else modseq,
        flags=mask,
        suffix=found.name[len(entry.base) :],
        place=int(found.place == "cur"),
    )


def sort_by_delivery(pending: list[tuple[str, scan.Found]]) -> None:
    """Sort by the seconds at the beginning of a Maildir name, then by name."""
    pending.sort(key=lambda pair: _delivery_order(pair[0]))


def _delivery_order(base: str) -> tuple[int, str]:
    seconds = _DELIVERED.match(base)
    return int(seconds[0]) if seconds else 0, base
