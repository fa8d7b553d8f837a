"""The values that the store's interfaces take and return. `store.interfaces` exports them, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field, frozen

from mailserver.store.rows import MailboxStamp
from mailserver.types import UID, MailboxId, ModSeq, UIDValidity


@frozen
class Bounds:
    """Limits of one account. What another program put there counts, and is never refused."""

    mailboxes: int = 10_000
    """Of an account; the limit of subscribed names, too."""
    messages: int = 5_000_000
    """Of a mailbox."""
    expunges: int = 50_000
    """That a mailbox remembers; at times up to twice as many."""


@frozen
class MailboxInfo:
    """One name in the account's mailbox tree."""

    name: str
    selectable: bool
    """False when the name is only a parent."""
    special_use: frozenset[str] = frozenset()
    """RFC 6154 attributes with their backslash: "\\Sent"."""
    subscribed: bool = False


@frozen
class Status:
    """Counts of a mailbox at one moment."""

    messages: int
    recent: int
    unseen: int
    deleted: int
    uid_next: UID
    uid_validity: UIDValidity
    highest_modseq: ModSeq
    stamp: MailboxStamp | None = field(default=None, eq=False, repr=False)
    """The state of the mailbox's directories at that moment; None if the store cannot tell."""
    size: int = 0
    """Octets of the messages as sent, without the `unmeasured` ones. A kept sum."""
    deleted_size: int = 0
    """Those of the messages with the flag \\Deleted."""
    mailbox: MailboxId | None = None
    """The mailbox's GUID."""
    unmeasured: int = 0
    """Messages of unknown size: another program's, not read yet. `Mailbox.measure_rest` reads them."""


class ScanTooLarge(Exception):
    """A mailbox has so many new files that a process of its own must read them first.

    Raised inside `Account.bounded` alone, before anything was done.
    """

    def __init__(self, order: Mapping[str, str | int]) -> None:
        """`order`: the job for that process."""
        super().__init__(order)
        self.order = order


@define
class Progress:
    """Progress of a long operation: written by the operation, read by the session that waits."""

    done: int = 0
    goal: int = 0
    """0 if it is not known."""


@frozen
class Stored:
    """Result of `store_flags`."""

    modified: Sequence[UID]
    """RFC 7162 MODIFIED: not changed, as they changed after `unchanged_since`."""
    gone: Sequence[UID]
    """Messages that no longer exist."""
    before: ModSeq | None = None
    """The mailbox's highest modseq when the operation began, under the lock. All later changes are its own."""


@frozen
class Copied:
    """The place of copied or moved messages (RFC 4315 COPYUID). The two sequences are parallel."""

    mailbox: MailboxId
    uid_validity: UIDValidity
    source: Sequence[UID]
    """The requested UIDs that existed."""
    target: Sequence[UID]


@frozen
class Pop3Record:
    """POP3 data of a message from the server that had the mail before this one."""

    unique_id: str | None = None
    """Visible ASCII; None: it follows from the configured format."""
    order: int | None = None
    """Messages with an order come first in the maildrop, in this order."""
    name: str = ""
    """The base of the file's name, if it was requested and is visible ASCII."""
    guid: str = ""
    """The message's GUID, if it was requested and differs from that name."""
