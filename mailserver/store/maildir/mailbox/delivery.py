"""Writing messages to disk: APPEND, LMTP, submission's local copies.

Order, each step surviving a power cut before the next one begins:

1.  the file in tmp/, synced (before the lock is taken)
2.  both locks; the keyword file, where a new keyword is used
3.  an intent, for more than one message: all of them become visible, or none
4.  the lines of the uidlist: a line without a file is a burnt UID; a file without a line was never acknowledged
5.  the rename of each file into new/, or cur/ with flags; the directories synced
6.  the index; it may be lost, and is then made anew from the files
7.  the intent cleared

The message is not read again: its sizes were counted as it came, and its envelope and structure are rendered when they are
requested. Much mail is never listed (copies of what was sent, what a filter puts aside), and a list renders many at once.

Prepared messages stop after step 3 and leave the lock: `publish` is the rest. If the process dies between, or cannot do
it, the next holder of the lock publishes them (`recovery`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, evolve

from mailserver.errors import BadMailboxName, MailError, NoSpace, NoSuchMailbox
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.directories import sync_directories
from mailserver.store.maildir.disk.process_start import owner
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.format.filename import flag_letters
from mailserver.store.maildir.format.paths import MailboxPaths
from mailserver.store.maildir.home import folders, intent, recovery
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.local_changes import LocalChange
from mailserver.store.maildir.mailbox.staged_file import StagedFile
from mailserver.store.maildir.sync.directory_update import DirectoryUpdate, make_keywords
from mailserver.store.maildir.sync.entries import next_uids
from mailserver.store.maildir.sync.reconcile import sync_uidlist
from mailserver.store.receiving import Appended, Delivery, NewMessage
from mailserver.types import UID, MailboxId, ModSeq


@define
class _Arrival:
    """A message that is being delivered."""

    staged: StagedFile
    flags: frozenset[str]
    date: int
    mask: int = 0
    suffix: str = ""
    place: int = 0

    @property
    def base(self) -> str:
        return self.staged.final_base

    def entry(self, uid: UID, modseq: ModSeq) -> Entry:
        """Make its index entry."""
        size, date = self.staged.virtual_size, self.date
        return Entry(uid, modseq, self.mask, size, date, self.base, self.suffix, self.place)

    @property
    def record(self) -> list[object]:
        """Make its part of an intent: file in tmp/, place, final name."""
        return [os.path.basename(self.staged.path), self.place, self.base + self.suffix]


def append(
    home: Home, name: str, messages: Sequence[NewMessage], seen_by: Callable[[MailboxId], bool] = lambda _mailbox: False
) -> Appended:
    """Publish messages, all or none. `seen_by` tells whether a session that claims \\Recent messages is there.

    Raises: NoSuchMailbox, LimitReached, InUse, NoSpace, StoreUnavailable.
    """
    arrivals = _sync(messages)
    with home.changing(), home.dotlocked([_existing(home, name).directory]):
        state = sync_uidlist(home, name)
        home.check_messages(state, len(arrivals))
        # If older messages wait in new/, the session claims them all together.
        claimed = state.recent_from >= state.uid_next and seen_by(state.guid)
        _name_files(home, state, arrivals, claimed=claimed)
        pending = _write_intent(home, state, arrivals) if len(arrivals) > 1 else None
        try:
            appended = _publish(home, state, arrivals, claimed=claimed)
        finally:
            if pending is not None:
                # All are published, or none is there: settling it once more does no harm.
                intent.forget(home.root, pending)
    return appended


Outcomes = dict[int, Appended | Exception]
"""Outcomes of deliveries, by their position in the request."""


def deliver(
    home: Home, deliveries: Sequence[Delivery], seen_by: Callable[[MailboxId], bool]
) -> list[Appended | Exception]:  # fmt: skip
    """Do `append` for each, independent of the others. Those of one message each are published together.

    Such a group has one lock, and for each mailbox one append to the uidlist, one sync of each directory and one
    transaction. It needs no intent: each message is complete by itself, and none is acknowledged before all are synced.
    """
    outcomes: Outcomes = {}
    groups: dict[str, list[tuple[int, _Arrival]]] = {}
    for at, delivery in enumerate(deliveries):
        try:
            # Before anything is written. Under the locks it is checked again.
            _check_exists(home, delivery.name)
            if len(deliveries) == 1 or len(delivery.messages) != 1:
                outcomes[at] = append(home, delivery.name, delivery.messages, seen_by)
            else:
                [arrival] = _sync(delivery.messages)
                groups.setdefault(delivery.name, []).append((at, arrival))
        except Exception as error:
            outcomes[at] = error
    if groups:
        try:
            with home.changing():
                for name, members in groups.items():
                    _deliver_into(home, name, members, seen_by, outcomes)
        except Exception as error:
            for at in range(len(deliveries)):
                outcomes.setdefault(at, error)
    return [outcomes[at] for at in range(len(deliveries))]


def _check_exists(home: Home, name: str) -> None:
    """Raise NoSuchMailbox unless it exists, also for an invalid name."""
    try:
        exists = home.layout.exists(name)
    except BadMailboxName as error:
        raise NoSuchMailbox from error
    if not exists:
        raise folders.missing(name)


def _deliver_into(
    home: Home,
    name: str,
    members: Sequence[tuple[int, _Arrival]],
    seen_by: Callable[[MailboxId], bool],
    outcomes: Outcomes,
) -> None:
    """Do steps 2 to 6 for several independent messages of one mailbox."""
    try:
        with home.dotlocked([_existing(home, name).directory]):
            state = sync_uidlist(home, name)
            claimed = state.recent_from >= state.uid_next and seen_by(state.guid)
            ready: list[tuple[int, _Arrival]] = []
            for at, arrival in members:
                try:
                    home.check_messages(state, len(ready) + 1)
                    _name_files(home, state, [arrival], claimed=claimed)
                except MailError as error:
                    outcomes[at] = error
                else:
                    ready.append((at, arrival))
            try:
                together = _publish(home, state, [arrival for _, arrival in ready], claimed=claimed)
            except (MailError, OSError):
                # An error of one message need not affect the others.
                for at, arrival in ready:
                    outcomes[at] = _publish_alone(home, name, arrival, claimed=claimed)
            else:
                for (at, _), uid in zip(ready, together.uids, strict=True):
                    outcomes[at] = evolve(together, uids=[uid])
    except Exception as error:
        for at, _ in members:
            outcomes.setdefault(at, error)


def _publish_alone(home: Home, name: str, arrival: _Arrival, *, claimed: bool) -> Appended | Exception:
    try:
        state = sync_uidlist(home, name)
        _name_files(home, state, [arrival], claimed=claimed)
        return _publish(home, state, [arrival], claimed=claimed)
    except Exception as error:
        return error


class PreparedMessages:
    """Messages synced in tmp/ with an intent; see `store.receiving.Prepared`."""

    def __init__(self, home: Home, pending: intent.Intent, arrivals: list[_Arrival]) -> None:
        self._home = home
        self._pending = pending
        self._arrivals = arrivals
        self._appended: Appended | None = None
        self._done = False
        self._is_late = False
        """The first attempt to publish them failed, so another process may have done it meanwhile."""

    def publish(self) -> Appended:
        """Publish them. Repeated, it returns the same.

        After a failure the next holder of the account's lock publishes them. Raises: InUse, StoreUnavailable.
        """
        if self._appended is not None:
            return self._appended
        if self._done:
            raise ValueError("these messages have been aborted")
        try:
            return self._publish()
        except BaseException:
            self._is_late = True
            self._home.something_due = True
            try:
                self._pending = intent.make_due(self._home.root, self._pending)
            except (OSError, MailError):
                self._home.due.add(self._pending.id)
            raise

    def _publish(self) -> Appended:
        home = self._home
        with home.changing():
            name = recovery.find_mailbox(home, self._pending.payload)
            if self._is_late:
                # Does nothing if it has been done.
                self._appended = self._publish_without_uids(name)
                self._done = True
                intent.forget(home.root, self._pending)
                return self._appended
            try:
                with home.dotlocked([home.paths(name).directory], must=True):
                    state = sync_uidlist(home, name)
                    self._appended = _publish(home, state, self._arrivals, must=True)
            except NoSpace:
                self._appended = self._publish_without_uids(name)
            self._done = True
            intent.forget(home.root, self._pending)
        return self._appended

    def _publish_without_uids(self, name: str) -> Appended:
        """Rename the files, which needs no disk space. The next reader gives them UIDs when there is space."""
        home = self._home
        touched = recovery.SETTLERS[recovery.PUBLISH](home, self._pending.payload)
        home.update(lambda index: index.mailboxes.distrust(touched))
        known = home.read(lambda index: index.mailboxes.by_name(name))
        if known is None:
            raise NoSpace
        return Appended(known.guid, known.uid_validity, [])

    def abort(self) -> None:
        """Remove them, unless they are published, or left to others to be published."""
        if self._done or self._is_late:
            return
        self._done = True
        # The intent first: after the loss of some files it would publish the others.
        intent.forget(self._home.root, self._pending)
        for arrival in self._arrivals:
            safeio.discard(arrival.staged.path)
        if safeio.leftovers:
            # No process may publish it later.
            with contextlib.suppress(OSError, MailError), self._home.locked():
                pass


def prepare(home: Home, name: str, messages: Sequence[NewMessage]) -> PreparedMessages:
    """Do steps 1 to 3. Raises: as `append`."""
    arrivals = _sync(messages)
    with home.changing(), home.dotlocked([_existing(home, name).directory]):
        state = sync_uidlist(home, name)
        home.check_messages(state, len(arrivals))
        _name_files(home, state, arrivals)
        _save(home, state, [])
        home.expect_intents()
        pending = _write_intent(home, state, arrivals)
    for arrival in arrivals:
        arrival.staged.release()
    return PreparedMessages(home, pending, arrivals)


def _existing(home: Home, name: str) -> MailboxPaths:
    """Return the paths of an existing mailbox. Raises: NoSuchMailbox, BadMailboxName."""
    paths = home.paths(name)
    if not folders.is_mailbox(paths.directory):
        sync_uidlist(home, name)
    return paths


def _sync(messages: Sequence[NewMessage]) -> list[_Arrival]:
    """Do step 1, without the lock."""
    arrivals = []
    for new in messages:
        staged = new.staged
        if not isinstance(staged, StagedFile):
            raise TypeError("not a message staged here")
        date = int(time.time()) if new.date is None else new.date
        staged.sync(date)
        safeio.point("delivery.after-sync")
        arrivals.append(_Arrival(staged, new.flags, date))
    return arrivals


def _name_files(home: Home, state: MailboxState, arrivals: Sequence[_Arrival], *, claimed: bool = False) -> None:
    """Do step 2: choose each file's name and directory."""
    make_keywords(home, state, {flag for arrival in arrivals for flag in arrival.flags})
    for arrival in arrivals:
        arrival.mask = make_keywords(home, state, arrival.flags) if arrival.flags else 0
        arrival.place = int(claimed or arrival.mask != 0)
        arrival.suffix = ":2," + flag_letters(arrival.mask) if arrival.place else ""


def _write_intent(home: Home, state: MailboxState, arrivals: Sequence[_Arrival]) -> intent.Intent:
    payload: dict[str, Any] = {
        "owner": owner(),
        "mailbox": state.name,
        "guid": state.guid.hex(),
        "files": [arrival.record for arrival in arrivals],
    }
    # The names in tmp/ must be safe before the intent is.
    safeio.sync_directory(home.temporary)
    return intent.write(home.root, intent.Intent(recovery.PUBLISH, payload))


def _publish(
    home: Home, state: MailboxState, arrivals: Sequence[_Arrival], *, must: bool = False, claimed: bool = False
) -> Appended:
    """Do steps 4 to 6, under both locks. With `must` the reserved space may be released."""
    paths = home.paths(state.name)
    own = DirectoryUpdate(home, paths, state, sorted({arrival.place for arrival in arrivals}))
    own.expect(arrival.base + arrival.suffix for arrival in arrivals)
    uids = next_uids(state, len(arrivals))
    lines = [(uid, arrival.base) for uid, arrival in zip(uids, arrivals, strict=True)]
    safeio.point("delivery.before-uidlist")
    state.uidlist_signature = _with_room(home, lambda: uidlist.append(paths.uidlist, lines), must=must)
    safeio.point("delivery.after-uidlist")
    _rename_all(home, paths, arrivals, must=must)
    own.record()
    before, modseq = state.modseq, next_modseq(state.modseq)
    if uids:
        state.uid_next = UID(uids[-1] + 1)
        state.modseq = modseq
    if claimed:
        state.recent_from = state.uid_next
    entries = [arrival.entry(uid, modseq) for uid, arrival in zip(uids, arrivals, strict=True)]
    safeio.point("delivery.before-index")
    _save(home, state, entries)
    if uids:
        home.local_changes.keep(state.key, LocalChange(before, modseq, [entry.row() for entry in entries], []))
    safeio.point("delivery.after-index")
    for arrival in arrivals:
        arrival.staged.release()
    return Appended(state.guid, state.uid_validity, uids, claimed)


def _rename_all(home: Home, paths: MailboxPaths, arrivals: Sequence[_Arrival], *, must: bool) -> None:
    """Do step 5. After a failure undo the renames."""
    done: list[tuple[str, str]] = []
    try:
        for arrival in arrivals:
            target = os.path.join(paths.place(arrival.place), arrival.base + arrival.suffix)
            source = arrival.staged.path
            _with_room(home, lambda source=source, target=target: safeio.rename(source, target), must=must)  # type: ignore[misc]
            done.append((source, target))
            safeio.point("delivery.after-rename")
        sync_directories(paths.place(arrival.place) for arrival in arrivals)
        safeio.point("delivery.after-directory-sync")
    except BaseException:
        for source, target in done:
            try:
                safeio.rename(target, source)
            except (OSError, MailError):
                if not must:
                    # It is refused, and must not become visible.
                    safeio.discard(target)
        with contextlib.suppress(OSError, MailError):
            sync_directories(os.path.dirname(target) for _source, target in done)
        raise


def _with_room(home: Home, operation: Callable[[], Any], *, must: bool) -> Any:
    """Release the reserved space only for messages that were promised, not for other deliveries."""
    return home.with_room(operation) if must else operation()


def _save(home: Home, state: MailboxState, entries: Sequence[Entry]) -> None:
    def save(index: Index) -> None:
        index.mailboxes.save(state)
        index.messages.add(state.key, entries)

    home.update(save, len(entries))
