"""One mailbox of a Maildir account: operations answered from the index where possible, else from the files.

Rules: commit before reporting; nothing is written to a client under a lock. Reading takes no lock while the index is up
to date with the disk. Changes are made to files first, durably, before the index records them: STORE renames within
cur/ and syncs the directory once; EXPUNGE unlinks first and updates the index after, so that it works on a full disk.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from mailserver.errors import MailboxChanged, MessageExpunged, NoSuchMailbox
from mailserver.store.flags import FlagChange
from mailserver.store.index import schema
from mailserver.store.index.database import Index
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.index.sums import Sum
from mailserver.store.interfaces import Copied, Pop3Record, Status, Stored
from mailserver.store.maildir.format import keywords, pop3_fields, uidlist
from mailserver.store.maildir.format.filename import is_own
from mailserver.store.maildir.format.message_file import PlainFile, open_file
from mailserver.store.maildir.format.paths import MailboxPaths
from mailserver.store.maildir.home import intent
from mailserver.store.maildir.home.folders import canonical
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.mailbox.contents import FEW, LITTLE, READ_AHEAD, contents
from mailserver.store.maildir.mailbox.expunge import expunge, tidy_uidlist
from mailserver.store.maildir.mailbox.facts import MailboxFacts
from mailserver.store.maildir.mailbox.flag_rename import store_flags
from mailserver.store.maildir.mailbox.maildir_search_source import MaildirSearchSource
from mailserver.store.maildir.mailbox.replacement import replace
from mailserver.store.maildir.mailbox.small_reads import SmallReads
from mailserver.store.maildir.mailbox.transfer import transfer
from mailserver.store.maildir.sync import scan
from mailserver.store.maildir.sync.directory_stamp import DirectoryStamp
from mailserver.store.maildir.sync.recent import claim
from mailserver.store.maildir.sync.reconcile import reconcile, sync_uidlist
from mailserver.store.maildir.sync.renamed_mailbox import find_renamed
from mailserver.store.maildir.sync.usage import keep_to_quota
from mailserver.store.maildir.sync.watched_names import are_deliveries, is_up_to_date, take_up
from mailserver.store.memory_budget import SEARCHED, MemoryBudget
from mailserver.store.query import Query
from mailserver.store.receiving import Appended, NewMessage
from mailserver.store.recent_uids import NONE_CLAIMED
from mailserver.store.rows import Changes, Snapshot
from mailserver.store.search import Search, evaluate
from mailserver.types import UID, MailboxId, ModSeq

T = TypeVar("T")


class MaildirMailbox(MailboxFacts):
    """Implements `store.interfaces.Mailbox`."""

    def __init__(self, home: Home, state: MailboxState) -> None:
        super().__init__(home)
        self._id = state.guid
        self._uid_validity = state.uid_validity
        self._name = state.name
        home.names[state.guid] = state.name
        self._ahead: dict[int, Entry] = {}
        self._ahead_end = 0
        self._stride = 1
        self._small_reads = SmallReads(home, state)

    @property
    def id(self) -> MailboxId:
        """Its GUID."""
        return self._id

    @property
    def name(self) -> str:
        """Its name as of the last operation."""
        return self._home.names.get(self._id, self._name)

    @property
    def read_only(self) -> bool:
        """True if we may not write its directory."""
        return not os.access(self._paths().cur, os.W_OK)

    @property
    def watched_paths(self) -> tuple[str, ...]:
        """cur/ and new/."""
        paths = self._paths()
        return paths.cur, paths.new

    # --- what others did

    def foreign_names(self, names: Collection[str]) -> Collection[str]:
        """Return the names that this account object did not change."""
        return self._home.expected_names.others(names)

    is_own_name = staticmethod(is_own)

    def refresh(self, names: Collection[str] | None = None, *, claims: bool = False) -> range:
        """Take up what other programs did. Raises: MailboxChanged, InUse, NoSpace, StoreUnavailable."""
        if names is not None:
            try:
                if not are_deliveries(names) and is_up_to_date(self._home, self._state(), names):
                    return NONE_CLAIMED
                with self._home.locked():
                    claimed = take_up(self._home, self._state(), names, claims=claims)
                    if claimed is not None:
                        return claimed
            except schema.Broken:
                self._home.index_is_damaged()
        elif self.is_current(self._state()):
            return NONE_CLAIMED
        with self._home.locked():
            state = self._synced_state()
            # Another worker may have done it while we waited for the lock.
            if names is not None or not self.is_current(state):
                reconcile(self._home, state.name)
        self._state()
        return NONE_CLAIMED

    def is_current(self, state: MailboxState) -> bool:
        """Tell whether nothing on disk has changed since it was read."""
        home = self._home
        return not (home.something_due or intent.any_due(home.root, home.unsettled)) and self.is_as_read(state)

    def is_as_read(self, state: MailboxState) -> bool:
        """Tell whether the directories and the uidlist are as they were read. Raises: StoreUnavailable."""
        if state.boot != self._home.boot:
            return False
        paths = self._paths()
        try:
            return (
                scan.is_unchanged(paths.new, state.new_mtime, state.new_racy)
                and scan.is_unchanged(paths.cur, state.cur_mtime, state.cur_racy)
                and uidlist.signature(paths.uidlist) == state.uidlist_signature
                and not keywords.is_partly_read(state.keywords, state.keywords_signature, paths.further_keywords)
            )
        except FileNotFoundError:
            return False

    # --- reading the index

    def load(self) -> Snapshot:
        """Load the whole mailbox. Raises: MailboxChanged."""
        state = self._state()
        columns, is_worth_packing = self._read(lambda index: index.packed_columns.load(state))
        if is_worth_packing:
            self._home.index().pack(state.key, state.modseq, columns)
        flags = self._read(lambda index: index.messages.whole_flags(state.key, columns.uids, columns.flags))
        return Snapshot(
            columns.uids,
            flags,
            *columns[2:],
            state.modseq,
            state.keywords,
            state.uid_next,
            state.uid_validity,
            self._stamp(state),
        )

    def changes_since(self, modseq: ModSeq) -> Changes:
        """Return the changes after `modseq`. Before the history begins, the existing UIDs show what is expunged."""
        state = self._state()
        key = state.key
        step = self._home.local_changes.take(key, modseq, state.modseq)
        if step is not None:
            return Changes(
                modseq, step.upto, step.rows, step.expunged, state.keywords, state.uid_next, None, self._stamp(state)
            )
        rows = self._read(lambda index: index.messages.changed_since(key, modseq)) if modseq < state.modseq else []
        expunged: Sequence[UID] = []
        present = None
        if modseq < state.floor:
            present = self._read(lambda index: index.messages.uids(key))
        elif modseq < state.modseq:
            expunged = self._read(lambda index: index.messages.expunged_since(key, modseq))
        return Changes(
            modseq, state.modseq, rows, expunged, state.keywords, state.uid_next, present, self._stamp(state)
        )

    def expunged_since(self, modseq: ModSeq) -> Sequence[UID] | None:
        """Return the UIDs that were expunged after `modseq`, None before the history. Raises: MailboxChanged."""
        state = self._state()
        if not state.floor <= modseq <= state.modseq:
            return None
        expunged = self._read(lambda index: index.messages.expunged_since(state.key, modseq))
        # Another process may have shortened the history meanwhile.
        return expunged if self._state().floor <= modseq else None

    def _stamp(self, state: MailboxState) -> DirectoryStamp:
        return DirectoryStamp(self._home, self._paths(), state)

    def status(self) -> Status:
        """Return the counts of the index."""
        return self.status_of(self._state())

    def status_of(self, state: MailboxState, octets: Sum | None = None) -> Status:
        """Do `status` for the row that the index has now, and its sum, if that is at hand."""
        key = state.key
        counted_at, counts = self._home.counts.get(self._id, (0, (0, 0, 0)))
        if counted_at != state.modseq:
            counts = self._read(lambda index: index.messages.counts(key))
            self._home.counts[self._id] = state.modseq, counts
        messages, unseen, deleted = counts
        recent = 0
        if state.recent_from < state.uid_next:
            recent = self._read(lambda index: index.messages.count_from(key, state.recent_from))
        if octets is None:
            octets = self._read(lambda index: index.sum_of(key))
        # Most mailboxes have none.
        deleted_size = self._read(lambda index: index.messages.deleted_octets(key)) if deleted else 0
        return Status(
            messages,
            recent,
            unseen,
            deleted,
            state.uid_next,
            state.uid_validity,
            state.modseq,
            self._stamp(state),
            size=octets.octets,
            deleted_size=deleted_size,
            unmeasured=octets.unmeasured,
            mailbox=state.guid,
        )

    def search(self, query: Query, candidates: Sequence[UID]) -> Sequence[UID]:
        """Return the candidates that match, rising."""
        return evaluate(query, candidates, self._facts())

    def start_search(self, query: Query, candidates: Sequence[UID]) -> Search:
        """Start a `search` in steps."""
        return Search(query, candidates, self._facts())

    # --- files

    def pop3_records(self, *, names: bool = False) -> Mapping[UID, Pop3Record]:
        """Return the POP3 fields of the uidlist. Raises: StoreUnavailable."""
        return pop3_fields.read(self._paths().uidlist, names=names)

    def open_message(self, uid: UID) -> PlainFile:
        """Open a message. Raises: MessageExpunged, StoreUnavailable."""
        entry = self._ahead.get(uid)
        if entry is None:
            entry = self._read_ahead(self._state(), uid)
            if entry is None:
                raise MessageExpunged
        # However old the entry is, the opened file is the message: a base names one message for ever.
        with contextlib.suppress(FileNotFoundError):
            return self._open(entry)
        self._ahead = {}
        # Renamed by another program, or by another worker: the index may know it by now.
        again = self._entry(self._state(), uid)
        if again is not None and again != entry:
            with contextlib.suppress(FileNotFoundError):
                return self._open(again)
        with self._home.locked():
            reconcile(self._home, self._synced_state().name)
        entry = self._entry(self._state(), uid)
        if entry is None:
            raise MessageExpunged
        try:
            return self._open(entry)
        except FileNotFoundError as error:
            raise MessageExpunged from error

    def read_whole(self, uids: Sequence[UID], limit: int) -> Sequence[tuple[UID, bytes]]:
        """Read the first of these messages, up to `limit` octets in all."""
        return self._small_reads.whole(self._state().key, self._paths(), uids, limit)

    def read_cached(self, uid: UID, size: int | None, only_header: bool) -> bytes | None:
        """Read a message whole, or its header, from what is in memory; nothing here waits."""
        home = self._home  # `_paths` would be two calls more
        paths = home.paths(home.names.get(self._id, self._name))
        return self._small_reads.cached(paths, uid, size, only_header=only_header)

    def all_contents(self, uids: Sequence[UID]) -> Iterator[tuple[UID, bytes]]:
        """Yield the messages as sent, without those that are gone or unreadable. The caller may stop after a few."""
        found = contents(self, uids, MemoryBudget(0), FEW, LITTLE)
        return ((uid, data) for uid, data in found if data is not None)

    def searched_contents(self, uids: Sequence[UID]) -> Iterator[tuple[UID, bytes | None]]:
        """Do `SearchSource.sources`."""
        return contents(self, uids, SEARCHED)

    def _open(self, entry: Entry) -> PlainFile:
        file = open_file(os.path.join(self._paths().place(entry.place), entry.base + entry.suffix), entry.size)
        if entry.size is not None and file.size != entry.size:
            # Its name claims another size, or another program has changed the file.
            self._ahead = {}
            self._rendering(self._state()).learn(UID(entry.uid), file)
        return file

    def _read_ahead(self, state: MailboxState, uid: UID) -> Entry | None:
        """Return the entry. A reader of one message after the other gets it from a batch."""
        self._stride = min(READ_AHEAD, 4 * self._stride) if uid == self._ahead_end else 1
        following = range(uid, min(uid + self._stride, state.uid_next))
        self._ahead = {
            entry.uid: entry for entry in self._read(lambda index: index.messages.entries_of(state.key, following))
        }
        self._ahead_end = following.stop
        return self._ahead.get(uid)

    def _entry(self, state: MailboxState, uid: UID) -> Entry | None:
        entries = self._read(lambda index: index.messages.entries_of(state.key, [uid]))
        return entries[0] if entries else None

    def _facts(self) -> MaildirSearchSource:
        return MaildirSearchSource(
            self._home,
            self._state,
            self.open_message,
            self.searched_contents,
            save_dates=self.save_dates,
            email_ids=self.email_ids,
        )

    # --- changing

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep others from changing the account meanwhile. Raises: InUse, NoSpace, StoreUnavailable."""
        return self._home.locked()

    def first_recent(self) -> UID:
        """Return the lowest unclaimed UID."""
        return self._state().recent_from

    def claim_recent(self, below: UID | None = None) -> range:
        """Claim the \\Recent messages for one session. Their files move from new/ to cur/."""
        state = self._state()
        end = state.uid_next if below is None else min(below, state.uid_next)
        if state.recent_from >= end and not self._read(lambda index: index.messages.entries_in_new(state.key)):
            return range(state.recent_from, end)
        with self._home.locked():
            return claim(self._home, self._synced_state(), below, read_only=self.read_only)

    def store_flags(
        self, uids: Sequence[UID], how: FlagChange, flags: Iterable[str], unchanged_since: ModSeq | None = None
    ) -> Stored:
        """Change flags of many messages: renames, one sync, one transaction. Raises: LimitReached, InUse, NoSpace."""
        with self._home.changing():
            return store_flags(
                self._home, self._synced_state(), sorted(set(uids)), how, list(flags), unchanged_since=unchanged_since
            )

    def expunge(self, uids: Sequence[UID], *, only_deleted: bool = True) -> Sequence[UID]:
        """Remove messages, the files first. Raises: InUse, StoreUnavailable."""
        with self._home.changing():
            gone = expunge(self._home, self._synced_state(), sorted(set(uids)), only_deleted=only_deleted)
            tidy_uidlist(self._home, self._state())
        return gone

    def copy(self, uids: Sequence[UID], target: str, *, skip_expunged: bool = False) -> Copied:
        """Copy, all or none, or all that exist. Raises: NoSuchMailbox, MessageExpunged, LimitReached, InUse, NoSpace."""
        return self._transfer(uids, target, move=False, skip_expunged=skip_expunged)

    def move(self, uids: Sequence[UID], target: str) -> Copied:
        """Move the messages that exist. Raises: NoSuchMailbox, LimitReached, InUse, NoSpace."""
        return self._transfer(uids, target, move=True, skip_expunged=True)

    def replace(self, uid: UID, target: str, message: NewMessage) -> Appended:
        """Publish a staged message in the place of one of this mailbox.

        Raises: NoSuchMailbox, MessageExpunged, LimitReached, InUse, NoSpace, StoreUnavailable.
        """
        home = self._home
        with home.changing():
            appended = keep_to_quota(home, lambda: replace(home, self._synced_state(), uid, canonical(target), message))
            tidy_uidlist(home, self._state())
        return appended

    def _transfer(self, uids: Sequence[UID], target: str, *, move: bool, skip_expunged: bool) -> Copied:
        home, chosen = self._home, sorted(set(uids))

        def operation() -> Copied:
            return transfer(home, self._synced_state(), chosen, target, move=move, skip_expunged=skip_expunged)

        with home.changing():
            return keep_to_quota(home, operation)

    # --- small parts

    def _read(self, operation: Callable[[Index], T]) -> T:
        return self._home.read(operation)

    def _paths(self) -> MailboxPaths:
        return self._home.paths(self.name)

    def _state(self) -> MailboxState:
        """Return the index's row of this mailbox. Raises: MailboxChanged."""
        state = self._home.read(lambda index: index.mailboxes.by_guid(self._id))
        if state is None:
            with self._home.locked():
                state = find_renamed(self._home, self._id, self._uid_validity)
        if state is None or state.uid_validity != self._uid_validity:
            self._home.forget(self._id)
            raise MailboxChanged
        self._home.names[self._id] = state.name
        return state

    def _synced_state(self) -> MailboxState:
        """Return the state with the UIDs on disk, under the account's lock. Raises: MailboxChanged."""
        known: MailboxState | None = None
        with contextlib.suppress(NoSuchMailbox):
            known = sync_uidlist(self._home, self.name)
        if known is None or known.guid != self._id:
            # Another program renamed it, removed it, or made it anew.
            known = find_renamed(self._home, self._id, self._uid_validity)
        if known is None or known.uid_validity != self._uid_validity:
            self._home.forget(self._id)
            raise MailboxChanged
        self._home.names[self._id] = known.name
        return known
