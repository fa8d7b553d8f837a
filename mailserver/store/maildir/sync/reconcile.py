"""Reconciliation: makes the index equal to the disk, whoever changed the disk. All other modules do the opposite.

The problems are listed in `scan`. The rules:

*   Runs under the account's lock. Dovecot's lock is taken only to change the uidlist. If the list then differs from the
    one that was read, everything is done again.
*   Unchanged parts are not read: only new/ if cur/ has not changed, the uidlist only if its signature differs.
*   UIDs: a file whose base is in the index keeps its UID. A new one gets the UID of the uidlist if that is not below
    the UIDNEXT reported last, else a new one: a client never sees a UID appear below UIDNEXT. A list that was cut back
    (its next UID is lower than the index's) is rebuilt from the index. Otherwise the list is right, and a message to
    which it gives another UID is expunged and comes again.
*   Modseqs never go back: after a power cut, which may undo commits, the mailbox gets one above all that were given.
*   A message is expunged only when a stable scan did not show it.
*   Another GUID or UIDVALIDITY is another mailbox: the old one is removed from the index, and its sessions get
    MailboxChanged. A GUID that another mailbox has already was copied with its directory: the copy gets a new one.
"""

from __future__ import annotations

import contextlib
import os
from array import array

from mailserver.errors import InUse, NoSpace, StoreUnavailable
from mailserver.store.flags import LETTERS
from mailserver.store.index import schema
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.records import RACY, SETTLED, Entry, MailboxState
from mailserver.store.maildir.format import uidlist, uidlist_format
from mailserver.store.maildir.home import folders
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.sync import scan
from mailserver.store.maildir.sync.differences import differences
from mailserver.store.maildir.sync.entries import fresh_entries, moved_entry, next_uids, read_keywords, sort_by_delivery
from mailserver.store.maildir.sync.first_scan import FirstScan, Postponed, UnlistedMessages, first_scan
from mailserver.store.maildir.sync.identification import earlier_modseqs, forget, identify
from mailserver.store.maildir.sync.uidlist_repair import rebuild_uidlist
from mailserver.types import UID, ModSeq

_ATTEMPTS = 4
_KNOWN = 4
"""A message in the index costs at least so many times less than a new one."""


class _UidlistChanged(Exception):
    """Another program changed the uidlist after it was read."""


def sync_uidlist(home: Home, name: str) -> MailboxState:
    """Return the mailbox's state with the UIDs on disk, for adding messages; new files need not be in it.

    Under the account's lock. Raises: NoSuchMailbox, BadMailboxName, InUse, NoSpace, StoreUnavailable.
    """
    state = home.read(lambda index: index.mailboxes.by_name(name))
    signature = uidlist.signature(home.paths(name).uidlist)
    if state is None or signature is None or signature != state.uidlist_signature or state.boot != home.boot:
        return reconcile(home, name)
    return state


def reconcile(home: Home, name: str) -> MailboxState:
    """Take up the state on disk. Return it as saved. Under the account's lock.

    Raises: NoSuchMailbox, BadMailboxName, InUse, NoSpace, StoreUnavailable; ScanTooLarge inside `Home.bounded`.
    """
    return _reconcile(home, name, most=None)[0]


def begin(home: Home, name: str, most: int) -> tuple[MailboxState, Postponed | None]:
    """Do `reconcile`, but if more than `most` messages have no UIDs, leave these for later."""
    return _reconcile(home, name, most=most)


def _reconcile(home: Home, name: str, *, most: int | None) -> tuple[MailboxState, Postponed | None]:
    if home.unsafe.names(home.root, home.paths(name)):
        # UIDs of a list that a power cut may undo are not reported.
        known = home.read(lambda index: index.mailboxes.by_name(name))
        if known is None:
            raise StoreUnavailable("the disk fails: what is new in the mailbox is not safe on it yet")
        return known, None
    for attempt in range(_ATTEMPTS):
        with contextlib.ExitStack() as stack:
            if attempt:
                # Continuous writers would let no attempt end: keep them out from the start.
                with contextlib.suppress(FileNotFoundError):
                    stack.enter_context(home.dotlocked([home.paths(name).directory], must=True))
            with contextlib.suppress(_UidlistChanged):
                attempted = _Reconciliation(home, name, most)
                try:
                    return attempted.run(), attempted.postponed
                except schema.Broken:
                    home.index_is_damaged()
    raise InUse


class _Reconciliation:
    """One attempt to reconcile."""

    def __init__(self, home: Home, name: str, most: int | None) -> None:
        self.most = most
        self.postponed: Postponed | None = None
        self.home = home
        self.name = name
        self.paths = home.paths(name)
        self.listed: uidlist.UidList | None = None
        self.is_written = True
        self.tail: dict[str, UID] = {}
        self.is_new = self.names_changed = False
        self.changed: list[Entry] = []
        self.new: list[Entry] = []
        self.gone: list[UID] = []
        self.pending: list[tuple[str, scan.Found]] = []
        self.unlisted: UnlistedMessages | None = None
        self.first: FirstScan | None = None
        self.listed_messages: FirstScan | None = None
        self.scans: list[scan.DirectoryScan] = []
        """new/ and, if a list was read, cur/."""

    def run(self) -> MailboxState:
        with contextlib.ExitStack() as stack:
            self.stack = stack
            found = identify(self.home, self.name, self._exclude_dovecot)
            state, self.listed, self.tail = found.state, found.listed, found.tail
            self.is_new, self.is_written = found.is_new, found.is_written
            uid_next = UID(1) if self.is_new else state.uid_next
            mended = self._is_behind(state)
            if self.listed is not None:
                state.uid_next = UID(max(state.uid_next, self.listed.uid_next))
            if self.tail:
                state.uid_next = UID(max(self.tail.values()) + 1)
            # Commits may be lost, and with them modseqs that clients know.
            is_behind = not self.is_new and state.boot != self.home.boot
            modseq = next_modseq(max(state.modseq, earlier_modseqs(self.paths)) if is_behind else state.modseq)
            scans = self._scan(state, uid_next)
            self.scans = [each for each in scans if each is not None]
            if not self._try_first_scan(state, scans):
                self._compare(state, scans, modseq, uid_next, mended=mended)
            self._postpone(state, scans)
            self._give_uids(state, modseq, mended=mended)
            names_changed = self.names_changed = read_keywords(self.paths, state)
            if self.is_new:
                state.recent_from = self._first_recent(state)
            if (
                is_behind
                or names_changed
                or self.new
                or self.first
                or self.listed_messages
                or self.gone
                or any(entry.modseq == modseq for entry in self.changed)
            ):
                state.modseq = modseq
            state.boot = self.home.boot
            self._save(state, modseq)
            return state

    def _is_behind(self, state: MailboxState) -> bool:
        """Tell whether the list was cut back or spoilt, so that the index knows more."""
        if self.listed is None or self.is_new:
            return False
        return self.listed.damaged or self.listed.uid_next < state.uid_next

    # --- what is there

    def _scan(self, state: MailboxState, uid_next: UID) -> tuple[scan.DirectoryScan, scan.DirectoryScan | None]:
        """Scan new/ and, unless it is unchanged, cur/: in this order, so that a move from one to the other is seen."""
        most = self.home.most_unseen
        if most is not None:
            most = min(most + uid_next - 1, (_KNOWN + 1) * most)
        try:
            with contextlib.suppress(FileNotFoundError):
                return self._scan_once(state, most)
            folders.complete(self.paths.directory)
            return self._scan_once(state, most)
        except scan.TooManyFiles:
            raise self.home.scan_too_large(self.name) from None
        except FileNotFoundError as error:
            if state.key:
                forget(self.home, state)
            raise folders.missing(self.name) from error

    def _scan_once(self, state: MailboxState, most: int | None) -> tuple[scan.DirectoryScan, scan.DirectoryScan | None]:
        new = scan.read_directory(self.paths.new, most)
        state.new_mtime, state.new_racy = new.mtime_ns, RACY if new.racy else SETTLED
        if (
            self.listed is None
            and state.boot == self.home.boot
            and scan.is_unchanged(self.paths.cur, state.cur_mtime, state.cur_racy)
        ):
            return new, None
        cur = scan.read_directory(self.paths.cur, most)
        state.cur_mtime, state.cur_racy = cur.mtime_ns, RACY if cur.racy else SETTLED
        return new, cur

    def _try_first_scan(self, state: MailboxState, scans: tuple[scan.DirectoryScan, scan.DirectoryScan | None]) -> bool:
        """Do a first scan of a mailbox that the index does not have, if its names are usual. Return whether it was
        done.
        """
        new, cur = scans
        if not self.is_new or cur is None or self.listed is None or self.listed.damaged:
            return False
        if state.uid_next + len(new.names) + len(cur.names) > uidlist_format.HIGHEST_UID:
            return False
        if not new.names and not cur.names:
            return True
        found = first_scan(new.names, cur.names)
        if found is None:
            return False
        if self.listed.entries:
            self.listed_messages, self.pending = found.split_listed(self.listed.entries)
        else:
            self.unlisted = found
        return True

    def _postpone(self, state: MailboxState, scans: tuple[scan.DirectoryScan, scan.DirectoryScan | None]) -> None:
        """Leave the messages without UIDs for later, if they are too many. Until then the mailbox is not up to date."""
        count = len(self.pending) if self.unlisted is None else len(self.unlisted)
        if self.most is None or count <= self.most:
            if self.unlisted is not None:
                self.first = self.unlisted.with_uids(state.uid_next)
            return
        sort_by_delivery(self.pending)
        new, cur = scans
        self.postponed = Postponed(
            UnlistedMessages.of(self.pending) if self.unlisted is None else self.unlisted,
            found=len(new.names) + (0 if cur is None else len(cur.names)),
            is_new=self.is_new,
            new=(state.new_mtime, state.new_racy),
            cur=(state.cur_mtime, state.cur_racy),
        )
        self.pending = []
        state.new_racy = state.cur_racy = RACY

    def _compare(
        self,
        state: MailboxState,
        scans: tuple[scan.DirectoryScan, scan.DirectoryScan | None],
        modseq: ModSeq,
        uid_next: UID,
        *,
        mended: bool,
    ) -> None:
        new, cur = scans
        is_whole = not state.key or self.listed is not None
        messages, known = differences(self.home.index(), state.key, new, cur, look_at_all=is_whole)
        uids = self.listed.entries if self.listed is not None and not mended else None
        told_uids: list[tuple[UID, str, scan.Found]] = []
        for base, place in messages.items():
            entry = known.pop(base, None)
            if entry is not None and uids is not None and uids.get(base) != entry.uid:
                # The list is newer than the index and says otherwise.
                self.gone.append(UID(entry.uid))
                entry = None
            if entry is not None:
                if place.name != entry.base + entry.suffix or (place.place == "cur") != entry.place:
                    self.changed.append(moved_entry(entry, place, modseq))
                continue
            uid = self.listed.entries.get(base) if self.listed is not None else self.tail.get(base)
            if uid is not None and uid >= uid_next:
                told_uids.append((uid, base, place))
            else:
                self.pending.append((base, place))
        if new.stable and (cur is None or cur.stable):
            self.gone += [UID(entry.uid) for entry in known.values()]
        self.new = fresh_entries(told_uids, modseq)

    # --- UIDs

    def _give_uids(self, state: MailboxState, modseq: ModSeq, *, mended: bool) -> None:
        listed = self.listed
        if self.first is not None:
            self._list_first(state, self.first)
            return
        if not self.is_written:
            self._create_list(b"")
        if listed is not None:
            state.uidlist_signature = listed.signature
        if not self.pending and not mended and (listed is None or not listed.damaged):
            return
        sort_by_delivery(self.pending)
        # A list at the very end of its UIDs, which only another program can make: later messages stay unseen.
        pending = self.pending[: max(0, uidlist_format.HIGHEST_UID + 1 - state.uid_next)]
        uids = next_uids(state, len(pending))
        given = fresh_entries([(uid, base, place) for uid, (base, place) in zip(uids, pending, strict=True)], modseq)
        lines = [(entry.uid, entry.base) for entry in given]
        try:
            self._exclude_dovecot(listed.signature if listed is not None else state.uidlist_signature)
            if mended:
                assert listed is not None
                there = scan.bases_there(self.scans)
                rebuild_uidlist(self.home, listed, state, gone=self.gone, more=[*self.new, *given], there=there)
            elif listed is not None and listed.damaged:
                self.home.with_room(lambda: uidlist.rewrite(listed, add=lines))
            elif listed is not None and (alive := self._without_dead_lines(listed)) is not None:
                self.home.with_room(lambda: uidlist.rewrite(listed, keep=alive, add=lines))
            else:
                self.home.with_room(lambda: uidlist.append(self.paths.uidlist, lines))
            state.uidlist_signature = uidlist.signature(self.paths.uidlist) or ()
        except NoSpace:
            # They stay unseen until there is room for their UIDs. The next refresh tries again.
            state.new_racy = state.cur_racy = RACY
            if mended or (listed is not None and listed.damaged):
                # Nor is the list in order: it must be read again, too.
                state.uidlist_signature = ()
            return
        except StoreUnavailable:
            if os.access(self.paths.directory, os.W_OK):
                raise
            # A mailbox that we may only read: these UIDs last as long as the index.
        self.new += given
        if lines:
            state.uid_next = UID(lines[-1][0] + 1)

    def _list_first(self, state: MailboxState, first: FirstScan) -> None:
        listed = self.listed
        assert listed is not None
        lines = b"".join(first.lines())
        try:
            if self.is_written:
                self._exclude_dovecot(listed.signature)
                listed.signature = self.home.with_room(lambda: uidlist.append_lines(listed.path, lines))
            else:
                self._create_list(lines)
        except NoSpace:
            state.new_racy = state.cur_racy = RACY
            self.first = None
            if not self.is_written:
                self._create_list(b"")
        except StoreUnavailable:
            if not self.is_written or os.access(self.paths.directory, os.W_OK):
                raise
        state.uidlist_signature = listed.signature
        if self.first is not None:
            state.uid_next = UID(first.uids[-1] + 1)

    def _create_list(self, lines: bytes) -> None:
        listed = self.listed
        assert listed is not None
        self._exclude_dovecot(None)
        listed.signature = self.home.with_room(lambda: uidlist.create_with(listed, lines))
        self.is_written = True

    def _without_dead_lines(self, listed: uidlist.UidList) -> set[str] | None:
        """Return the listed names that have a file, if enough have none to rewrite the list without them; else None."""
        if not listed.is_long:
            return None
        there = scan.bases_there(self.scans)
        if there is None:
            return None
        there &= listed.entries.keys()
        return there if listed.worth_rewriting(len(there)) else None

    def _exclude_dovecot(self, expected: tuple[int, ...] | None) -> None:
        """Take Dovecot's lock unless it is held. The list must still be the one that was read."""
        if not self.home.holds_dotlock(self.paths.directory):
            self.stack.enter_context(self.home.dotlocked([self.paths.directory], must=True))
        if uidlist.signature(self.paths.uidlist) != expected:
            raise _UidlistChanged

    def _first_recent(self, state: MailboxState) -> UID:
        """Return the UID after the last message that a session has seen already: those are no longer in new/."""
        if self.first is not None:
            return self.first.first_recent
        seen = max((entry.uid for entry in self.new if entry.place), default=0)
        if self.listed_messages is not None and 1 in self.listed_messages.places:
            seen = max(seen, self.listed_messages.first_recent - 1)
        return UID(min(seen + 1, state.uid_next))

    # --- the index

    def _save(self, state: MailboxState, modseq: ModSeq) -> None:
        first = self.first or self.listed_messages
        sizes = array("I") if first is None else first.sizes()
        self.gone.sort()
        self.new.sort()

        def save(index: Index) -> None:
            index.mailboxes.save(state)
            index.expunge(state.key, self.gone, modseq)
            index.messages.change(state.key, self.changed)
            index.messages.add(state.key, self.new, foreign=True)
            if self.names_changed and not self.is_new and len(state.keywords) > LETTERS:
                index.messages.mark_further(state.key, modseq)
            if first is not None:
                index.messages.add_blocks(state.key, first.blocks(modseq), sizes)
                if not self.new:
                    index.packed_columns.put(state.key, modseq, first.columns(modseq, sizes))

        count = len(self.gone) + len(self.changed) + len(self.new)
        self.home.update(save, count + (len(first.uids) if first is not None else 0))
