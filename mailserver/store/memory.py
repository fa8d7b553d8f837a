"""A whole account in memory: the model that every other store is compared with, and the store of transcripts.

It is meant to be obviously right, not fast: plain dicts, every answer computed from the facts when asked. Nothing
survives the process. One thread at a time, as `StoreRunner` promises for an account.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from attrs import define, evolve, frozen

from mailserver.errors import (
    BadMailboxName,
    Cannot,
    InUse,
    LimitReached,
    MailboxChanged,
    MailboxExists,
    MailboxFull,
    MailboxHasChildren,
    MessageExpunged,
    NoSuchMailbox,
    StoreUnavailable,
)
from mailserver.message.summary import Summary
from mailserver.store.interfaces import (
    DELETED,
    KEYWORD_BIT,
    MAX_KEYWORDS,
    SEEN,
    SYSTEM_FLAGS,
    Appended,
    Bounds,
    Changes,
    Copied,
    FlagChange,
    MailboxInfo,
    NewMessage,
    Query,
    Row,
    Snapshot,
    Staged,
    Status,
    Stored,
)
from mailserver.store.search import Search, evaluate
from mailserver.store.search_source import TextsWith, Where
from mailserver.types import UID, MailboxId, ModSeq, UIDValidity

INBOX = "INBOX"
LONGEST_NAME = 254
"""Octets; a Maildir++ folder is one directory name with a dot before it."""

_SYSTEM = {name.lower(): mask for name, mask in SYSTEM_FLAGS.items()}
_NOT_IN_A_LEVEL = re.compile("[\x00-\x1f\x7f-\x9f.\ud800-\udfff]")
_BARE_LF = re.compile(rb"(?<!\r)\n")


@define
class MemoryStaged:
    """A message being received."""

    data: bytearray | None = None
    size: int = 0

    def write(self, data: bytes) -> None:
        """Append bytes."""
        if self.data is None:
            raise ValueError("this staged message has been used or aborted")
        self.data += data
        self.size += len(data)

    def abort(self) -> None:
        """Forget it. Harmless after use and when repeated."""
        self.data = None


class MemoryMessage:
    """An open message."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Those octets, fewer at the end."""
        return self._data[offset:] if count is None else self._data[offset : offset + count]

    def read_now(self, offset: int, count: int) -> bytes | None:  # noqa: ARG002 - as in the interface
        """None: whoever uses the model goes the longer way."""
        return None

    def close(self) -> None:
        """Nothing to give back."""


@frozen
class _Message:
    """One message: its bytes as sent, its flags by mask, when it changed last."""

    data: bytes
    flags: int
    modseq: ModSeq
    date: int

    def row(self, uid: UID) -> Row:
        return Row(uid, self.flags, self.modseq, len(self.data), self.date)


class MemoryMailbox:
    """One mailbox. It is both the state and the handle: whoever holds it after its deletion gets MailboxChanged."""

    watched_paths: tuple[str, ...] = ()
    read_only = False

    def __init__(self, account: MemoryAccount, name: str, uid_validity: UIDValidity) -> None:
        self.id = MailboxId(os.urandom(16))
        self.name = name
        self.special_use: frozenset[str] = frozenset()
        self.deleted = False
        self.uid_validity = uid_validity
        self.uid_next = UID(1)
        self._account = account
        self._messages: dict[UID, _Message] = {}
        self._expunged: list[tuple[ModSeq, UID]] = []
        self._keywords: list[str] = []
        self._modseq = ModSeq(1)
        self._recent_from = UID(1)

    # --- reading

    def foreign_names(self, names: Collection[str]) -> Collection[str]:
        """All of them."""
        return names

    def refresh(self, names: Collection[str] | None = None) -> None:  # noqa: ARG002 - no other program writes here
        """Nobody else writes here."""
        self._check()

    def load(self) -> Snapshot:
        """The mailbox whole."""
        self._check()
        rows = [message.row(uid) for uid, message in self._messages.items()]
        return Snapshot.of(rows, self._modseq, tuple(self._keywords), self.uid_next, self.uid_validity)

    def changes_since(self, modseq: ModSeq) -> Changes:
        """What happened after `modseq`. Raises: MailboxChanged."""
        self._check()
        rows = [message.row(uid) for uid, message in self._messages.items() if message.modseq > modseq]
        expunged = sorted(uid for when, uid in self._expunged if when > modseq)
        return Changes(modseq, self._modseq, rows, expunged, tuple(self._keywords), self.uid_next)

    def history_floor(self) -> ModSeq:
        """All expunges are known."""
        self._check()
        return ModSeq(1)

    def exclusive(self) -> AbstractContextManager[None]:
        """Nobody else ever does."""
        return nullcontext()

    def claim_recent(self) -> UID:
        """Take the \\Recent messages for one session."""
        self._check()
        claimed, self._recent_from = self._recent_from, self.uid_next
        return claimed

    def status(self) -> Status:
        """Counts."""
        self._check()
        flags = [message.flags for message in self._messages.values()]
        return Status(
            messages=len(flags),
            recent=sum(uid >= self._recent_from for uid in self._messages),
            unseen=sum(not mask & SEEN for mask in flags),
            deleted=sum(bool(mask & DELETED) for mask in flags),
            uid_next=self.uid_next,
            uid_validity=self.uid_validity,
            highest_modseq=self._modseq,
        )

    def total_size(self) -> int:
        """Octets of all messages."""
        self._check()
        return sum(len(message.data) for message in self._messages.values())

    def summaries(
        self,
        uids: Sequence[UID],
        *,
        only_head: bool = False,  # noqa: ARG002 - all of it is at hand
    ) -> Sequence[tuple[UID, Row, Summary]]:
        """Made anew each time; messages gone are left out."""
        self._check()
        return [
            (uid, self._messages[uid].row(uid), self._account.summarise(self._messages[uid].data))
            for uid in self._present(uids)
        ]

    def open_message(self, uid: UID) -> MemoryMessage:
        """Open it. Raises: MessageExpunged."""
        self._check()
        if uid not in self._messages:
            raise MessageExpunged
        return MemoryMessage(self._messages[uid].data)

    def read_whole(self, uids: Sequence[UID], limit: int) -> Sequence[tuple[UID, bytes]]:
        """The first of those messages, up to `limit` octets together."""
        found = []
        for uid in uids:
            try:
                message = self.open_message(uid)
            except (MessageExpunged, StoreUnavailable):
                break
            limit -= message.size
            data = message.read() if limit >= 0 else b""
            message.close()
            if limit < 0 or len(data) != message.size:
                break
            found.append((uid, data))
        return found

    def search(self, query: Query, candidates: Sequence[UID]) -> Sequence[UID]:
        """Those of the candidates that match, rising."""
        self._check()
        return evaluate(query, self._present(candidates), self._source())

    def searching(self, query: Query, candidates: Sequence[UID]) -> Search:
        """As `search`, in steps."""
        self._check()
        return Search(query, self._present(candidates), self._source())

    def _source(self) -> _MemorySource:
        return _MemorySource(self._messages, self._mask, self._account)

    # --- changing

    def store_flags(
        self, uids: Sequence[UID], how: FlagChange, flags: Iterable[str], unchanged_since: ModSeq | None = None
    ) -> Stored:
        """Change flags. Raises: LimitReached for a 27th keyword."""
        self._check()
        before = self._modseq
        present = self._present(uids)
        gone = sorted(set(uids) - set(present))
        modified = [
            uid for uid in present if unchanged_since is not None and self._messages[uid].modseq > unchanged_since
        ]
        changing = sorted(set(present) - set(modified))
        if changing:
            names = list(flags)
            mask = sum({self._mask(name) for name in names}) if how is FlagChange.REMOVE else self._make_mask(names)
            modseq = ModSeq(self._modseq + 1)
            for uid in changing:
                message = self._messages[uid]
                new = {
                    FlagChange.ADD: message.flags | mask,
                    FlagChange.REMOVE: message.flags & ~mask,
                    FlagChange.REPLACE: mask,
                }[how]
                if new != message.flags:
                    self._messages[uid] = evolve(message, flags=new, modseq=modseq)
                    self._modseq = modseq
        return Stored(modified, gone, before)

    def expunge(self, uids: Sequence[UID], *, only_deleted: bool = True) -> Sequence[UID]:
        """Remove them; the UIDs removed, rising."""
        self._check()
        going = [uid for uid in self._present(uids) if self._messages[uid].flags & DELETED or not only_deleted]
        if going:
            self._modseq = ModSeq(self._modseq + 1)
        for uid in going:
            del self._messages[uid]
            self._expunged.append((self._modseq, uid))
        return going

    def copy(self, uids: Sequence[UID], target: str) -> Copied:
        """Copy, all or none. Raises: NoSuchMailbox, MessageExpunged, LimitReached."""
        self._check()
        into = self._account.mailbox(target)
        present = self._present(uids)
        if len(present) != len(set(uids)):
            raise MessageExpunged
        into.check_room(len(present))
        return self._copy(present, into)

    def _copy(self, present: Sequence[UID], into: MemoryMailbox) -> Copied:
        copies = [(self._messages[uid].data, self._names(uid), self._messages[uid].date) for uid in present]
        return Copied(into.id, into.uid_validity, list(present), into.add(copies))

    def move(self, uids: Sequence[UID], target: str) -> Copied:
        """Move what is there of them. Raises: NoSuchMailbox, LimitReached."""
        self._check()
        into = self._account.mailbox(target)
        present = self._present(uids)
        if into is not self:
            into.check_room(len(present))
        copied = self._copy(present, into)
        self.expunge(copied.source, only_deleted=False)
        return copied

    def add(self, messages: Sequence[tuple[bytes, Iterable[str], int]]) -> list[UID]:
        """Put messages (octets, flag names, date) in, all or none. Raises: LimitReached."""
        self._check()
        names = [list(flags) for _data, flags, _date in messages]
        self._make_mask([name for group in names for name in group])
        if messages:
            self._modseq = ModSeq(self._modseq + 1)
        uids = []
        for (data, _flags, date), group in zip(messages, names, strict=True):
            sent = _BARE_LF.sub(b"\r\n", bytes(data))
            self._messages[self.uid_next] = _Message(sent, self._make_mask(group), self._modseq, date)
            uids.append(self.uid_next)
            self.uid_next = UID(self.uid_next + 1)
        return uids

    def check_room(self, more: int) -> None:
        """Raises: MailboxFull where so many more would be too many."""
        if len(self._messages) + more > self._account.bounds.messages:
            raise MailboxFull

    def all_uids(self) -> list[UID]:
        """Every UID, rising."""
        return list(self._messages)

    # --- small parts

    def _check(self) -> None:
        if self.deleted:
            raise MailboxChanged

    def _present(self, uids: Iterable[UID]) -> list[UID]:
        return sorted(uid for uid in set(uids) if uid in self._messages)

    def _mask(self, name: str) -> int:
        """The bit of a flag, 0 for a keyword that the mailbox does not have."""
        if name.lower() in _SYSTEM:
            return _SYSTEM[name.lower()]
        known = [keyword.lower() for keyword in self._keywords]
        return 1 << KEYWORD_BIT + known.index(name.lower()) if name.lower() in known else 0

    def _make_mask(self, names: Sequence[str]) -> int:
        """The bits of those flags; new keywords are made, all or none."""
        new: dict[str, str] = {}
        for name in names:
            if not self._mask(name):
                new.setdefault(name.lower(), name)
        if len(self._keywords) + len(new) > MAX_KEYWORDS:
            raise LimitReached("a mailbox can have 26 keywords")
        self._keywords += new.values()
        return sum({self._mask(name) for name in names})

    def _names(self, uid: UID) -> list[str]:
        mask = self._messages[uid].flags
        return [name for name in [*SYSTEM_FLAGS, *self._keywords] if self._mask(name) & mask]


@frozen
class _MemorySource:
    """What SEARCH asks of a mailbox."""

    messages: Mapping[UID, _Message]
    mask: Callable[[str], int]
    account: MemoryAccount

    def rows(self, uids: Iterable[UID]) -> Iterable[Row]:
        return [self.messages[uid].row(uid) for uid in uids if uid in self.messages]

    def measure(self, uids: Sequence[UID]) -> None:
        """Sizes and dates are always known."""

    def flag_mask(self, name: str) -> int:
        return self.mask(name)

    def summaries(self, uids: Iterable[UID]) -> Iterable[tuple[UID, str, int | None]]:
        for uid in uids:
            if uid in self.messages:
                summary = self.account.summarise(self.messages[uid].data)
                yield uid, summary.search, summary.sent

    def texts_with(self, uids: Sequence[UID], needles: Sequence[str]) -> TextsWith:  # noqa: ARG002 - nothing is kept
        return TextsWith(open=uids)

    def indexed(self, uids: Sequence[UID], needle: str, where: Where) -> None:  # noqa: ARG002 - there is none
        return None

    def present(self, uids: Sequence[UID]) -> Sequence[UID]:
        return [uid for uid in uids if uid in self.messages]

    def sources(self, uids: Iterable[UID]) -> Iterable[tuple[UID, bytes]]:
        return [(uid, self.messages[uid].data) for uid in uids if uid in self.messages]


class MemoryPrepared:
    """Messages that only wait for `publish`."""

    def __init__(self, mailbox: MemoryMailbox, messages: Sequence[tuple[bytes, Iterable[str], int]]) -> None:
        self._mailbox = mailbox
        self._messages = messages
        self._appended: Appended | None = None
        self._aborted = False

    def publish(self) -> Appended:
        """Make them visible. Repeated, it tells the same again."""
        if self._aborted:
            raise ValueError("these messages have been given up")
        if self._appended is None:
            uids = self._mailbox.add(self._messages)
            self._appended = Appended(self._mailbox.id, self._mailbox.uid_validity, uids)
        return self._appended

    def abort(self) -> None:
        """Forget them, unless published."""
        self._aborted = self._appended is None


class _HeldMaildrop:
    """Implements `store.interfaces.MaildropLock`."""

    held = True

    def release(self) -> None:
        """Give it up."""
        self.held = False


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
        """Raises: NoSuchMailbox."""
        mailbox = self._mailboxes.get(_canonical(name))
        if mailbox is None:
            raise NoSuchMailbox
        return mailbox

    def status(self, name: str) -> Status:
        """Counts. Raises: NoSuchMailbox."""
        return self.mailbox(name).status()

    def total_size(self, name: str) -> int:
        """Sum of message sizes as sent. Raises: NoSuchMailbox."""
        return self.mailbox(name).total_size()

    # --- new messages

    def stage(self) -> MemoryStaged:
        """Begin to receive a message."""
        return MemoryStaged(bytearray())

    def append(
        self, name: str, messages: Sequence[NewMessage], seen_by: Callable[[MailboxId], bool] = lambda _mailbox: False
    ) -> Appended:
        """Make staged messages visible, all or none. Raises: NoSuchMailbox, LimitReached."""
        mailbox = self.mailbox(name)
        mailbox.check_room(len(messages))
        uids = mailbox.add([(_content(new.staged), new.flags, self._date(new)) for new in messages])
        for new in messages:
            new.staged.abort()
        claimed = seen_by(mailbox.id)
        if claimed:
            mailbox.claim_recent()
        return Appended(mailbox.id, mailbox.uid_validity, uids, claimed)

    def prepare(self, name: str, messages: Sequence[NewMessage]) -> MemoryPrepared:
        """Take them to be published later. Raises: NoSuchMailbox."""
        mailbox = self.mailbox(name)
        mailbox.check_room(len(messages))
        prepared = MemoryPrepared(mailbox, [(_content(new.staged), new.flags, self._date(new)) for new in messages])
        for new in messages:
            new.staged.abort()
        return prepared

    def lock_maildrop(self) -> _HeldMaildrop:
        """Raises: InUse."""
        if self._maildrop is not None and self._maildrop.held:
            raise InUse("another session has the maildrop locked")
        self._maildrop = _HeldMaildrop()
        return self._maildrop

    @property
    def has_upkeep(self) -> bool:
        """There is none."""
        return False

    def keep_up(self, stop: Callable[[], bool]) -> float | None:  # noqa: ARG002 - there is none
        """Nothing to do."""
        return None

    def close(self) -> None:
        """Nothing to give up."""

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
        """The account, made when it is new, with INBOX and the special-use folders (attribute -> name)."""
        if user not in self._accounts:
            self._accounts[user] = MemoryAccount(user, self._summarise, self._special_use, self._clock, self._bounds)
        return self._accounts[user]


def _parents(name: str) -> list[str]:
    """The names above it: a/b/c has a and a/b."""
    levels = name.split("/")
    return ["/".join(levels[:depth]) for depth in range(1, len(levels))]


def _canonical(name: str) -> str:
    """INBOX in any case is INBOX (RFC 3501 5.1)."""
    return INBOX if name.upper() == INBOX else name


def _checked(name: str) -> str:
    """A name that Maildir++ could hold too. Raises: BadMailboxName."""
    levels = name.split("/")
    # Dovecot reads "~" at the beginning as a home directory, and opens no such mailbox.
    if name.startswith("~") or not all(levels) or any(_NOT_IN_A_LEVEL.search(level) for level in levels):
        raise BadMailboxName
    if len(name.encode()) > LONGEST_NAME:
        raise BadMailboxName("the mailbox name is too long")
    return _canonical(name)


def _content(staged: Staged) -> bytes:
    if not isinstance(staged, MemoryStaged) or staged.data is None:
        raise ValueError("not a message staged here, or used already")
    return bytes(staged.data)
