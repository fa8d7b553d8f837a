"""The store's interfaces for protocols: accounts, mailboxes, messages. Protocol-neutral, synchronous, free of Twisted.

Two sides, kept apart by their thread:

*   `Store`, `Account`, `Mailbox`, `MessageFile` and `receiving.StagedMessage` block: they take locks, sync and read
    files. Call them only inside `StoreRunner.run(operation)`, one operation of an account at a time.
*   `store.columns`, `store.view` and `store.live` live on the reactor's thread and never block: columns in memory, each
    session's frozen view of them, and the live mailboxes that join the two sides.

An operation takes the account's lock, changes, commits, releases. Nothing is written to a client under the lock, and
nothing returns before it would survive a power cut. `changes_since` tells what changed. Mailbox names are str with "/"
between levels and INBOX in capitals. The protocols translate the separators and prefixes of the wire.

`store.values` and `store.handles` define what the interfaces take and return; it is imported from here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mailserver.errors import MailError
from mailserver.message.summary import Summary
from mailserver.store.annotations import AnnotationChange, Annotations
from mailserver.store.flags import FlagChange
from mailserver.store.handles import MailboxList, MaildropLock, MessageFile, SearchRun
from mailserver.store.receiving import Appended, Delivery, NewMessage, Prepared, StagedMessage
from mailserver.store.rows import Changes, Row, Snapshot
from mailserver.store.time_slice import TimeSlice
from mailserver.store.values import Bounds, Copied, MailboxInfo, Pop3Record, Progress, ScanTooLarge, Status, Stored
from mailserver.types import UID, MailboxId, ModSeq, Quota, Usage

if TYPE_CHECKING:
    from mailserver.store.query import Query
    from mailserver.store.quota import QuotaWarning

__all__ = [
    "Account",
    "Bounds",
    "Copied",
    "Mailbox",
    "MailboxInfo",
    "MailboxList",
    "MaildropLock",
    "MessageFile",
    "Pop3Record",
    "Progress",
    "ScanTooLarge",
    "SearchRun",
    "Status",
    "Store",
    "StoreRunner",
    "Stored",
]

T = TypeVar("T")


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

    def refresh(self, names: Collection[str] | None = None, *, claims: bool = False) -> range:
        """Take up other programs' changes. Cheap if nothing changed.

        With `names` (file names from a watcher) only these are examined. With `claims` a session reports new messages at
        once: they may be claimed in the same step, as by `claim_recent`. Return the UIDs that were, or NONE_CLAIMED.
        """

    def load(self) -> Snapshot:
        """Load the whole mailbox from the index. Linear; call once per worker."""

    def changes_since(self, modseq: ModSeq) -> Changes:
        """Return what happened after `modseq`, at a cost in proportion. Raises: MailboxChanged."""

    def expunged_since(self, modseq: ModSeq) -> Sequence[UID] | None:
        """Return the UIDs that were expunged after `modseq`, rising.

        None: that is not known, as the history begins later, or as no change has had so high a modseq yet.
        Raises: MailboxChanged.
        """

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
        """Change flags of many messages at once. Raises: LimitReached for too many keywords, ReadOnly."""

    def expunge(self, uids: Sequence[UID], *, only_deleted: bool = True) -> Sequence[UID]:
        """Remove these messages (or those of them flagged \\Deleted). Return the removed UIDs, rising."""

    def copy(self, uids: Sequence[UID], target: str, *, skip_expunged: bool = False) -> Copied:
        """Copy to another mailbox, or this one: all or none; with `skip_expunged` all that exist.

        Raises: NoSuchMailbox, MessageExpunged if one is gone.
        """

    def move(self, uids: Sequence[UID], target: str) -> Copied:
        """Move (RFC 6851). Each message is in exactly one of the two mailboxes at any moment."""

    def replace(self, uid: UID, target: str, message: NewMessage) -> Appended:
        """Publish a staged message in `target`, and remove a message of this mailbox, in one step (RFC 8508).

        Only what the new one is larger than the old one counts for the quota. After a crash the two are in one of both states.
        Raises: NoSuchMailbox, MessageExpunged, LimitReached, OverQuota, NoSpace.
        """

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

    def email_ids(self, uids: Sequence[UID]) -> Mapping[UID, str]:
        """Return the identifier of the content of each of these messages (rising), without messages that are gone.

        Hex digits. It never changes, and a copied or moved message keeps it (RFC 8474 5.1).
        """

    def measure_rest(self, first: UID, time_slice: TimeSlice) -> UID | None:
        """Read and keep unknown sizes from that UID on, so that `Status.size` has them.

        Return the UID to continue with once the time slice is full, None at the end. Unreadable messages stay unknown.
        """

    def previews(
        self, uids: Sequence[UID], *, only_kept: bool = False, time_slice: TimeSlice | None = None
    ) -> Mapping[UID, str | None]:
        """Return the previews (RFC 8970) of these messages by rising UID, made and kept where missing.

        "" is that of a message without text. With `only_kept` none is made, and None stands for those that are missing.
        Messages that are gone or unreadable are left out. A time slice as for `summaries`.
        """

    def save_dates(self, uids: Sequence[UID]) -> Mapping[UID, int]:
        """Return when each of these messages came into this mailbox (RFC 8514), in seconds since 1970, by rising UID.

        It never changes. No file is opened; messages that are gone are left out.
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

    def sort_keys(self, uids: Sequence[UID], names: Sequence[str]) -> Sequence[tuple[Any, ...]]:
        """Return (uid, and the fields of `message.sort_keys.SortKeys` with these names) of these messages.

        In any order; they are made of the headers and kept where missing. Messages that are gone or unreadable are left
        out.
        """

    def search(self, query: Query, candidates: Sequence[UID]) -> Sequence[UID]:
        """Return the candidates (rising) that match, rising. Messages that are gone do not match."""

    def start_search(self, query: Query, candidates: Sequence[UID]) -> SearchRun:
        """Start a `search` that runs in steps."""


class Account(Protocol):
    """One user's mail."""

    quota: Quota
    """Limits that additions keep to. Set on the reactor's thread, at any time; none at first."""

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

    def mailbox_ids(self, ids: Collection[MailboxId] | None = None) -> Mapping[MailboxId, str]:
        """Return the names of the mailboxes with these ids, or of all.

        Nothing is looked for on disk: mailboxes that this server has never opened are left out.
        """

    def list_paths(self) -> Sequence[str]:
        """Return the directories in which the coming and going of mailboxes shows; none if there are none to watch."""

    def watched_paths(self, name: str) -> Sequence[str]:
        """Return `Mailbox.watched_paths` of that name, whether there is a mailbox or not. On any thread.

        Raises: BadMailboxName.
        """

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

    def annotations(self, name: str | None) -> Annotations:
        """Return the annotations of a mailbox, or with None those of the account. Raises: NoSuchMailbox, StoreUnavailable."""

    def annotations_stamp(self, name: str | None) -> object:
        """Return a value that is equal as long as the annotations are the same; None without any. Raises: StoreUnavailable."""

    def annotate(self, name: str | None, changes: Mapping[str, bytes | None], most: int) -> AnnotationChange | None:
        """Change them, all or none; None removes an entry. A change raises the mailbox's modseq.

        There may be `most` of them. Return None if nothing differs. Raises: NoSuchMailbox, TooManyAnnotations, NoSpace.
        """

    def usage(self, name: str = "INBOX") -> Usage:
        """Return what counts for the quota, up to date for that mailbox if it exists. No message is read."""

    def check_quota(self, messages: int, octets: int) -> None:
        """Raise OverQuota if so many more are certainly too many now. Whatever adds them checks again."""

    def take_quota_warning(self) -> QuotaWarning | None:
        """Return a warning that is due, once. Never blocks; called on the reactor's thread."""

    def mailbox(self, name: str) -> Mailbox:
        """Return a mailbox by name. Raises: NoSuchMailbox."""

    def status(self, name: str) -> Status:
        """Return counts from the index, after taking up other programs' changes. Raises: NoSuchMailbox."""

    def statuses(self, names: Sequence[str], time_slice: TimeSlice) -> Mapping[str, Status | MailError | ScanTooLarge]:
        """Return `status` of many mailboxes, or what it raises, by name; at least one, as many as the time slice allows.

        Raises: StoreUnavailable.
        """

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

    def prepare(self, name: str, messages: Sequence[NewMessage], token: str = "") -> Prepared:
        """Sync the messages with an intent record, to be published later; see `Prepared` for the token.

        Raises: NoSuchMailbox, LimitReached, NoSpace.
        """

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
