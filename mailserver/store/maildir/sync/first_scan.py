"""The first look at a Maildir whose messages have no UIDs yet, as when mail of another server moves in.

There may be hundreds of thousands of messages and the client waits, so they are columns that calls into C make and pass
on; none of these calls takes more than some thousand messages, as it keeps other threads waiting. What is out of the
ordinary (a base twice, names without a time) is left to `reconcile`, which does it all, at leisure.
"""

from __future__ import annotations

import operator
import os
import re
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from attrs import frozen

from mailserver.store.index.message_blocks import BLOCK_MESSAGES, MessageBlock
from mailserver.store.index.packed_columns import Arrays
from mailserver.store.maildir.format.filename import flags_mask, letters_of_info
from mailserver.store.maildir.sync import scan
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq

_USUAL: Final = re.compile(rb"^([0-9]{10}(?![0-9])[^:\n]*+)((?::[^\n]*+)?+)$", re.MULTILINE)
"""Base and the rest. Where all names begin with as many digits, the order of the texts is that of the seconds."""
_UNUSUAL_START: Final = re.compile(rb"\n(?!\Z|[0-9]{10}[^0-9])")
_PART: Final = 2000


@frozen
class UnlistedMessages:
    """Messages that have no UIDs yet, in the order of delivery: parallel columns."""

    masks: array[int]
    bases: list[bytes]
    suffixes: list[bytes]
    places: bytes
    """0 in new/, 1 in cur/."""

    def __len__(self) -> int:
        return len(self.bases)

    @classmethod
    def of(cls, pending: Sequence[tuple[str, scan.Found]]) -> UnlistedMessages:
        """The same of (base, where) in that order, whatever their names look like."""
        masks_of = _Masks()
        bases = [os.fsencode(base) for base, _found in pending]
        suffixes = [os.fsencode(found.name[len(base) :]) for base, found in pending]
        places = bytes([found.place == "cur" for _base, found in pending])
        return cls(array("I", map(masks_of.__getitem__, suffixes)), bases, suffixes, places)

    def without(self, bases: Collection[bytes]) -> UnlistedMessages:
        """Those with other bases."""
        kept = [at for at, base in enumerate(self.bases) if base not in bases]
        return UnlistedMessages(
            array("I", [self.masks[at] for at in kept]),
            [self.bases[at] for at in kept],
            [self.suffixes[at] for at in kept],
            bytes([self.places[at] for at in kept]),
        )

    def part(self, start: int, stop: int) -> UnlistedMessages:
        """Some of them."""
        part = slice(start, stop)
        return UnlistedMessages(self.masks[part], self.bases[part], self.suffixes[part], self.places[part])

    def told(self, uids: Mapping[str, UID]) -> tuple[FirstScan, list[tuple[str, scan.Found]]]:
        """Those that a list gives UIDs, by base, in the order of these; and (base, where) of the others."""
        names = b"\n".join(self.bases).decode("utf-8", "surrogateescape").split("\n")
        numbers = list(map(uids.get, names))
        others = [
            (names[at], scan.Found("cur" if self.places[at] else "new", names[at] + os.fsdecode(self.suffixes[at])))
            for at, number in enumerate(numbers)
            if number is None
        ]
        known = sorted((number, at) for at, number in enumerate(numbers) if number is not None)
        order = [at for _number, at in known]
        look = FirstScan(
            [number for number, _at in known],
            array("I", map(self.masks.__getitem__, order)),
            list(map(self.bases.__getitem__, order)),
            list(map(self.suffixes.__getitem__, order)),
            bytes(map(self.places.__getitem__, order)),
        )
        return look, others

    def given(self, first_uid: int) -> FirstScan:
        """With their UIDs to be."""
        uids = range(first_uid, first_uid + len(self.bases))
        return FirstScan(uids, self.masks, self.bases, self.suffixes, self.places)


@frozen
class Postponed:
    """What a look at a mailbox has left for later: messages that are in no list yet."""

    messages: UnlistedMessages
    found: int
    """Files that there were in all."""
    is_new: bool
    """Nobody had seen the mailbox before this look."""
    new: tuple[int, int]
    """The mtime of new/ before its names were read, and how far it can be trusted; see `records.SETTLED`."""
    cur: tuple[int, int]


@frozen
class FirstScan:
    """Messages with their UIDs, which rise: parallel columns."""

    uids: Sequence[int]
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

    def blocks(self, modseq: ModSeq) -> Iterator[MessageBlock]:
        """As the index keeps them."""
        for start in range(0, len(self.uids), BLOCK_MESSAGES):
            part = slice(start, start + BLOCK_MESSAGES)
            uids = array("I", self.uids[part])
            yield MessageBlock(modseq, uids, self.masks[part], self.bases[part], self.suffixes[part], self.places[part])

    def columns(self, modseq: ModSeq) -> Arrays:
        """As the mailbox is loaded."""
        count = len(self.uids)
        modseqs, sizes, dates = array("Q", [modseq]), array("I", [UNKNOWN_SIZE]), array("q", [UNKNOWN_DATE])
        return Arrays(array("I", self.uids), self.masks, modseqs * count, sizes * count, dates * count)

    @property
    def first_recent(self) -> UID:
        """The UID after the last message that some session has seen already: those have left new/."""
        last = self.places.rfind(1)
        return UID(self.uids[last] + 1 if last >= 0 else self.uids[0] if self.uids else 1)


class _Masks(dict[bytes, int]):
    """Flags by what follows the base."""

    def __missing__(self, suffix: bytes) -> int:
        mask = flags_mask(letters_of_info(suffix[1:].decode("utf-8", "surrogateescape")))
        self[suffix] = mask
        return mask


def first_scan(new_names: Sequence[str], cur_names: Sequence[str]) -> UnlistedMessages | None:
    """The messages of a mailbox; None if these names need a closer look."""
    names = [*cur_names, *new_names]
    names.sort()
    in_new = set(new_names)
    masks_of = _Masks()
    masks = array("I")
    bases: list[bytes] = []
    suffixes: list[bytes] = []
    places: list[bytes] = []
    for start in range(0, len(names), _PART):
        part = names[start : start + _PART]
        split = _split("\n".join(part).encode("utf-8", "surrogateescape"), len(part))
        if split is None:
            return None
        its_bases, its_suffixes = split
        bases += its_bases
        suffixes += its_suffixes
        masks.extend(map(masks_of.__getitem__, its_suffixes))
        places.append(bytes([name not in in_new for name in part]) if in_new else b"\1" * len(part))
    if not bases or not _all_differ(bases):
        return None
    return UnlistedMessages(masks, bases, suffixes, b"".join(places))


def _all_differ(bases: Sequence[bytes]) -> bool:
    # Names that are sorted have bases that are too, but for rare ones: then a comparison of neighbours says it.
    return all(map(operator.lt, bases, islice(bases, 1, None))) or len(set(bases)) == len(bases)


def _split(text: bytes, count: int) -> tuple[Sequence[bytes], Sequence[bytes]] | None:
    """Bases, and what follows them, of so many names that stand in lines; None if one of them is not usual."""
    if text.count(b"\n") != count - 1:
        return None
    colons = text.count(b":")
    if colons in {0, count} and not _UNUSUAL_START.search(b"\n" + text + b"\n"):
        # Most often all have flags, or none has. This takes a third of the time.
        if not colons:
            return text.split(b"\n"), [b""] * count
        halves = text.replace(b":", b"\n:").split(b"\n")
        bases, suffixes = halves[::2], halves[1::2]
        if all(suffix.startswith(b":") for suffix in set(suffixes)):
            return bases, suffixes
    pairs = _USUAL.findall(text)
    if len(pairs) != count:
        return None
    parts = tuple(zip(*pairs, strict=True))
    return parts[0], parts[1]
