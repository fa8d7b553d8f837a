"""The first scan of a Maildir whose messages have no UIDs yet, as when mail of another server moves in.

There may be hundreds of thousands of messages while the client waits. So they are columns, which calls into C make and
pass on. None of these calls takes more than some thousand messages, as it keeps other threads waiting. Unusual cases (a
base twice, names without a time) are left to `reconcile`, which handles everything, but more slowly.
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

from mailserver.store.further_flags import narrowed
from mailserver.store.index.message_blocks import BLOCK_MESSAGES, MessageBlock
from mailserver.store.index.packed_columns import Arrays
from mailserver.store.maildir.format.filename import info_mask
from mailserver.store.maildir.sync import scan
from mailserver.store.name_sizes import claimed_sizes
from mailserver.types import UID, UNKNOWN_DATE, ModSeq

_USUAL: Final = re.compile(rb"^([0-9]{10}(?![0-9])[^:\n]*+)((?::[^\n]*+)?+)$", re.MULTILINE)
"""Base and rest. If all names begin with the same number of digits, the order of the texts is that of the seconds."""
_UNUSUAL_START: Final = re.compile(rb"\n(?!\Z|[0-9]{10}[^0-9])")
_PART: Final = 2000


@frozen
class UnlistedMessages:
    """Messages without UIDs, in the order of delivery: parallel columns."""

    masks: array[int]
    bases: list[bytes]
    suffixes: list[bytes]
    places: bytes
    """0 in new/, 1 in cur/."""

    def __len__(self) -> int:
        return len(self.bases)

    @classmethod
    def of(cls, pending: Sequence[tuple[str, scan.Found]]) -> UnlistedMessages:
        """Make the columns of (base, where) in that order, whatever the names are."""
        masks_of = _Masks()
        bases = [os.fsencode(base) for base, _found in pending]
        suffixes = [os.fsencode(found.name[len(base) :]) for base, found in pending]
        places = bytes([found.place == "cur" for _base, found in pending])
        return cls(array("I", map(masks_of.__getitem__, suffixes)), bases, suffixes, places)

    def without(self, bases: Collection[bytes]) -> UnlistedMessages:
        """Return the messages with other bases."""
        kept = [at for at, base in enumerate(self.bases) if base not in bases]
        return UnlistedMessages(
            array("I", [self.masks[at] for at in kept]),
            [self.bases[at] for at in kept],
            [self.suffixes[at] for at in kept],
            bytes([self.places[at] for at in kept]),
        )

    def part(self, start: int, stop: int) -> UnlistedMessages:
        """Return a range of the messages."""
        part = slice(start, stop)
        return UnlistedMessages(self.masks[part], self.bases[part], self.suffixes[part], self.places[part])

    def split_listed(self, uids: Mapping[str, UID]) -> tuple[FirstScan, list[tuple[str, scan.Found]]]:
        """Split into messages that a list gives UIDs, by base in the order of these, and (base, where) of the others."""
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

    def with_uids(self, first_uid: int) -> FirstScan:
        """Return the messages with UIDs from `first_uid` on."""
        uids = range(first_uid, first_uid + len(self.bases))
        return FirstScan(uids, self.masks, self.bases, self.suffixes, self.places)


@frozen
class Postponed:
    """A scan whose messages without UIDs are left for later."""

    messages: UnlistedMessages
    found: int
    """Files in all."""
    is_new: bool
    """The mailbox had not been scanned before."""
    new: tuple[int, int]
    """The mtime of new/ before its names were read, and the trust in it; see `records.SETTLED`."""
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
        """Format the lines of a uidlist."""
        for start in range(0, len(self.uids), _PART):
            pairs = zip(self.uids[start : start + _PART], self.bases[start : start + _PART], strict=True)
            yield b"".join([b"%d :%b\n" % pair for pair in pairs])

    def blocks(self, modseq: ModSeq) -> Iterator[MessageBlock]:
        """Make blocks for the index."""
        for start in range(0, len(self.uids), BLOCK_MESSAGES):
            part = slice(start, start + BLOCK_MESSAGES)
            uids = array("I", self.uids[part])
            yield MessageBlock(modseq, uids, self.masks[part], self.bases[part], self.suffixes[part], self.places[part])

    def sizes(self) -> array[int]:
        """Make the column of sizes."""
        sizes = array("I")
        for start in range(0, len(self.uids), _PART):
            sizes += claimed_sizes(self.bases[start : start + _PART])
        return sizes

    def columns(self, modseq: ModSeq, sizes: array[int]) -> Arrays:
        """Make the columns with which the mailbox is loaded."""
        count = len(self.uids)
        modseqs, dates = array("Q", [modseq]), array("q", [UNKNOWN_DATE])
        return Arrays(array("I", self.uids), self.masks, modseqs * count, sizes, dates * count)

    @property
    def first_recent(self) -> UID:
        """Return the UID after the last message that a session has seen already: those are no longer in new/."""
        last = self.places.rfind(1)
        return UID(self.uids[last] + 1 if last >= 0 else self.uids[0] if self.uids else 1)


class _Masks(dict[bytes, int]):
    """Flags by the part after the base, as the index has them."""

    def __missing__(self, suffix: bytes) -> int:
        mask = narrowed(info_mask(suffix[1:].decode("utf-8", "surrogateescape")))
        self[suffix] = mask
        return mask


def first_scan(new_names: Sequence[str], cur_names: Sequence[str]) -> UnlistedMessages | None:
    """Scan the messages of a mailbox; None if these names are not all usual."""
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
    # Sorted names mostly have sorted bases: then comparing neighbours is enough.
    return all(map(operator.lt, bases, islice(bases, 1, None))) or len(set(bases)) == len(bases)


def _split(text: bytes, count: int) -> tuple[Sequence[bytes], Sequence[bytes]] | None:
    """Split names, one a line, into bases and rests; None if one of them is not usual."""
    if text.count(b"\n") != count - 1:
        return None
    colons = text.count(b":")
    if colons in {0, count} and not _UNUSUAL_START.search(b"\n" + text + b"\n"):
        # Mostly all have flags, or none. This takes a third of the time.
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
