"""The store's interfaces for protocols: accounts, mailboxes, messages. Protocol-neutral, synchronous, free of Twisted.

Two sides, kept apart by their thread:

*   `Store`, `Account`, `Mailbox`, `MessageFile` and `receiving.StagedMessage` block: they take locks, sync and read
    files. Call them only inside `StoreRunner.run(operation)`, one operation of an account at a time.
*   `store.columns`, `store.view` and `store.live` live on the reactor's thread and never block: columns in memory, each
    session's frozen view of them, and the live mailboxes that join the two sides.

An operation takes the account's lock, changes, commits, releases. Nothing is written to a client under the lock, and
nothing returns before it would survive a power cut. `changes_since` tells what changed. Mailbox names are str with "/"
between levels and INBOX in capitals. The protocols translate the separators and prefixes of the wire.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TypeVar

from attrs import define, field, frozen

from mailserver.message.summary import Summary
from mailserver.store.flags import FlagChange
from mailserver.store.receiving import Appended, Delivery, NewMessage, Prepared, StagedMessage
from mailserver.store.rows import Changes, MailboxStamp, Row, Snapshot
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID, MailboxId, ModSeq, UIDValidity

if TYPE_CHECKING:
    from mailserver.store.query import Query

T = TypeVar("T")


@frozen
class Bounds:
    """Limits of one account. What another program put there counts, and is never refused."""

    mailboxes: int = 10_000
    """Of an account; the limit of subscribed names, too."""
    messages: int = 5_000_000
    """Of a mailbox."""


@frozen
class MailboxInfo:
    """One name in the account's mailbox tree."""

    name: str
    selectable: bool
    """False when the name is only a parent."""
    special_use: frozenset[str] = frozenset()
    """RFC 6154 attributes with their backslash: "\\Sent"."""
    subscribed: bool = False


class MailboxList(Protocol):
    """The mailboxes of an account at one moment. It can be weakly referenced."""

    @property
    def infos(self) -> Sequence[MailboxInfo]:
        """Every name, as `Account.mailboxes` returns them."""

    @property
    def subscribed(self) -> frozenset[str]:
        """Subscribed names, also those that do not exist."""

    def is_current(self) -> bool:
        """Tell whether it certainly still holds. A few stats at most, on any thread; False if that is uncertain."""


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


class MessageFile(Protocol):
    """An open message in the form in which it is sent: line ends are CRLF."""

    size: int
    """Octets that `read` can give; this is RFC822.SIZE."""

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Read these octets; fewer at the end."""

    def read_now(self, offset: int, count: int) -> bytes | None:
        """Read at least one octet without waiting, on any thread. None: only `read` can tell."""

    def close(self) -> None:
        """Close the file."""


class MaildropLock(Protocol):
    """The lock on an account's maildrop (RFC 1939 4)."""

    def release(self) -> None:
        """Release it. Never blocks, on the reactor's thread either. Repeating it is harmless."""


class SearchRun(Protocol):
    """A search in progress. Each step is a bounded piece of work, so that other work of the account can run in between."""

    looked_at: int
    """Messages that have been read for it."""
    work: int
    """Octets of text times needles, beyond the first few needles, that have been compared."""
    pause: float
    """Seconds to wait before the next step."""
    expunged: bool
    """At the end: some candidates were left out because they no longer exist."""

    def step(self) -> Sequence[UID] | None:
        """Continue. Return the matching UIDs (rising) at the end, else None. Raises: Cancelled."""

    def close(self) -> None:
        """Release what is held between two steps. Never blocks. Repeating it is harmless."""


class Mailbox(Protocol):
    """One mailbox. It stays valid when it is renamed, and raises MailboxChanged once it is deleted or made anew."""

    @property
    def id(self) -> MailboxId:
        """Its GUID."""

    @property
    def name(self) -> str:
        """Its name as of the last operation."""

    @property
    def read_only(self) -> bool:
        """True if this server may not write the directory."""

    @property
    def watched_paths(self) -> tuple[str, ...]:
        """The directories (cur, new) in which other programs' changes show; empty if there are none to watch."""

    def foreign_names(self, names: Collection[str]) -> Collection[str]:
        """Return the file names from a watcher that were not changed by this account object.

        Never blocks; called on the reactor's thread. Each own change is crossed out once.
        """

    def is_own_name(self, name: str) -> bool:
        """Tell whether a process of this server has made that file name for a new message. Never blocks."""

    def refresh(self, names: Collection[str] | None = None) -> None:
        """Take up other programs' changes. Cheap if nothing changed.

        With `names` (file names from a watcher) only these are examined.
        """

    def load(self) -> Snapshot:
        """Load the whole mailbox from the index. Linear; call once per worker."""

    def changes_since(self, modseq: ModSeq) -> Changes:
        """Return what happened after `modseq`, at a cost in proportion. Raises: MailboxChanged."""

    def status(self) -> Status:
        """Return the counts as of the last refresh. Raises: MailboxChanged."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep everybody else from changing the mailbox meanwhile, so that what is read is what the next change meets.

        Raises: InUse, NoSpace, StoreUnavailable.
        """

    def first_recent(self) -> UID:
        """The lowest UID that is \\Recent: no session has claimed it or a higher one."""

    def claim_recent(self, below: UID | None = None) -> range:
        """Claim the \\Recent messages (below `below`) for one session. Return the range of their UIDs."""

    def store_flags(
        self, uids: Sequence[UID], how: FlagChange, flags: Iterable[str], unchanged_since: ModSeq | None = None
    ) -> Stored:
        """Change flags of many messages at once. Raises: LimitReached for a 27th keyword, ReadOnly."""

    def expunge(self, uids: Sequence[UID], *, only_deleted: bool = True) -> Sequence[UID]:
        """Remove these messages (or those of them flagged \\Deleted). Return the removed UIDs, rising."""

    def copy(self, uids: Sequence[UID], target: str, *, skip_expunged: bool = False) -> Copied:
        """Copy to another mailbox, or this one: all or none; with `skip_expunged` all that exist.

        Raises: NoSuchMailbox, MessageExpunged if one is gone.
        """

    def move(self, uids: Sequence[UID], target: str) -> Copied:
        """Move (RFC 6851). Each message is in exactly one of the two mailboxes at any moment."""

    def summaries(
        self, uids: Sequence[UID], *, only_head: bool = False, time_slice: TimeSlice | None = None
    ) -> Sequence[tuple[UID, Row, Summary]]:  # fmt: skip
        """Return the pre-rendered facts of these messages. Missing ones are rendered and kept; missing messages are
        left out.

        Once a time slice is full, the messages after the last one in the result have not been examined.

        The summaries may lack `search` and `sent`, which are for `search`. With `only_head` they may lack `body` and
        `body_structure`, and size and date may be unknown, so that no body needs to be read.
        """

    def envelopes(self, uids: Sequence[UID], *, time_slice: TimeSlice | None = None) -> Mapping[UID, bytes]:
        """Return the kept Summary.envelope of these messages (rising). Nothing is rendered.

        In the order of the UIDs; a time slice as for `summaries`.
        """

    def kept_lines(self, uids: Sequence[UID], *, time_slice: TimeSlice | None = None) -> Mapping[UID, bytes]:
        """Return the kept Summary.fields of these messages (rising), like `envelopes`."""

    def measure(
        self, uids: Sequence[UID], *, only_dates: bool = False, time_slice: TimeSlice | None = None
    ) -> Sequence[Row]:  # fmt: skip
        """Return the rows of these messages (rising) with sizes and dates, which are read and kept where unknown.

        Messages that are gone or unreadable are left out. With `only_dates` no message is read, so sizes may stay
        unknown. A time slice as for `summaries`, but not with `only_dates`.
        """

    def pop3_records(self, *, names: bool = False) -> Mapping[UID, Pop3Record]:
        """Return the POP3 data that another server left, mostly none; with `names` of all messages that have a name.

        Raises: StoreUnavailable.
        """

    def open_message(self, uid: UID) -> MessageFile:
        """Open a message. Raises: MessageExpunged, StoreUnavailable."""

    def read_whole(self, uids: Sequence[UID], limit: int) -> Sequence[tuple[UID, bytes]]:
        """Read the first of these messages (rising), as sent, up to `limit` octets in all: cheap for many small ones.

        Stops before the first message that does not fit, is gone, or cannot be read; `open_message` tells which.
        """

    def read_cached(self, uid: UID, size: int | None, only_header: bool) -> bytes | None:
        """Return a small message as sent, or its header with the empty line, if all of it is in memory.

        On the reactor's thread, beside another operation of the account: it never waits. `size` is the message's, None if
        unknown. None: `read_whole` or `open_message` must be called. A message may be returned that has just been expunged.
        """

    def search(self, query: Query, candidates: Sequence[UID]) -> Sequence[UID]:
        """Return the candidates (rising) that match, rising. Messages that are gone do not match."""

    def start_search(self, query: Query, candidates: Sequence[UID]) -> SearchRun:
        """Start a `search` that runs in steps."""


class Account(Protocol):
    """One user's mail."""

    @property
    def user(self) -> str:
        """The full name."""

    @property
    def is_there(self) -> bool:
        """Tell whether it still exists. On the reactor's thread: one stat at most."""

    def mailboxes(self) -> Sequence[MailboxInfo]:
        """Every name, parents included, sorted; INBOX first."""

    def mailbox_list(self) -> MailboxList:
        """The same with the subscriptions, to be kept and used again."""

    def subscriptions(self) -> frozenset[str]:
        """Subscribed names, also those that do not exist."""

    def set_subscribed(self, name: str, *, subscribed: bool) -> None:
        """Subscribe or unsubscribe."""

    def create(self, name: str, special_use: frozenset[str] = frozenset()) -> MailboxId:
        """Make a mailbox and its missing parents. Raises: MailboxExists, BadMailboxName, NoSpace."""

    def delete(self, name: str) -> None:
        """Remove a mailbox with its mail. Raises: NoSuchMailbox, MailboxHasChildren (name only), Cannot for INBOX."""

    def rename(self, old: str, new: str) -> None:
        """Rename with all children; INBOX: its messages move to `new` (RFC 3501 6.3.5).

        Raises: NoSuchMailbox, MailboxExists, BadMailboxName.
        """

    def mailbox(self, name: str) -> Mailbox:
        """Return a mailbox by name. Raises: NoSuchMailbox."""

    def status(self, name: str) -> Status:
        """Return counts from the index, after taking up other programs' changes. Raises: NoSuchMailbox."""

    def stage(self) -> StagedMessage:
        """Start receiving a message. Raises: NoSpace, StoreUnavailable."""

    def append(
        self, name: str, messages: Sequence[NewMessage], seen_by: Callable[[MailboxId], bool] = lambda _mailbox: False
    ) -> Appended:
        """Publish staged messages in one mailbox, all or none.

        They may be claimed in the same step, as by `Mailbox.claim_recent`, if `seen_by` says that a session reports
        them to its client. Raises: NoSuchMailbox, LimitReached, NoSpace.
        """

    def deliver(
        self, deliveries: Sequence[Delivery], seen_by: Callable[[MailboxId], bool] = lambda _mailbox: False
    ) -> Sequence[Appended | Exception]:
        """Do independent `append`s for little more than the cost of one.

        The result has each one's exception in its place. Nothing stays staged.
        """

    def prepare(self, name: str, messages: Sequence[NewMessage]) -> Prepared:
        """Sync the messages with an intent record, to be published later."""

    def lock_maildrop(self) -> MaildropLock:
        """Lock the maildrop against other POP3 sessions, in this process or another. Raises: InUse, at once.

        Nothing else is kept out. The lock ends with `release` or the process, not with `close`.
        """

    @property
    def has_maintenance(self) -> bool:
        """True if there may be maintenance work. Never blocks; read on the reactor's thread."""

    def maintain(self, stop: Callable[[], bool]) -> float | None:
        """Do a little maintenance, less once `stop` returns True. Return the seconds to the next call; None: after the
        next use.
        """

    def bounded(self) -> AbstractContextManager[None]:
        """Let opening a mailbox, and `Mailbox.refresh`, raise ScanTooLarge meanwhile rather than read very many files."""

    def close(self) -> None:
        """Close files and connections."""


class Store(Protocol):
    """All accounts."""

    def account(self, user: str, home: str | None = None) -> Account:
        """Open the account. Make its directories and special-use folders if it is new.

        Raises: NoSpace, StoreUnavailable.
        """


class StoreRunner(Protocol):
    """The thread for blocking store calls: first in, first out, one at a time per account."""

    def run(self, operation: Callable[[], T]) -> Awaitable[T]:
        """Queue the operation at once; return its result. It runs to its end even if the client is gone."""
