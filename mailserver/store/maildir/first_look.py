"""The first look at a Maildir whose messages have no UIDs yet, as when mail of another server moves in.

There may be hundreds of thousands of messages and the client waits, so each costs one tuple and no object. What is out
of the ordinary (a base twice, names without a time) is left to `reconcile`, which does it all, at leisure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailserver.store.index.records import Facts
from mailserver.store.maildir.filename import flags_mask, letters_of_info

_OF_THIS_AGE = re.compile("[0-9]{10}(?![0-9])", re.ASCII)
"""Where all begin with as many digits, the order of the texts is that of the seconds."""


def first_look(new_names: Sequence[str], cur_names: Sequence[str], first_uid: int, modseq: int) -> list[Facts] | None:
    """The entries to be, with UIDs in the order of delivery; None if these names need a closer look."""
    names = [*cur_names, *new_names]
    match = _OF_THIS_AGE.match
    for name in names:
        if match(name) is None:
            return None
    names.sort()
    in_new = set(new_names)
    masks: dict[str, int] = {}
    bases = set()
    entries: list[Facts] = []
    for uid, name in enumerate(names, first_uid):
        base, colon, info = name.partition(":")
        suffix = colon + info
        mask = masks.get(suffix)
        if mask is None:
            mask = masks[suffix] = flags_mask(letters_of_info(info)) if colon else 0
        bases.add(base)
        entries.append((uid, modseq, mask, None, None, base, suffix, 0 if name in in_new else 1))
    return entries if len(bases) == len(entries) else None
