"""A mailbox in memory: its messages, flags and UIDs. Every answer is computed from them."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from attrs import evolve

from mailserver.errors import LimitReached, MailboxChanged, MailboxFull, MessageExpunged, StoreUnavailable
from mailserver.message.preview import preview
from mailserver.message.sort_keys import groups_of, message_sort_keys, picked
from mailserver.message.summary import Summary
from mailserver.store.annotations import Annotations
from mailserver.store.flags import DELETED, KEYWORD_BIT, LETTERS, SEEN, SYSTEM_FLAGS, FlagChange, check_room
from mailserver.store.interfaces import Copied, Pop3Record, Status, Stored
from mailserver.store.memory.messages import KeptMessage, MemoryMessage, MemorySearchSource, as_sent, content
from mailserver.store.query import Query
from mailserver.store.receiving import Appended, NewMessage
from mailserver.store.recent_uids import NONE_CLAIMED
from mailserver.store.rows import Changes, Row, Snapshot
from mailserver.store.search import Search, evaluate
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID, MailboxId, ModSeq, UIDValidity

if TYPE_CHECKING:
    from mailserver.store.memory.account import MemoryAccount

_SYSTEM = {name.lower(): mask for name, mask in SYSTEM_FLAGS.items()}


class MemoryMailbox:
    """One mailbox, both the state and the handle. After its deletion a holder gets MailboxChanged."""

    watched_paths: tuple[str, ...] = ()
    read_only = False

    def __init__(self, account: MemoryAccount, name: str, uid_validity: UIDValidity) -> None:
        self.id = MailboxId(os.urandom(16))
        self.name = name
        self.special_use: frozenset[str] = frozenset()
        self.annotations: Annotations = {}
        self.deleted = False
        self.uid_validity = uid_validity
        self.uid_next = UID(1)
        self._account = account
        self._messages: dict[UID, KeptMessage] = {}
        self._expunged: list[tuple[ModSeq, UID]] = []
        self._floor = ModSeq(0)
        """Expunges after this modseq are known."""
        self._previews: dict[UID, str] = {}
        self._keywords: list[str] = []
        self._modseq = ModSeq(1)
        self._recent_from = UID(1)

    # --- reading

    def foreign_names(self, names: Collection[str]) -> Collection[str]:
        """Return all of them."""
        return names

    def is_own_name(self, name: str) -> bool:  # noqa: ARG002 - there are no files
        """Return False."""
        return False

    def refresh(self, names: Collection[str] | None = None, *, claims: bool = False) -> range:  # noqa: ARG002
        """Do nothing, as no other program writes here."""
        self._check()
        return NONE_CLAIMED

    def load(self) -> Snapshot:
        """Load the whole mailbox."""
        self._check()
        rows = [message.row(uid) for uid, message in self._messages.items()]
        return Snapshot.of(rows, self._modseq, tuple(self._keywords), self.uid_next, self.uid_validity)

    def changes_since(self, modseq: ModSeq) -> Changes:
        """Return what happened after `modseq`. Raises: MailboxChanged."""
        self._check()
        rows = [message.row(uid) for uid, message in self._messages.items() if message.modseq > modseq]
        expunged = self.expunged_since(modseq) or ()
        present = array("I", self._messages) if modseq < self._floor else None
        return Changes(modseq, self._modseq, rows, expunged, tuple(self._keywords), self.uid_next, present)

    def expunged_since(self, modseq: ModSeq) -> Sequence[UID] | None:
        """Return the UIDs that were expunged after `modseq`, None before the history. Raises: MailboxChanged."""
        self._check()
        if not self._floor <= modseq <= self._modseq:
            return None
        return sorted(uid for when, uid in self._expunged if when > modseq)

    def exclusive(self) -> AbstractContextManager[None]:
        """Do nothing, as nobody else changes it."""
        return nullcontext()

    def first_recent(self) -> UID:
        """Return the lowest unclaimed UID."""
        self._check()
        return self._recent_from

    def claim_recent(self, below: UID | None = None) -> range:
        """Claim the \\Recent messages for one session."""
        self._check()
        start, end = self._recent_from, self.uid_next if below is None else min(below, self.uid_next)
        self._recent_from = max(start, end)
        return range(start, end)

    def status(self) -> Status:
        """Return counts."""
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
            size=sum(len(message.data) for message in self._messages.values()),
            deleted_size=sum(len(message.data) for message in self._messages.values() if message.flags & DELETED),
            mailbox=self.id,
        )

    def summaries(
        self,
        uids: Sequence[UID],
        *,
        only_head: bool = False,  # noqa: ARG002 - all of it is at hand
        time_slice: TimeSlice | None = None,
    ) -> Sequence[tuple[UID, Row, Summary]]:
        """Make them anew at each call, without messages that are gone."""
        self._check()
        found = []
        for uid in self._present(uids):
            summary = self._account.summarise(self._messages[uid].data)
            found.append((uid, self._messages[uid].row(uid), summary))
            if time_slice is not None and time_slice.take(sum(map(len, summary[:4]))):
                break
        return found

    def envelopes(self, uids: Sequence[UID], *, time_slice: TimeSlice | None = None) -> Mapping[UID, bytes]:
        """Make them anew at each call."""
        return self._made(lambda summary: summary.envelope, uids, time_slice)

    def kept_lines(self, uids: Sequence[UID], *, time_slice: TimeSlice | None = None) -> Mapping[UID, bytes]:
        """Make them anew at each call."""
        return self._made(lambda summary: summary.fields, uids, time_slice)

    def _made(
        self, value: Callable[[Summary], bytes], uids: Sequence[UID], time_slice: TimeSlice | None
    ) -> Mapping[UID, bytes]:  # fmt: skip
        self._check()
        found = {}
        for uid in self._present(uids):
            found[uid] = value(self._account.summarise(self._messages[uid].data))
            if time_slice is not None and time_slice.take(len(found[uid])):
                break
        return found

    def measure(
        self,
        uids: Sequence[UID],
        *,
        only_dates: bool = False,  # noqa: ARG002 - all is known
        time_slice: TimeSlice | None = None,  # noqa: ARG002 - the same
    ) -> Sequence[Row]:
        """Return the rows, without messages that are gone."""
        self._check()
        return [self._messages[uid].row(uid) for uid in self._present(uids)]

    def measure_rest(self, first: UID, time_slice: TimeSlice) -> UID | None:  # noqa: ARG002 - all sizes are known
        """Do nothing, as all sizes are known."""
        self._check()
        return None

    def previews(
        self,
        uids: Sequence[UID],
        *,
        only_kept: bool = False,
        time_slice: TimeSlice | None = None,
    ) -> Mapping[UID, str | None]:
        """Return the previews, made and kept where missing."""
        self._check()
        found: dict[UID, str | None] = {}
        for uid in self._present(uids):
            if uid not in self._previews and not only_kept:
                self._previews[uid] = preview(self._messages[uid].data)
            found[uid] = self._previews.get(uid)
            if time_slice is not None and time_slice.take(len(found[uid] or "")):
                break
        return found

    def save_dates(self, uids: Sequence[UID]) -> Mapping[UID, int]:
        """Return the save dates, without messages that are gone."""
        self._check()
        return self._source().save_dates(self._present(uids))

    def email_ids(self, uids: Sequence[UID]) -> Mapping[UID, str]:
        """Return the identifiers of the messages' content."""
        self._check()
        return self._source().email_ids(self._present(uids))

    def pop3_records(self, *, names: bool = False) -> Mapping[UID, Pop3Record]:
        """Return none: there was no other server."""
        del names
        return {}

    def open_message(self, uid: UID) -> MemoryMessage:
        """Open a message. Raises: MessageExpunged."""
        self._check()
        if uid not in self._messages:
            raise MessageExpunged
        return MemoryMessage(self._messages[uid].data)

    def read_whole(self, uids: Sequence[UID], limit: int) -> Sequence[tuple[UID, bytes]]:
        """Read the first of these messages, up to `limit` octets in all."""
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

    def read_cached(self, uid: UID, size: int | None, only_header: bool) -> bytes | None:
        """Return None: the model has its messages read in the account's turn."""
        del uid, size, only_header
        return None

    def sort_keys(self, uids: Sequence[UID], names: Sequence[str]) -> Sequence[tuple[Any, ...]]:
        """Make them anew at each call."""
        self._check()
        return [
            (uid, *picked(message_sort_keys(self._messages[uid].data, groups_of(names)), names))
            for uid in self._present(uids)
        ]

    def search(self, query: Query, candidates: Sequence[UID]) -> Sequence[UID]:
        """Return the candidates that match, rising."""
        self._check()
        return evaluate(query, candidates, self._source())

    def start_search(self, query: Query, candidates: Sequence[UID]) -> Search:
        """Start a `search` in steps."""
        self._check()
        return Search(query, candidates, self._source())

    def _source(self) -> MemorySearchSource:
        return MemorySearchSource(self._messages, self._mask)

    # --- changing

    def store_flags(
        self, uids: Sequence[UID], how: FlagChange, flags: Iterable[str], unchanged_since: ModSeq | None = None
    ) -> Stored:
        """Change flags. Raises: LimitReached for too many keywords."""
        self._check()
        before = self._modseq
        present = self._present(uids)
        gone = sorted(set(uids) - set(present))
        modified = [
            uid for uid in present if unchanged_since is not None and self._messages[uid].modseq > unchanged_since
        ]
        changing = sorted(set(present) - set(modified))
        if changing or gone:
            names = list(flags)
            mask = sum({self._mask(name) for name in names}) if how is FlagChange.REMOVE else self._make_mask(names)
            modseq = ModSeq(self._modseq + 1)
            for uid in changing:
                message = self._messages[uid]
                new = how.combine(message.flags, mask)
                if new != message.flags:
                    self._messages[uid] = evolve(message, flags=new, modseq=modseq)
                    self._modseq = modseq
        return Stored(modified, gone, before)

    def annotate(self, annotations: Annotations) -> None:
        """Replace the annotations, which is a change of the mailbox."""
        self.annotations = annotations
        self._modseq = ModSeq(self._modseq + 1)

    def expunge(self, uids: Sequence[UID], *, only_deleted: bool = True) -> Sequence[UID]:
        """Remove messages. Return the removed UIDs, rising."""
        self._check()
        going = [uid for uid in self._present(uids) if self._messages[uid].flags & DELETED or not only_deleted]
        if going:
            self._modseq = ModSeq(self._modseq + 1)
            self._remove(going)
        return going

    def _remove(self, uids: Sequence[UID]) -> None:
        for uid in uids:
            del self._messages[uid]
            self._previews.pop(uid, None)
            self._expunged.append((self._modseq, uid))
        if len(self._expunged) > (most := self._account.bounds.expunges):
            self._floor = self._expunged[-most - 1][0]
            self._expunged = [each for each in self._expunged if each[0] > self._floor]

    def copy(self, uids: Sequence[UID], target: str, *, skip_expunged: bool = False) -> Copied:
        """Copy, all or none, or all that exist. Raises: NoSuchMailbox, MessageExpunged, LimitReached."""
        self._check()
        into = self._account.mailbox(target)
        present = self._present(uids)
        if len(present) != len(set(uids)) and not skip_expunged:
            raise MessageExpunged
        into.check_room(len(present))
        self._account.check_more([self._messages[uid].data for uid in present])
        return self._copy(present, into)

    def _copy(self, present: Sequence[UID], into: MemoryMailbox) -> Copied:
        copies = [(self._messages[uid].data, self._names(uid), self._messages[uid].date) for uid in present]
        email_ids = [self._messages[uid].email_id for uid in present]
        return Copied(into.id, into.uid_validity, list(present), into.add(copies, email_ids))

    def move(self, uids: Sequence[UID], target: str) -> Copied:
        """Move the messages that exist. Raises: NoSuchMailbox, LimitReached."""
        self._check()
        into = self._account.mailbox(target)
        present = self._present(uids)
        if into is not self:
            into.check_room(len(present))
        copied = self._copy(present, into)
        self.expunge(copied.source, only_deleted=False)
        return copied

    def replace(self, uid: UID, target: str, message: NewMessage) -> Appended:
        """Add a message to `target`, and remove one here. Raises: NoSuchMailbox, MessageExpunged, LimitReached."""
        self._check()
        into = self._account.mailbox(target)
        if uid not in self._messages:
            raise MessageExpunged
        if into is not self:
            into.check_room(1)
        data = content(message.staged)
        self._account.check_replacement(self._messages[uid].data, data)
        uids = into.add([(data, message.flags, self._account.date_of(message))])
        message.staged.abort()
        if into is not self:
            self._modseq = ModSeq(self._modseq + 1)
        self._remove([uid])
        return Appended(into.id, into.uid_validity, uids)

    def add(
        self, messages: Sequence[tuple[bytes, Iterable[str], int]], email_ids: Sequence[str] | None = None
    ) -> list[UID]:
        """Add messages (octets, flag names, date), all or none; `email_ids` are those of copies. Raises: LimitReached."""
        self._check()
        names = [list(flags) for _data, flags, _date in messages]
        self._make_mask([name for group in names for name in group])
        if messages:
            self._modseq = ModSeq(self._modseq + 1)
        uids = []
        for at, ((data, _flags, date), group) in enumerate(zip(messages, names, strict=True)):
            now = self._account.now()
            email_id = os.urandom(12).hex() if email_ids is None else email_ids[at]
            mask = self._make_mask(group)
            self._messages[self.uid_next] = KeptMessage(as_sent(data), mask, self._modseq, date, now, email_id)
            uids.append(self.uid_next)
            self.uid_next = UID(self.uid_next + 1)
        return uids

    def check_room(self, more: int) -> None:
        """Raise MailboxFull if so many more would be too many."""
        if len(self._messages) + more > self._account.bounds.messages:
            raise MailboxFull

    def all_uids(self) -> list[UID]:
        """Return every UID, rising."""
        return list(self._messages)

    # --- small parts

    def _check(self) -> None:
        if self.deleted:
            raise MailboxChanged

    def _present(self, uids: Iterable[UID]) -> list[UID]:
        return sorted(uid for uid in set(uids) if uid in self._messages)

    def _mask(self, name: str) -> int:
        """Return the bit of a flag, 0 for a keyword that the mailbox does not have."""
        if name.lower() in _SYSTEM:
            return _SYSTEM[name.lower()]
        known = [keyword.lower() for keyword in self._keywords]
        return 1 << KEYWORD_BIT + known.index(name.lower()) if name.lower() in known else 0

    def _make_mask(self, names: Sequence[str]) -> int:
        """Return the bits of these flags. New keywords are made, all or none."""
        new: dict[str, str] = {}
        for name in names:
            if not self._mask(name):
                new.setdefault(name.lower(), name)
        try:
            check_room([*self._keywords, *new.values()])
        except LimitReached:
            known = self._used_keywords()
            check_room([*known, *new.values()])
            self._keywords = known
        for name in new.values():
            if "" in self._keywords:
                self._keywords[self._keywords.index("")] = name
            else:
                self._keywords.append(name)
        return sum({self._mask(name) for name in names})

    def _used_keywords(self) -> list[str]:
        """Return the keywords by number, "" for further ones that no message has."""
        used = 0
        for message in self._messages.values():
            used |= message.flags
        return [
            name if number < LETTERS or used >> KEYWORD_BIT + number & 1 else ""
            for number, name in enumerate(self._keywords)
        ]

    def _names(self, uid: UID) -> list[str]:
        mask = self._messages[uid].flags
        return [name for name in [*SYSTEM_FLAGS, *self._keywords] if self._mask(name) & mask]
