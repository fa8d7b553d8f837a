"""Messages as rows and columns: what is known of them without opening them, a mailbox whole, and what has changed.

Made on the store's blocking side, applied on the reactor's thread (`store.columns`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from attrs import evolve, field, frozen

from mailserver.types import UID, UNKNOWN_SIZE, ModSeq, UIDValidity

LARGEST_SIZE = UNKNOWN_SIZE - 1
"""RFC 3501's `number` is 32 bits: a larger file is told with this size."""
MANY_ROWS = 256
"""So many changed messages are worth a `Run`."""


@frozen
class Row:
    """What is known of one message without opening it."""

    uid: UID
    flags: int
    """Mask of `store.flags`."""
    modseq: ModSeq
    size: int
    """Octets as sent (CRLF line ends), or types.UNKNOWN_SIZE."""
    date: int
    """INTERNALDATE in seconds since 1970, or types.UNKNOWN_DATE."""


class MailboxStamp(Protocol):
    """What a mailbox looked like when the index was level with it. The one part of the blocking side that the
    reactor's thread may ask: a few stats, no lock, no index.
    """

    @property
    def settled(self) -> bool:
        """Does `unchanged` prove that nothing is new: no fresh times, no \\Recent message unclaimed?"""

    def unchanged(self, name: str) -> bool:
        """Is the mailbox of that name still this one, and does it still look as it did?"""


@frozen
class Snapshot:
    """A mailbox whole: what columns are filled from. One entry a message in each array, by rising UID."""

    uids: array[int]
    """Type code "I"."""
    flags: array[int]
    """Masks, type code "I"."""
    modseqs: array[int]
    """Type code "Q"."""
    sizes: array[int]
    """Octets as sent, at most LARGEST_SIZE, or UNKNOWN_SIZE; type code "I"."""
    dates: array[int]
    """Seconds since 1970, or UNKNOWN_DATE; type code "q"."""
    modseq: ModSeq
    """The highest the rows are true for."""
    keywords: tuple[str, ...]
    """Keyword names by letter; position n is flag bit KEYWORD_BIT + n."""
    uid_next: UID
    uid_validity: UIDValidity
    stamp: MailboxStamp | None = field(default=None, eq=False, repr=False)
    """What the mailbox looked like then; None: the store cannot tell."""

    @classmethod
    def of(
        cls, rows: Sequence[Row], modseq: ModSeq, keywords: tuple[str, ...], uid_next: UID, uid_validity: UIDValidity
    ) -> Snapshot:
        """From rows by rising UID."""
        return cls(*Run.of(rows), modseq, keywords, uid_next, uid_validity)

    @property
    def rows(self) -> Sequence[Row]:
        """The same as rows, made anew each time."""
        columns = zip(self.uids, self.flags, self.modseqs, self.sizes, self.dates, strict=True)
        return [Row(UID(uid), flags, ModSeq(modseq), size, date) for uid, flags, modseq, size, date in columns]


def cap_size(size: int) -> int:
    """A size that fits the column."""
    return size if size <= LARGEST_SIZE or size == UNKNOWN_SIZE else LARGEST_SIZE


class Run(NamedTuple):
    """Rows by rising UID as columns: what is read in the account's thread and applied on the reactor's in one step."""

    uids: array[int]
    flags: array[int]
    modseqs: array[int]
    sizes: array[int]
    dates: array[int]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Run:
        """Type codes and bounds are those of a `Snapshot`."""
        return cls(
            array("I", [row.uid for row in rows]),
            array("I", [row.flags for row in rows]),
            array("Q", [row.modseq for row in rows]),
            array("I", [cap_size(row.size) for row in rows]),
            array("q", [row.date for row in rows]),
        )


@frozen
class Changes:
    """All that happened in a mailbox after `since`, up to `upto`. Applying it twice does no harm."""

    since: ModSeq
    upto: ModSeq
    rows: Sequence[Row]
    """New and changed messages as they are now, by rising UID."""
    expunged: Sequence[UID]
    """By rising UID. May name UIDs that the reader never saw."""
    keywords: tuple[str, ...]
    uid_next: UID
    present: array[int] | None = None
    """Where the history does not reach back to `since`: every UID that is there, rising; any other one is expunged."""
    stamp: MailboxStamp | None = field(default=None, eq=False, repr=False)
    """What the mailbox looked like when nothing was new after `upto`; None: the store cannot tell."""
    run: Run | None = field(default=None, eq=False, repr=False)
    """The rows once more, where they are many."""

    def packed(self) -> Changes:
        """The same with its `run`: done in the account's thread, for one of thousands would hold the reactor."""
        return evolve(self, run=Run.of(self.rows)) if len(self.rows) >= MANY_ROWS else self
