"""What one row of the index's tables is in Python."""

from __future__ import annotations

from typing import NamedTuple

from attrs import define

from mailserver.store.rows import Row
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, MailboxId, ModSeq, UIDValidity

Signature = tuple[int, ...]
"""What a file was when it was read: (device, inode, size, mtime in ns); empty: not read."""


SETTLED, RACY, OWN = 0, 1, 2
"""How far an equal mtime of a directory can be trusted: wholly; not at all, as it was fresh when the directory was read;
for now, as what moved it last was a change of ours, which only a foreign one within the same tick could hide behind."""


@define
class MailboxState:
    """One mailbox as the index last saw it. `key` 0 is one that is not in the index yet."""

    key: int
    guid: MailboxId
    name: str
    uid_validity: UIDValidity
    uid_next: UID
    modseq: ModSeq
    floor: ModSeq
    """From this modseq on, expunges are known."""
    recent_from: UID
    keywords: tuple[str, ...] = ()
    keywords_signature: Signature = ()
    uidlist_signature: Signature = ()
    new_mtime: int = 0
    """Of new/ in ns when it was last read whole."""
    new_racy: int = RACY
    cur_mtime: int = 0
    cur_racy: int = RACY
    boot: str = ""
    """Boot id of the machine when this was written: after another one, the last commits may be missing."""


Facts = tuple[int, int, int, int | None, int | None, str, str, int]
"""The fields of an `Entry`, bare, where many of them are made at once."""


class Entry(NamedTuple):
    """One message: its facts and where its file is."""

    uid: int
    modseq: int
    flags: int
    size: int | None
    """Octets as sent; None: not known."""
    date: int | None
    base: str
    """File name up to the first colon, as os.fsdecode makes it."""
    suffix: str
    """The rest of it."""
    place: int
    """0 in new/, 1 in cur/."""

    def row(self) -> Row:
        """What a session knows of it."""
        size = UNKNOWN_SIZE if self.size is None else self.size
        date = UNKNOWN_DATE if self.date is None else self.date
        return Row(UID(self.uid), self.flags, ModSeq(self.modseq), size, date)

    @property
    def file_name(self) -> str:
        """The file's name in its directory."""
        return self.base + self.suffix
