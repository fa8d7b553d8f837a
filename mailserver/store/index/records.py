"""The rows of the index's tables in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from attrs import define

from mailserver.store.rows import Row
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, MailboxId, ModSeq, UIDValidity

Signature = tuple[int, ...]
"""The state of a file when it was read: (device, inode, size, mtime in ns); empty if it was not read."""


SETTLED, RACY, OWN = 0, 1, 2
"""Trust in a directory's mtime that equals the recorded one. SETTLED: it proves that nothing changed. RACY: it proves
nothing, as it was fresh when the directory was read. OWN: our own change set it last, so only another program's
change in the same tick could hide behind it.
"""


@define
class MailboxState:
    """A mailbox as the index has it. `key` 0: not in the index yet."""

    key: int
    guid: MailboxId
    name: str
    uid_validity: UIDValidity
    uid_next: UID
    modseq: ModSeq
    floor: ModSeq
    """Expunges after this modseq are known."""
    recent_from: UID
    keywords: tuple[str, ...] = ()
    keywords_signature: Signature = ()
    uidlist_signature: Signature = ()
    new_mtime: int = 0
    """mtime of new/ in ns when it was last read whole."""
    new_racy: int = RACY
    cur_mtime: int = 0
    cur_racy: int = RACY
    boot: str = ""
    """Boot id of the machine when this was written. After another boot the last commits may be missing."""

    @property
    def names_key(self) -> tuple[MailboxId, UIDValidity]:
        """The key of its UIDs: together with one of them it names a message of the account for ever."""
        return self.guid, self.uid_validity


EntryFields = tuple[int, int, int, int | None, int | None, str, str, int]
"""The fields of an `Entry` as a tuple, where many are made at once."""


MessageRecord = tuple[int, int, int, int | None, int | None, bytes, bytes, int]
"""The same with base and suffix as octets, as the database and the kernel have them."""


class FlagUpdate(NamedTuple):
    """Messages that had the same flags, suffix and place, and have the same ones now, in cur/."""

    before: tuple[int, bytes, int]
    """Flags, suffix and place that they had."""
    flags: int
    suffix: bytes
    uids: Sequence[int]
    """Rising."""


class Entry(NamedTuple):
    """One message: its facts and the place of its file."""

    uid: int
    modseq: int
    flags: int
    size: int | None
    """Octets as sent; None if unknown."""
    date: int | None
    base: str
    """File name up to the first colon, as os.fsdecode makes it."""
    suffix: str
    """The rest of the file name."""
    place: int
    """0 in new/, 1 in cur/."""

    def row(self) -> Row:
        """Return the row that sessions get."""
        size = UNKNOWN_SIZE if self.size is None else self.size
        date = UNKNOWN_DATE if self.date is None else self.date
        return Row(UID(self.uid), self.flags, ModSeq(self.modseq), size, date)

    @property
    def file_name(self) -> str:
        """The file's name in its directory."""
        return self.base + self.suffix
