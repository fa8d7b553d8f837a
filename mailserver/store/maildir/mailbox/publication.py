"""The steps that publish staged messages, for the commands in `delivery`, `prepared` and `replacement`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define

from mailserver.errors import MailError
from mailserver.store.flags import NARROW
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.directories import sync_directories
from mailserver.store.maildir.disk.process_start import owner
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.format.filename import check_length, new_suffix
from mailserver.store.maildir.format.paths import MailboxPaths
from mailserver.store.maildir.home import folders, intent, recovery
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.local_changes import LocalChange
from mailserver.store.maildir.mailbox.staged_file import StagedFile
from mailserver.store.maildir.sync.directory_update import DirectoryUpdate, make_keywords
from mailserver.store.maildir.sync.entries import next_uids
from mailserver.store.maildir.sync.reconcile import sync_uidlist
from mailserver.store.receiving import Appended, NewMessage
from mailserver.types import UID, ModSeq


@define
class Arrival:
    """A message that is being delivered."""

    staged: StagedFile
    flags: frozenset[str]
    date: int
    mask: int = 0
    suffix: str = ""
    place: int = 0
    beyond_quota: bool = False

    @property
    def size(self) -> int:
        """Octets as sent."""
        return self.staged.virtual_size

    @property
    def base(self) -> str:
        """The file's name without its flags."""
        return self.staged.final_base

    def entry(self, uid: UID, modseq: ModSeq) -> Entry:
        """Make its index entry."""
        size, date = self.staged.virtual_size, self.date
        return Entry(uid, modseq, self.mask, size, date, self.base, self.suffix, self.place)

    @property
    def file_name(self) -> str:
        """The file's name in new/ or cur/."""
        return self.base + self.suffix

    @property
    def record(self) -> list[object]:
        """Make its part of an intent: file in tmp/, place, final name."""
        return [os.path.basename(self.staged.path), self.place, self.file_name]


def existing_paths(home: Home, name: str) -> MailboxPaths:
    """Return the paths of an existing mailbox. Raises: NoSuchMailbox, BadMailboxName."""
    paths = home.paths(name)
    if not folders.is_mailbox(paths.directory):
        sync_uidlist(home, name)
    return paths


def sync_messages(messages: Sequence[NewMessage]) -> list[Arrival]:
    """Do step 1, without the lock."""
    arrivals = []
    for new in messages:
        staged = new.staged
        if not isinstance(staged, StagedFile):
            raise TypeError("not a message staged here")
        date = staged.date
        if date is None:
            date = int(time.time()) if new.date is None else new.date
            staged.sync(date)
        safeio.point("delivery.after-sync")
        arrivals.append(Arrival(staged, new.flags, date))
    return arrivals


def name_files(home: Home, state: MailboxState, arrivals: Sequence[Arrival], *, claimed: bool = False) -> None:
    """Do step 2: choose each file's name and directory."""
    make_keywords(home, state, {flag for arrival in arrivals for flag in arrival.flags})
    for arrival in arrivals:
        arrival.mask = make_keywords(home, state, arrival.flags) if arrival.flags else 0
        arrival.place = int(claimed or arrival.mask != 0)
        arrival.suffix = new_suffix(arrival.mask) if arrival.place else ""
        if arrival.mask > NARROW:
            check_length(arrival.file_name)


def write_intent(home: Home, state: MailboxState, arrivals: Sequence[Arrival], token: str = "") -> intent.Intent:
    """Do step 3. Raises: NoSpace, StoreUnavailable."""
    payload: dict[str, Any] = {
        "owner": owner(),
        "mailbox": state.name,
        "guid": state.guid.hex(),
        "files": [arrival.record for arrival in arrivals],
    }
    if token:
        payload["token"] = token
    # The names in tmp/ must be safe before the intent is.
    safeio.sync_directory(home.temporary)
    return intent.write(home.root, intent.Intent(recovery.PUBLISH, payload))


def publish(
    home: Home, state: MailboxState, arrivals: Sequence[Arrival], *, must: bool = False, claimed: bool = False
) -> Appended:
    """Do steps 4 to 6, under both locks. With `must` the reserved space may be released."""
    paths = home.paths(state.name)
    own = DirectoryUpdate(home, paths, state, sorted({arrival.place for arrival in arrivals}))
    own.expect(arrival.file_name for arrival in arrivals)
    uids = place_files(home, state, arrivals, must=must)
    own.record()
    before, modseq = state.modseq, next_modseq(state.modseq)
    if uids:
        state.uid_next = UID(uids[-1] + 1)
        state.modseq = modseq
    if claimed:
        state.recent_from = state.uid_next
    entries = [arrival.entry(uid, modseq) for uid, arrival in zip(uids, arrivals, strict=True)]
    safeio.point("delivery.before-index")
    save(home, state, entries)
    if uids:
        home.local_changes.keep(state.key, LocalChange(before, modseq, [entry.row() for entry in entries], []))
    safeio.point("delivery.after-index")
    for arrival in arrivals:
        arrival.staged.release()
    return Appended(state.guid, state.uid_validity, uids, claimed)


def place_files(
    home: Home, state: MailboxState, arrivals: Sequence[Arrival], *, must: bool = False
) -> Sequence[UID]:  # fmt: skip
    """Do steps 4 and 5, all or none; the state gets the uidlist's signature. Raises: InUse, NoSpace, StoreUnavailable."""
    paths = home.paths(state.name)
    uids = next_uids(state, len(arrivals))
    lines = [(uid, arrival.base) for uid, arrival in zip(uids, arrivals, strict=True)]
    safeio.point("delivery.before-uidlist")
    state.uidlist_signature = _with_room(home, lambda: uidlist.append(paths.uidlist, lines), must=must)
    safeio.point("delivery.after-uidlist")
    _rename_all(home, paths, arrivals, must=must)
    return uids


def _rename_all(home: Home, paths: MailboxPaths, arrivals: Sequence[Arrival], *, must: bool) -> None:
    """Do step 5. After a failure undo the renames."""
    done: list[Arrival] = []
    try:
        for arrival in arrivals:
            target = os.path.join(paths.place(arrival.place), arrival.file_name)
            source = arrival.staged.path
            _with_room(home, lambda source=source, target=target: safeio.rename(source, target), must=must)  # type: ignore[misc]
            done.append(arrival)
            safeio.point("delivery.after-rename")
        sync_directories(paths.place(arrival.place) for arrival in arrivals)
        safeio.point("delivery.after-directory-sync")
    except BaseException:
        take_back(paths, done, must=must)
        raise


def take_back(paths: MailboxPaths, arrivals: Sequence[Arrival], *, must: bool = False) -> None:
    """Undo the renames of step 5. A message that cannot go back to tmp/ is removed, unless it `must` be published."""
    for arrival in arrivals:
        target = os.path.join(paths.place(arrival.place), arrival.file_name)
        try:
            safeio.rename(target, arrival.staged.path)
        except (OSError, MailError):
            if not must:
                # It is refused, and must not become visible.
                safeio.discard(target)
    with contextlib.suppress(OSError, MailError):
        sync_directories(paths.place(arrival.place) for arrival in arrivals)


def _with_room(home: Home, operation: Callable[[], Any], *, must: bool) -> Any:
    """Release the reserved space only for messages that were promised, not for other deliveries."""
    return home.with_room(operation) if must else operation()


def save(home: Home, state: MailboxState, entries: Sequence[Entry]) -> None:
    """Write the state and the new messages into the index."""

    def write(index: Index) -> None:
        index.mailboxes.save(state)
        index.messages.add(state.key, entries)

    home.update(write, len(entries))
