"""Messages as rows and columns: the facts of each, a whole mailbox, and changes.

Made on the store's blocking side, applied on the reactor's thread (`store.columns`).
"""

from __future__ import annotations

from array import array
from collections.abc import MutableSequence, Sequence
from typing import NamedTuple, Protocol, TypeAlias, overload

from attrs import evolve, field, frozen

from mailserver.store.flags import NARROW
from mailserver.types import UID, UNKNOWN_SIZE, ModSeq, UIDValidity

LARGEST_SIZE = UNKNOWN_SIZE - 1
"""RFC 3501's `number` is 32 bits: a larger file is reported with this size."""
MANY_ROWS = 256
"""Changed messages from which on a `Run` is worth its cost."""

MANY_CHANGES = 50
"""Changed messages from which on the worker that changes a mailbox does not watch it meanwhile."""


FlagColumn: TypeAlias = MutableSequence[int]
"""Masks: an array("I"), or a list if one has more than 31 bits, as that of a message with further keywords has."""


def flag_column(masks: list[int]) -> FlagColumn:
    """Return the masks in the smaller form that holds them."""
    return array("I", masks) if max(masks, default=0) <= NARROW else masks


@frozen
class Row:
    """The facts of one message that are known without opening it."""

    uid: UID
    flags: int
    """Mask of `store.flags`."""
    modseq: ModSeq
    size: int
    """Octets as sent (CRLF line ends), or types.UNKNOWN_SIZE."""
    date: int
    """INTERNALDATE in seconds since 1970, or types.UNKNOWN_DATE."""


class MailboxStamp(Protocol):
    """The state of a mailbox's directories when the index was up to date.

    The one part of the blocking side that the reactor's thread may call: a few stats, no lock, no index.
    """

    @property
    def settled(self) -> bool:
        """True if `unchanged` is proof: no fresh times, and no unclaimed \\Recent message."""

    def unchanged(self, name: str) -> bool:
        """Tell whether the mailbox of that name is still this one, and still in this state."""


@frozen
class Snapshot:
    """A whole mailbox, to fill columns from: one entry a message in each array, by rising UID."""

    uids: array[int]
    """Type code "I"."""
    flags: FlagColumn
    """Masks."""
    modseqs: array[int]
    """Type code "Q"."""
    sizes: array[int]
    """Octets as sent, at most LARGEST_SIZE, or UNKNOWN_SIZE; type code "I"."""
    dates: array[int]
    """Seconds since 1970, or UNKNOWN_DATE; type code "q"."""
    modseq: ModSeq
    """The highest modseq that the rows include."""
    keywords: tuple[str, ...]
    """Keyword names by number; position n is flag bit KEYWORD_BIT + n."""
    uid_next: UID
    uid_validity: UIDValidity
    stamp: MailboxStamp | None = field(default=None, eq=False, repr=False)
    """The state of the directories then; None if the store cannot tell."""

    @classmethod
    def of(
        cls, rows: Sequence[Row], modseq: ModSeq, keywords: tuple[str, ...], uid_next: UID, uid_validity: UIDValidity
    ) -> Snapshot:
        """Make a snapshot from rows by rising UID."""
        return cls(*Run.of(rows), modseq, keywords, uid_next, uid_validity)

    @property
    def rows(self) -> Sequence[Row]:
        """The same as rows, made anew at each call."""
        columns = zip(self.uids, self.flags, self.modseqs, self.sizes, self.dates, strict=True)
        return [Row(UID(uid), flags, ModSeq(modseq), size, date) for uid, flags, modseq, size, date in columns]


def cap_size(size: int) -> int:
    """Cap a size at what the column can hold."""
    return size if size <= LARGEST_SIZE or size == UNKNOWN_SIZE else LARGEST_SIZE


class Run(NamedTuple):
    """Rows by rising UID as columns: read in the account's thread, applied on the reactor's in one step."""

    uids: array[int]
    flags: FlagColumn
    modseqs: array[int]
    sizes: array[int]
    dates: array[int]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Run:
        """Make columns with a `Snapshot`'s type codes and bounds."""
        return cls(
            array("I", [row.uid for row in rows]),
            flag_column([row.flags for row in rows]),
            array("Q", [row.modseq for row in rows]),
            array("I", [cap_size(row.size) for row in rows]),
            array("q", [row.date for row in rows]),
        )

    def part(self, where: slice) -> Run:
        """Return a range of the rows."""
        return Run(self.uids[where], self.flags[where], self.modseqs[where], self.sizes[where], self.dates[where])


class RunRows(Sequence[Row]):
    """The rows of a run, each made when it is asked for: thousands of rows are mostly applied as columns."""

    __slots__ = ("run",)

    def __init__(self, run: Run) -> None:
        self.run = run

    def __len__(self) -> int:
        return len(self.run.uids)

    @overload
    def __getitem__(self, at: int) -> Row: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Row]: ...

    def __getitem__(self, at: int | slice) -> Row | Sequence[Row]:
        run = self.run
        if isinstance(at, slice):
            return RunRows(run.part(at))
        return Row(UID(run.uids[at]), run.flags[at], ModSeq(run.modseqs[at]), run.sizes[at], run.dates[at])


@frozen
class Changes:
    """The changes of a mailbox after `since`, up to `upto`. Applying them twice does no harm."""

    since: ModSeq
    upto: ModSeq
    rows: Sequence[Row]
    """New and changed messages as they are now, by rising UID."""
    expunged: Sequence[UID]
    """By rising UID. May include UIDs that the reader never saw."""
    keywords: tuple[str, ...]
    uid_next: UID
    present: array[int] | None = None
    """Set if the history does not reach back to `since`: all existing UIDs, rising. All others are expunged."""
    stamp: MailboxStamp | None = field(default=None, eq=False, repr=False)
    """The state of the directories when nothing was newer than `upto`; None if the store cannot tell."""
    run: Run | None = field(default=None, eq=False, repr=False)
    """The same rows as columns, if there are many."""

    def packed(self) -> Changes:
        """Add the `run`, in the account's thread: for thousands of rows it would hold up the reactor."""
        rows = self.rows
        if len(rows) < MANY_ROWS:
            return self
        return evolve(self, run=rows.run if isinstance(rows, RunRows) else Run.of(rows))
