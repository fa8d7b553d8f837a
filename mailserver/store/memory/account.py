"""An account in memory: its mailboxes by name, appended and prepared messages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from attrs import frozen

from mailserver.errors import (
    BadMailboxName,
    Cannot,
    InUse,
    LimitReached,
    MailboxExists,
    MailboxHasChildren,
    MailError,
    NoSuchMailbox,
    OverQuota,
)
from mailserver.message.summary import Summary
from mailserver.store.annotations import AnnotationChange, Annotations, merge
from mailserver.store.interfaces import Bounds, MailboxInfo, ScanTooLarge, Status
from mailserver.store.memory.mailbox import MemoryMailbox
from mailserver.store.memory.messages import MemoryStaged, as_sent, content
from mailserver.store.memory.names import INBOX, canonical, checked_name, parents_of
from mailserver.store.memory.prepared import MemoryPrepared
from mailserver.store.quota import QuotaWarning, check, percent_used, warned_level
from mailserver.store.receiving import Appended, Delivery, NewMessage
from mailserver.store.time_slice import TimeSlice
from mailserver.types import MailboxId, Quota, UIDValidity, Usage


class _HeldMaildrop:
    """Implements `store.interfaces.MaildropLock`."""

    held = True

    def release(self) -> None:
        """Release it."""
        self.held = False


@frozen(eq=False)
class MemoryList:
    """The mailboxes at one moment."""

    infos: Sequence[MailboxInfo]
    subscribed: frozenset[str]

    def is_current(self) -> bool:
        """Never certain: the account is in memory, and reading it again costs little."""
        return False


class MemoryAccount:
    """One user's mail."""

    def __init__(
        self,
        user: str,
        summarise: Callable[[bytes], Summary],
        special_use: Mapping[str, str],
        clock: Callable[[], float],
        bounds: Bounds,
        *,
        quota_warnings: tuple[int, ...] = (),
    ) -> None:
        self.user = user
        self.is_there = True
        self.bounds = bounds
        self.summarise = summarise
        self.quota = Quota()
        self._quota_warnings = quota_warnings
        self._warned = 0
        self._due: QuotaWarning | None = None
        self._waiting: list[MemoryPrepared] = []
        self._clock = clock
        self._last_validity = 0
        self._subscribed: set[str] = set()
        self._mailboxes: dict[str, MemoryMailbox] = {}
        self._maildrop: _HeldMaildrop | None = None
        self._annotations: Annotations = {}
        self._make(INBOX)
        for attribute, name in special_use.items():
            self.create(name, frozenset({"\\" + attribute.lstrip("\\")}))

    # --- quota

    def usage(self, name: str = INBOX) -> Usage:  # noqa: ARG002 - all mailboxes are up to date
        """Return what counts for the quota."""
        counts = [mailbox.status() for mailbox in self._mailboxes.values()]
        self._waiting = [each for each in self._waiting if each.waits]
        waiting = [len(data) for each in self._waiting for data in each.contents]
        return Usage(
            sum(each.size for each in counts) + sum(waiting),
            sum(each.messages for each in counts) + len(waiting),
            len(counts),
        )

    def check_quota(self, messages: int, octets: int) -> None:
        """Raise OverQuota if so many more are too many."""
        self._check(messages, octets)

    def _check(self, messages: int, octets: int) -> Usage:
        before = self.usage()
        try:
            check(self.quota, before, messages, octets)
        except OverQuota:
            self._warn(before, before, refused=True)
            raise
        return before

    def check_more(self, contents: Sequence[bytes]) -> None:
        """Check the quota before these messages are added. Raises: OverQuota."""
        octets = sum(len(as_sent(data)) for data in contents)
        before = self._check(len(contents), octets)
        after = before._replace(storage=before.storage + octets, messages=before.messages + len(contents))
        self._warn(before, after, refused=False)

    def check_replacement(self, old: bytes, new: bytes) -> None:
        """Check the quota before a message takes the place of another. Raises: OverQuota."""
        octets = len(as_sent(new)) - len(as_sent(old))
        before = self._check(0, octets)
        self._warn(before, before._replace(storage=before.storage + octets), refused=False)

    def _warn(self, before: Usage, after: Usage, *, refused: bool) -> None:
        percents = percent_used(self.quota, before), percent_used(self.quota, after)
        if not self.quota.limits_messages:
            return
        self._warned, is_due = warned_level(self._warned, self._quota_warnings, *percents, refused=refused)
        if is_due:
            self._due = QuotaWarning(self._warned, after, self.quota)

    def take_quota_warning(self) -> QuotaWarning | None:
        """Return a warning that is due, once."""
        due, self._due = self._due, None
        return due

    # --- names

    def mailboxes(self) -> Sequence[MailboxInfo]:
        """Every name, parents included, sorted; INBOX first."""
        names = set(self._mailboxes)
        for name in self._mailboxes:
            names.update(parents_of(name))
        infos = []
        for name in sorted(names, key=lambda name: (name != INBOX, name)):
            mailbox = self._mailboxes.get(name)
            infos.append(
                MailboxInfo(
                    name,
                    mailbox is not None,
                    mailbox.special_use if mailbox else frozenset(),
                    name in self._subscribed,
                )
            )
        return infos

    def mailbox_list(self) -> MemoryList:
        """The same with the subscriptions."""
        return MemoryList(self.mailboxes(), self.subscriptions())

    def mailbox_ids(self, ids: Collection[MailboxId] | None = None) -> Mapping[MailboxId, str]:
        """The names of the mailboxes with these ids, or of all."""
        every = {mailbox.id: name for name, mailbox in self._mailboxes.items()}
        return every if ids is None else {each: every[each] for each in ids if each in every}

    def list_paths(self) -> Sequence[str]:
        """None: nothing is on disk."""
        return ()

    def watched_paths(self, name: str) -> Sequence[str]:  # noqa: ARG002 - nothing is on disk
        """None."""
        return ()

    def subscriptions(self) -> frozenset[str]:
        """Subscribed names, also those that do not exist."""
        return frozenset(self._subscribed)

    def set_subscribed(self, name: str, *, subscribed: bool) -> None:
        """Subscribe or unsubscribe. Raises: BadMailboxName, LimitReached."""
        name = checked_name(name)
        if subscribed:
            if name not in self._subscribed and len(self._subscribed) >= self.bounds.mailboxes:
                raise LimitReached
            self._subscribed.add(name)
        else:
            self._subscribed.discard(name)

    def create(self, name: str, special_use: frozenset[str] = frozenset()) -> MailboxId:
        """Make a mailbox and its missing parents. Raises: MailboxExists, BadMailboxName, LimitReached."""
        name = checked_name(name)
        if name in self._mailboxes:
            raise MailboxExists
        parents = [parent for parent in parents_of(name) if parent not in self._mailboxes]
        self._check_room(len(parents) + 1)
        for parent in parents:
            self._make(parent)
        for other in self._mailboxes.values():
            other.special_use -= special_use
        mailbox = self._make(name)
        mailbox.special_use = special_use
        return mailbox.id

    def delete(self, name: str) -> None:
        """Remove a mailbox. Raises: NoSuchMailbox, MailboxHasChildren, Cannot."""
        name = canonical(name)
        if name == INBOX:
            raise Cannot("INBOX cannot be deleted")
        if name not in self._mailboxes:
            raise MailboxHasChildren if self._children(name) else NoSuchMailbox
        self._mailboxes.pop(name).deleted = True

    def rename(self, old: str, new: str) -> None:
        """Rename with all children. Raises: NoSuchMailbox, MailboxExists, BadMailboxName."""
        old, new = canonical(old), checked_name(new)
        if old not in self._mailboxes and not self._children(old):
            raise NoSuchMailbox
        if new in self._mailboxes:
            raise MailboxExists
        if old == INBOX:
            self.create(new)
            inbox = self._mailboxes[INBOX]
            self._mailboxes[new].annotations = inbox.annotations
            inbox.move(inbox.all_uids(), new)
            return
        if new.startswith(old + "/"):
            raise BadMailboxName("a mailbox cannot be moved below itself")
        moving = {name: new + name[len(old) :] for name in [old, *self._children(old)] if name in self._mailboxes}
        if any(name in self._mailboxes for name in moving.values()):
            raise MailboxExists
        for name in moving.values():
            checked_name(name)
        parents = [parent for parent in parents_of(new) if parent not in self._mailboxes]
        self._check_room(len(parents))
        for parent in parents:
            self._make(parent)
        for was, becomes in moving.items():
            mailbox = self._mailboxes.pop(was)
            mailbox.name = becomes
            self._mailboxes[becomes] = mailbox

    def annotations(self, name: str | None) -> Annotations:
        """Return those of a mailbox, or of the account. Raises: NoSuchMailbox."""
        return self._annotations if name is None else self.mailbox(name).annotations

    def annotations_stamp(self, name: str | None) -> object:
        """Return the annotations themselves, which are replaced by a change; None without any. Raises: NoSuchMailbox."""
        return self.annotations(name) or None

    def annotate(self, name: str | None, changes: Mapping[str, bytes | None], most: int) -> AnnotationChange | None:
        """Change them, all or none. Raises: NoSuchMailbox, TooManyAnnotations."""
        merged, entries = merge(self.annotations(name), changes, most)
        if not entries:
            return None
        if name is None:
            self._annotations = merged
            return AnnotationChange(None, entries)
        mailbox = self.mailbox(name)
        mailbox.annotate(merged)
        return AnnotationChange(mailbox.id, entries)

    def mailbox(self, name: str) -> MemoryMailbox:
        """Return a mailbox by name. Raises: NoSuchMailbox."""
        mailbox = self._mailboxes.get(canonical(name))
        if mailbox is None:
            raise NoSuchMailbox
        return mailbox

    def status(self, name: str) -> Status:
        """Return counts. Raises: NoSuchMailbox."""
        return self.mailbox(name).status()

    def statuses(self, names: Sequence[str], time_slice: TimeSlice) -> Mapping[str, Status | MailError | ScanTooLarge]:
        """Return counts of many mailboxes."""
        found: dict[str, Status | MailError | ScanTooLarge] = {}
        for name in names:
            try:
                found[name] = self.status(name)
            except MailError as error:
                found[name] = error
            if time_slice.take(1):
                break
        return found

    # --- new messages

    def stage(self) -> MemoryStaged:
        """Start receiving a message."""
        return MemoryStaged(bytearray())

    def append(
        self,
        name: str,
        messages: Sequence[NewMessage],
        seen_by: Callable[[MailboxId], bool] = lambda _mailbox: False,
        *,
        beyond_quota: bool = False,
    ) -> Appended:
        """Publish staged messages, all or none. Raises: NoSuchMailbox, LimitReached, OverQuota."""
        mailbox = self.mailbox(name)
        mailbox.check_room(len(messages))
        if not beyond_quota:
            self.check_more([content(new.staged) for new in messages])
        is_claimable = mailbox.first_recent() == mailbox.uid_next
        uids = mailbox.add([(content(new.staged), new.flags, self.date_of(new)) for new in messages])
        for new in messages:
            new.staged.abort()
        claimed = is_claimable and seen_by(mailbox.id)
        if claimed:
            mailbox.claim_recent()
        return Appended(mailbox.id, mailbox.uid_validity, uids, claimed)

    def deliver(
        self, deliveries: Sequence[Delivery], seen_by: Callable[[MailboxId], bool] = lambda _mailbox: False
    ) -> list[Appended | Exception]:
        """Append one after the other."""
        outcomes: list[Appended | Exception] = []
        for delivery in deliveries:
            try:
                outcomes.append(
                    self.append(delivery.name, delivery.messages, seen_by, beyond_quota=delivery.beyond_quota)
                )
            except Exception as error:
                outcomes.append(error)
            for new in delivery.messages:
                new.staged.abort()
        return outcomes

    def prepare(self, name: str, messages: Sequence[NewMessage], token: str = "") -> MemoryPrepared:
        """Keep them to be published later. Raises: NoSuchMailbox."""
        mailbox = self.mailbox(name)
        mailbox.check_room(len(messages))
        self.check_more([content(new.staged) for new in messages])
        contents = [(content(new.staged), new.flags, self.date_of(new)) for new in messages]
        prepared = MemoryPrepared(mailbox, contents, token)
        self._waiting.append(prepared)
        for new in messages:
            new.staged.abort()
        return prepared

    def recover(self, decided: Callable[[str], bool] | None = None) -> None:
        """Settle prepared messages as the next holder of an account's lock does once their process is dead."""
        for each in self._waiting:
            if not each.waits:
                continue
            if not each.token or (decided is not None and decided(each.token)):
                each.publish()
            elif decided is not None:
                each.abort()

    def lock_maildrop(self) -> _HeldMaildrop:
        """Lock the maildrop. Raises: InUse."""
        if self._maildrop is not None and self._maildrop.held:
            raise InUse("another session has the maildrop locked")
        self._maildrop = _HeldMaildrop()
        return self._maildrop

    @property
    def has_maintenance(self) -> bool:
        """False: there is no maintenance."""
        return False

    def bounded(self) -> AbstractContextManager[None]:
        """Do nothing, as nothing is read from disk."""
        return nullcontext()

    def maintain(self, stop: Callable[[], bool]) -> float | None:  # noqa: ARG002 - there is none
        """Do nothing."""
        return None

    def close(self) -> None:
        """Do nothing, as nothing is open."""

    # --- small parts

    def _make(self, name: str) -> MemoryMailbox:
        self._last_validity = max(self._last_validity + 1, int(self._clock()))
        mailbox = self._mailboxes[name] = MemoryMailbox(self, name, UIDValidity(self._last_validity))
        return mailbox

    def _check_room(self, more: int) -> None:
        if more and len(self._mailboxes) + more > self.bounds.mailboxes:
            raise LimitReached
        if more and self.quota.mailboxes is not None and len(self._mailboxes) + more > self.quota.mailboxes:
            raise OverQuota

    def _children(self, name: str) -> list[str]:
        return [other for other in self._mailboxes if other.startswith(name + "/")]

    def now(self) -> int:
        """The time, in seconds since 1970."""
        return int(self._clock())

    def date_of(self, new: NewMessage) -> int:
        """The INTERNALDATE that a message will have."""
        return self.now() if new.date is None else new.date
