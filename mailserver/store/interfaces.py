"""The store, as protocols see it: accounts, mailboxes, messages. Protocol-neutral, synchronous, free of Twisted.

Two sides, kept apart by who may call them:

*   `Store`, `Account`, `Mailbox`, `MessageFile` and `receiving.StagedMessage` block: they take locks, sync and read files. They are
    called only inside `StoreRunner.run(operation)`, one operation of an account at a time.
*   `store.columns`, `store.view` and `store.live` live on the reactor's thread and never block: columns in memory,
    each session's frozen view of them, and the shared picture that joins the two sides.

Operations take the account's lock, change, commit, release. Nothing is written to a client under the lock, and
nothing returns before it would survive a power cut. Whoever wants to know what changed asks `changes_since`.
Mailbox names are str with "/" between levels, INBOX in capitals; separators and prefixes of the wire are
translated by the protocols.
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
    """How much one user may keep. What another program put there counts, and is never refused."""

    mailboxes: int = 10_000
    """Of an account, and names subscribed to."""
    messages: int = 5_000_000
    """Of a mailbox."""


@frozen
class MailboxInfo:
    """One name of the account's tree."""

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
    """What the mailbox looked like then; None: the store cannot tell."""


class ScanTooLarge(Exception):
    """A mailbox has so many files that nobody has seen yet that a process of its own is to read them first.

    Raised inside `Account.bounded` alone, before anything was done.
    """

    def __init__(self, order: Mapping[str, str | int]) -> None:
        """`order`: what that process is told to do."""
        super().__init__(order)
        self.order = order


@define
class Progress:
    """How far something that takes long is. Told by whoever does it, read by whoever waits."""

    done: int = 0
    goal: int = 0
    """0: not known."""


@frozen
class Stored:
    """Result of `store_flags`."""

    modified: Sequence[UID]
    """RFC 7162 MODIFIED: left alone, as they changed after `unchanged_since`."""
    gone: Sequence[UID]
    """No longer there."""
    before: ModSeq | None = None
    """The mailbox's highest modseq when the operation began, under the lock: whatever is later is its own doing."""


@frozen
class Copied:
    """Where messages were copied or moved (RFC 4315 COPYUID). The two sequences run in parallel."""

    mailbox: MailboxId
    uid_validity: UIDValidity
    source: Sequence[UID]
    """Those of the asked-for UIDs that existed."""
    target: Sequence[UID]


@frozen
class Pop3Record:
    """What POP3 clients know of a message from a server before this one."""

    unique_id: str | None = None
    """Visible ASCII; None: the configured format says it."""
    order: int | None = None
    """Messages with an order come first in the maildrop, rising."""
    name: str = ""
    """The base of the file's name, where it is asked for and visible ASCII."""
    guid: str = ""
    """Of the message, where it is asked for, and is not that name."""


class MessageFile(Protocol):
    """An open message, as it is sent: line ends are CRLF."""

    size: int
    """Octets that `read` can give; this is RFC822.SIZE."""

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Those octets, fewer at the end."""

    def read_now(self, offset: int, count: int) -> bytes | None:
        """The same without waiting, at least one octet; None where `read` must be asked. Any thread may call it."""

    def close(self) -> None:
        """Give the descriptor back."""


class MaildropLock(Protocol):
    """An account's maildrop, held (RFC 1939 4)."""

    def release(self) -> None:
        """Give it up; repeating it is harmless. Never blocks, so it may be called on the reactor's thread."""


class SearchRun(Protocol):
    """A search that is under way. Each step is a bounded piece of work: others of the account come in between."""

    looked_at: int
    """Messages that have been read for it."""
    work: int
    """Octets of text times needles beyond the first few that have been compared."""
    pause: float
    """Seconds to wait before the next step."""
    expunged: bool
    """Once all is known: were candidates left out because they no longer exist?"""

    def step(self) -> Sequence[UID] | None:
        """Go on; what matches (rising) once all is known, else None. Raises: Cancelled."""

    def close(self) -> None:
        """Give back what is held between two steps. Never blocks; repeating it is harmless."""


class Mailbox(Protocol):
    """One mailbox. Stays valid when renamed; raises MailboxChanged once deleted or made anew."""

    @property
    def id(self) -> MailboxId:
        """Its GUID."""

    @property
    def name(self) -> str:
        """Its name, as of the last operation on it."""

    @property
    def read_only(self) -> bool:
        """The directory cannot be written by us."""

    @property
    def watched_paths(self) -> tuple[str, ...]:
        """Directories whose changes tell of foreign writers (cur, new); empty if there are none to watch."""

    def foreign_names(self, names: Collection[str]) -> Collection[str]:
        """Of file names that a watcher saw come or go, those that it was not this account object that changed them.

        Never blocks: called on the reactor's thread. Each change of ours is taken off once.
        """

    def refresh(self, names: Collection[str] | None = None) -> None:
        """Take up what other programs did: cheap when nothing changed.

        With `names` (file names that a watcher saw appear or go) only those are looked at.
        """

    def load(self) -> Snapshot:
        """The mailbox whole, from the index. Linear; call once per worker."""

    def changes_since(self, modseq: ModSeq) -> Changes:
        """What happened after `modseq`; proportional to the answer. Raises: MailboxChanged."""

    def status(self) -> Status:
        """Counts, as of the last refresh. Raises: MailboxChanged."""

    def exclusive(self) -> AbstractContextManager[None]:
        """While it is held nobody else changes the mailbox: what is read in it is what the next change meets.

        Raises: InUse, NoSpace, StoreUnavailable.
        """

    def first_recent(self) -> UID:
        """The UID from which on messages are \\Recent: no session has claimed them."""

    def claim_recent(self, below: UID | None = None) -> range:
        """Take the \\Recent messages (those with UIDs under `below`) for one session: the range of their UIDs."""

    def store_flags(
        self, uids: Sequence[UID], how: FlagChange, flags: Iterable[str], unchanged_since: ModSeq | None = None
    ) -> Stored:
        """Change flags of many messages at once. Raises: LimitReached for a 27th keyword, ReadOnly."""

    def expunge(self, uids: Sequence[UID], *, only_deleted: bool = True) -> Sequence[UID]:
        """Remove those messages (of them only the ones flagged \\Deleted); the UIDs removed, rising."""

    def copy(self, uids: Sequence[UID], target: str, *, skip_expunged: bool = False) -> Copied:
        """Copy to another mailbox (or this one), all or none; with `skip_expunged` all that exist.

        Raises: NoSuchMailbox, MessageExpunged if one is gone.
        """

    def move(self, uids: Sequence[UID], target: str) -> Copied:
        """Move (RFC 6851): each message is in exactly one of the two at any moment."""

    def summaries(
        self, uids: Sequence[UID], *, only_head: bool = False, time_slice: TimeSlice | None = None
    ) -> Sequence[tuple[UID, Row, Summary]]:  # fmt: skip
        """The pre-rendered facts of those messages, made and kept where missing; messages gone are left out.

        With a time_slice, once that is full, those behind the last one that is told have not been looked at.

        `search` and `sent` may be left out of them: `search` looks at these. With `only_head`, who asks wants no more
        than what the header says: then `body` and `body_structure` may be empty, and size and date unknown, so that
        bodies need not be read.
        """

    def envelopes(self, uids: Sequence[UID], *, time_slice: TimeSlice | None = None) -> Mapping[UID, bytes]:
        """Summary.envelope of those of the messages (rising) that are there and have it kept. Nothing is rendered.

        In the order of the UIDs; a time_slice as for `summaries`.
        """

    def measure(
        self, uids: Sequence[UID], *, only_dates: bool = False, time_slice: TimeSlice | None = None
    ) -> Sequence[Row]:  # fmt: skip
        """The rows of those messages (rising) with their sizes and dates, found out and kept where they are not known.

        A time_slice as for `summaries`, but with `only_dates`.
        Those gone or unreadable are left out. With `only_dates` no message is read, and sizes may stay unknown.
        """

    def pop3_records(self, *, names: bool = False) -> Mapping[UID, Pop3Record]:
        """Of the messages that another server's POP3 clients know, most often none; with `names` of all that have one.

        Raises: StoreUnavailable.
        """

    def open_message(self, uid: UID) -> MessageFile:
        """Open it. Raises: MessageExpunged, StoreUnavailable."""

    def read_whole(self, uids: Sequence[UID], limit: int) -> Sequence[tuple[UID, bytes]]:
        """The first of those messages (rising), as sent, up to `limit` octets together: many small ones for little.

        It ends before the first that does not fit, is gone, or cannot be read: `open_message` tells which.
        """

    def search(self, query: Query, candidates: Sequence[UID]) -> Sequence[UID]:
        """Those of the candidates (rising) that match, rising. Messages gone do not match."""

    def start_search(self, query: Query, candidates: Sequence[UID]) -> SearchRun:
        """As `search`, in steps."""


class Account(Protocol):
    """One user's mail."""

    @property
    def user(self) -> str:
        """The full name."""

    @property
    def is_there(self) -> bool:
        """Does it still exist? Never blocks for long: asked on the reactor's thread."""

    def mailboxes(self) -> Sequence[MailboxInfo]:
        """Every name, parents included, sorted; INBOX first."""

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
        """Raises: NoSuchMailbox."""

    def status(self, name: str) -> Status:
        """Counts, after taking up foreign changes; from the index, no message is opened. Raises: NoSuchMailbox."""

    def stage(self) -> StagedMessage:
        """Begin to receive a message. Raises: NoSpace, StoreUnavailable."""

    def append(
        self, name: str, messages: Sequence[NewMessage], seen_by: Callable[[MailboxId], bool] = lambda _mailbox: False
    ) -> Appended:
        """Make staged messages visible in one mailbox, all or none.

        Where `seen_by` says that a session will tell its client of them, they may be claimed for it in the same step, as
        `Mailbox.claim_recent` does. Raises: NoSuchMailbox, LimitReached, NoSpace.
        """

    def deliver(
        self, deliveries: Sequence[Delivery], seen_by: Callable[[MailboxId], bool] = lambda _mailbox: False
    ) -> Sequence[Appended | Exception]:
        """As `append` for each of them, independent of one another, for little more than the price of one.

        What `append` would raise stands in its place among the answers. Nothing stays staged.
        """

    def prepare(self, name: str, messages: Sequence[NewMessage]) -> Prepared:
        """Sync them with an intent record, to be published later."""

    def lock_maildrop(self) -> MaildropLock:
        """Keep every other caller, in this process or another, from doing the same. Raises: InUse, at once.

        Nothing else is kept out. `close` does not give it up, the end of the process does.
        """

    @property
    def has_maintenance(self) -> bool:
        """May there be work that can wait? Never blocks: read on the reactor's thread."""

    def maintain(self, stop: Callable[[], bool]) -> float | None:
        """Do a little of that work, less when `stop` turns true; in how many seconds to come again, None: when used."""

    def bounded(self) -> AbstractContextManager[None]:
        """Opening a mailbox, and `Mailbox.refresh`, raise ScanTooLarge meanwhile rather than read very many files."""

    def close(self) -> None:
        """Give up descriptors and connections."""


class Store(Protocol):
    """All accounts."""

    def account(self, user: str, home: str | None = None) -> Account:
        """Open the account, making its directories and special-use folders if it is new.

        Raises: NoSpace, StoreUnavailable.
        """


class StoreRunner(Protocol):
    """Runs blocking store calls off the reactor: first in, first out, one at a time per account."""

    def run(self, operation: Callable[[], T]) -> Awaitable[T]:
        """The operation's result. It is queued at once, awaited or not, and runs to its end even if the client goes."""
