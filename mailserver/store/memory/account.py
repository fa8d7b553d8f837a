"""An account in memory: its mailboxes by name, appended and prepared messages; and the store of all accounts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from attrs import frozen

from mailserver.errors import (
    BadMailboxName,
    Cannot,
    InUse,
    LimitReached,
    MailboxExists,
    MailboxHasChildren,
    NoSuchMailbox,
)
from mailserver.message.summary import Summary
from mailserver.store.interfaces import Bounds, MailboxInfo, Status
from mailserver.store.memory.mailbox import MemoryMailbox
from mailserver.store.memory.messages import MemoryStaged, content
from mailserver.store.receiving import Appended, Delivery, NewMessage
from mailserver.types import MailboxId, UIDValidity

INBOX = "INBOX"
LONGEST_NAME = 254
"""Octets; a Maildir++ folder is one directory name with a dot before it."""

_NOT_IN_A_LEVEL = re.compile("[\x00-\x1f\x7f-\x9f.\ud800-\udfff]")


class MemoryPrepared:
    """Messages that wait for `publish`."""

    def __init__(self, mailbox: MemoryMailbox, messages: Sequence[tuple[bytes, Iterable[str], int]]) -> None:
        self._mailbox = mailbox
        self._messages = messages
        self._appended: Appended | None = None
        self._aborted = False

    def publish(self) -> Appended:
        """Publish them. Repeated, it returns the same."""
        if self._aborted:
            raise ValueError("these messages have been aborted")
        if self._appended is None:
            uids = self._mailbox.add(self._messages)
            self._appended = Appended(self._mailbox.id, self._mailbox.uid_validity, uids)
        return self._appended

    def abort(self) -> None:
        """Drop them, unless published."""
        self._aborted = self._appended is None


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
    ) -> None:
        self.user = user
        self.is_there = True
        self.bounds = bounds
        self.summarise = summarise
        self._clock = clock
        self._last_validity = 0
        self._subscribed: set[str] = set()
        self._mailboxes: dict[str, MemoryMailbox] = {}
        self._maildrop: _HeldMaildrop | None = None
        self._make(INBOX)
        for attribute, name in special_use.items():
            self.create(name, frozenset({"\\" + attribute.lstrip("\\")}))

    # --- names

    def mailboxes(self) -> Sequence[MailboxInfo]:
        """Every name, parents included, sorted; INBOX first."""
        names = set(self._mailboxes)
        for name in self._mailboxes:
            names.update(_parents(name))
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

    def subscriptions(self) -> frozenset[str]:
        """Subscribed names, also those that do not exist."""
        return frozenset(self._subscribed)

    def set_subscribed(self, name: str, *, subscribed: bool) -> None:
        """Subscribe or unsubscribe. Raises: BadMailboxName, LimitReached."""
        name = _checked(name)
        if subscribed:
            if name not in self._subscribed and len(self._subscribed) >= self.bounds.mailboxes:
                raise LimitReached
            self._subscribed.add(name)
        else:
            self._subscribed.discard(name)

    def create(self, name: str, special_use: frozenset[str] = frozenset()) -> MailboxId:
        """Make a mailbox and its missing parents. Raises: MailboxExists, BadMailboxName, LimitReached."""
        name = _checked(name)
        if name in self._mailboxes:
            raise MailboxExists
        parents = [parent for parent in _parents(name) if parent not in self._mailboxes]
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
        name = _canonical(name)
        if name == INBOX:
            raise Cannot("INBOX cannot be deleted")
        if name not in self._mailboxes:
            raise MailboxHasChildren if self._children(name) else NoSuchMailbox
        self._mailboxes.pop(name).deleted = True

    def rename(self, old: str, new: str) -> None:
        """Rename with all children. Raises: NoSuchMailbox, MailboxExists, BadMailboxName."""
        old, new = _canonical(old), _checked(new)
        if old not in self._mailboxes and not self._children(old):
            raise NoSuchMailbox
        if new in self._mailboxes:
            raise MailboxExists
        if old == INBOX:
            self.create(new)
            inbox = self._mailboxes[INBOX]
            inbox.move(inbox.all_uids(), new)
            return
        if new.startswith(old + "/"):
            raise BadMailboxName("a mailbox cannot be moved below itself")
        moving = {name: new + name[len(old) :] for name in [old, *self._children(old)] if name in self._mailboxes}
        if any(name in self._mailboxes for name in moving.values()):
            raise MailboxExists
        for name in moving.values():
            _checked(name)
        parents = [parent for parent in _parents(new) if parent not in self._mailboxes]
        self._check_room(len(parents))
        for parent in parents:
            self._make(parent)
        for was, becomes in moving.items():
            mailbox = self._mailboxes.pop(was)
            mailbox.name = becomes
            self._mailboxes[becomes] = mailbox

    def mailbox(self, name: str) -> MemoryMailbox:
        """Return a mailbox by name. Raises: NoSuchMailbox."""
        mailbox = self._mailboxes.get(_canonical(name))
        if mailbox is None:
            raise NoSuchMailbox
        return mailbox

    def status(self, name: str) -> Status:
        """Return counts. Raises: NoSuchMailbox."""
        return self.mailbox(name).status()

    # --- new messages

    def stage(self) -> MemoryStaged:
        """Start receiving a message."""
        return MemoryStaged(bytearray())

    def append(
        self, name: str, messages: Sequence[NewMessage], seen_by: Callable[[MailboxId], bool] = lambda _mailbox: False
    ) -> Appended:
        """Publish staged messages, all or none. Raises: NoSuchMailbox, LimitReached."""
        mailbox = self.mailbox(name)
        mailbox.check_room(len(messages))
        is_claimable = mailbox.first_recent() == mailbox.uid_next
        uids = mailbox.add([(content(new.staged), new.flags, self._date(new)) for new in messages])
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
                outcomes.append(self.append(delivery.name, delivery.messages, seen_by))
            except Exception as error:
                outcomes.append(error)
            for new in delivery.messages:
                new.staged.abort()
        return outcomes

    def prepare(self, name: str, messages: Sequence[NewMessage]) -> MemoryPrepared:
        """Keep them to be published later. Raises: NoSuchMailbox."""
        mailbox = self.mailbox(name)
        mailbox.check_room(len(messages))
        prepared = MemoryPrepared(mailbox, [(content(new.staged), new.flags, self._date(new)) for new in messages])
        for new in messages:
            new.staged.abort()
        return prepared

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
        if len(self._mailboxes) + more > self.bounds.mailboxes:
            raise LimitReached

    def _children(self, name: str) -> list[str]:
        return [other for other in self._mailboxes if other.startswith(name + "/")]

    def _date(self, new: NewMessage) -> int:
        return int(self._clock()) if new.date is None else new.date


class MemoryStore:
    """All accounts, for as long as the process lives. Any user exists."""

    def __init__(
        self,
        summarise: Callable[[bytes], Summary],
        *,
        special_use: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
    ) -> None:
        self._bounds = bounds
        self._summarise = summarise
        self._special_use = special_use or {}
        self._clock = clock
        self._accounts: dict[str, MemoryAccount] = {}

    def account(self, user: str, home: str | None = None) -> MemoryAccount:  # noqa: ARG002 - nothing is on disk
        """Return the account, made if it is new, with INBOX and the special-use folders (attribute -> name)."""
        if user not in self._accounts:
            self._accounts[user] = MemoryAccount(user, self._summarise, self._special_use, self._clock, self._bounds)
        return self._accounts[user]


def _parents(name: str) -> list[str]:
    """Return the names above it: a/b/c has a and a/b."""
    levels = name.split("/")
    return ["/".join(levels[:depth]) for depth in range(1, len(levels))]


def _canonical(name: str) -> str:
    """Return INBOX for INBOX in any case (RFC 3501 5.1)."""
    return INBOX if name.upper() == INBOX else name


def _checked(name: str) -> str:
    """Check that Maildir++ could have this name too. Raises: BadMailboxName."""
    levels = name.split("/")
    # Dovecot reads "~" at the beginning as a home directory, and opens no such mailbox.
    if name.startswith("~") or not all(levels) or any(_NOT_IN_A_LEVEL.search(level) for level in levels):
        raise BadMailboxName
    if len(name.encode()) > LONGEST_NAME:
        raise BadMailboxName("the mailbox name is too long")
    return _canonical(name)
