"""The differences between a mailbox's directories and the index, at little cost if there are few."""

from __future__ import annotations

from mailserver.store.index.database import Index
from mailserver.store.index.records import Entry
from mailserver.store.maildir.format.filename import base_of
from mailserver.store.maildir.sync import scan

FEW = 1000
"""So many differing messages are looked up one by one."""


def differences(
    index: Index, key: int, new: scan.DirectoryScan, cur: scan.DirectoryScan | None, *, look_at_all: bool
) -> tuple[dict[str, scan.Found], dict[str, Entry]]:
    """Return files and entries by base: all of them, or only those that differ if they are few.

    `cur` is None if cur/ has not changed.
    """
    cur_names = cur.names if cur is not None else []
    if not look_at_all:
        differing = index.messages.file_names(key, 0).symmetric_difference(new.names)
        if cur is not None:
            differing |= index.messages.file_names(key, 1).symmetric_difference(cur.names)
        bases = {base_of(name) for name in differing}
        if len(bases) <= FEW:
            messages, _duplicates = scan.classify(
                [name for name in new.names if base_of(name) in bases] if bases else (),
                [name for name in cur_names if base_of(name) in bases] if bases else (),
            )
            found = (index.messages.by_base(key, base) for base in bases)
            known = {entry.base: entry for entry in found if entry is not None}
        else:
            messages, _duplicates = scan.classify(new.names, cur_names)
            known = {entry.base: entry for entry in index.messages.entries(key)}
    else:
        messages, _duplicates = scan.classify(new.names, cur_names)
        known = {entry.base: entry for entry in index.messages.entries(key)} if key else {}
    if cur is None:
        # Files in cur/ have not changed; one in new/ with the same base is a duplicate.
        in_cur = {base for base, entry in known.items() if entry.place}
        messages = {base: found for base, found in messages.items() if base not in in_cur}
        known = {base: entry for base, entry in known.items() if base not in in_cur}
    return messages, known
