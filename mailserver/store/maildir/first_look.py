"""The first look at a Maildir whose messages have no UIDs yet, as when mail of another server moves in.

There may be hundreds of thousands of messages and the client waits, so they are columns that calls into C make and pass
on; none of these calls takes more than some thousand messages, as it keeps other threads waiting. What is out of the
ordinary (a base twice, names without a time) is left to `reconcile`, which does it all, at leisure.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from attrs import frozen

from mailserver.store.index.packed_columns import Arrays
from mailserver.store.maildir.filename import flags_mask, letters_of_info
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq

_USUAL: Final = re.compile(rb"^([0-9]{10}(?![0-9])[^:\n]*+)((?::[^\n]*+)?+)$", re.MULTILINE)
"""Base and the rest. Where all names begin with as many digits, the order of the texts is that of the seconds."""
_PART: Final = 2000


@frozen
class FirstLook:
    """The messages of a mailbox in the order of delivery: parallel columns."""

    uids: range
    masks: array[int]
    bases: list[bytes]
    suffixes: list[bytes]
    places: bytes
    """0 in new/, 1 in cur/."""

    def lines(self) -> Iterator[bytes]:
        """The lines of a uidlist."""
        for start in range(0, len(self.uids), _PART):
            pairs = zip(self.uids[start : start + _PART], self.bases[start : start + _PART], strict=True)
            yield b"".join([b"%d :%b\n" % pair for pair in pairs])

    def rows(self) -> Iterator[tuple[int, int, bytes, bytes, int]]:
        """(uid, flags, base, suffix, place)."""
        return zip(self.uids, self.masks, self.bases, self.suffixes, self.places, strict=True)

    def columns(self, modseq: ModSeq) -> Arrays:
        """As the mailbox is loaded."""
        count = len(self.uids)
        modseqs, sizes, dates = array("Q", [modseq]), array("I", [UNKNOWN_SIZE]), array("q", [UNKNOWN_DATE])
        return Arrays(array("I", self.uids), self.masks, modseqs * count, sizes * count, dates * count)

    @property
    def first_recent(self) -> UID:
        """The UID after the last message that some session has seen already: those have left new/."""
        return UID(self.uids.start + self.places.rfind(1) + 1)


class _Masks(dict[bytes, int]):
    """Flags by what follows the base."""

    def __missing__(self, suffix: bytes) -> int:
        mask = flags_mask(letters_of_info(suffix[1:].decode("utf-8", "surrogateescape")))
        self[suffix] = mask
        return mask


def first_look(new_names: Sequence[str], cur_names: Sequence[str], first_uid: int) -> FirstLook | None:
    """The messages with their UIDs to be; None if these names need a closer look."""
    names = [*cur_names, *new_names]
    names.sort()
    in_new = set(new_names)
    masks_of = _Masks()
    known: set[bytes] = set()
    masks = array("I")
    bases: list[bytes] = []
    suffixes: list[bytes] = []
    places: list[bytes] = []
    for start in range(0, len(names), _PART):
        part = names[start : start + _PART]
        text = "\n".join(part).encode("utf-8", "surrogateescape")
        pairs = _USUAL.findall(text)
        if len(pairs) != len(part) or text.count(b"\n") != len(part) - 1:
            return None
        its_bases, its_suffixes = zip(*pairs, strict=True)
        known.update(its_bases)
        bases += its_bases
        suffixes += its_suffixes
        masks.extend(map(masks_of.__getitem__, its_suffixes))
        places.append(bytes([name not in in_new for name in part]) if in_new else b"\1" * len(part))
    if len(known) != len(names) or not names:
        return None
    return FirstLook(range(first_uid, first_uid + len(names)), masks, bases, suffixes, b"".join(places))
