"""REPLACE: a new message in the place of an old one, in one step (RFC 8508).

An intent exists from before the first change until the old file is durably gone. The new file is durable under its name before
the old one is removed, and the index gets both changes in one transaction. After a crash the next holder of the lock finishes
the change (`recovery`); before the removal a failure takes the new file back.
"""

from __future__ import annotations

import os

from mailserver.errors import MailError, MessageExpunged
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.directories import sync_directories
from mailserver.store.maildir.format.paths import MailboxPaths
from mailserver.store.maildir.home import folders, intent, recovery
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.local_changes import LocalChange
from mailserver.store.maildir.mailbox.publication import Arrival, name_files, place_files, sync_messages, take_back
from mailserver.store.maildir.mailbox.transfer import present_entries
from mailserver.store.maildir.sync.directory_update import DirectoryUpdate
from mailserver.store.maildir.sync.reconcile import sync_uidlist
from mailserver.store.maildir.sync.usage import Addition
from mailserver.store.receiving import Appended, NewMessage
from mailserver.types import UID, ModSeq


def replace(home: Home, state: MailboxState, uid: UID, target: str, message: NewMessage) -> Appended:
    """Publish a message in `target` and remove one of the mailbox of `state`. Under the account's lock.

    Raises: NoSuchMailbox, MessageExpunged, LimitReached, OverQuota, InUse, NoSpace, StoreUnavailable.
    """
    if not home.layout.exists(target):
        raise folders.missing(target)
    [arrival] = sync_messages([message])
    # Before the target's lock: it may take the source's, and locks are taken in the order of paths.
    state, found = present_entries(home, state, [uid])
    if not found:
        raise MessageExpunged
    [(old, disk)] = found
    with home.dotlocked([home.paths(target).directory]):
        into = sync_uidlist(home, target)
        if into.guid == state.guid:
            state = into
        else:
            home.check_messages(into, 1)
        addition = Addition(home)
        # Only the net consumption counts (RFC 8508 3.4).
        addition.check(arrival.size - (disk if old.size is None else old.size), 0)
        name_files(home, into, [arrival])
        appended = _carry_out(home, state, into, old, arrival)
        addition.done()
    return appended


def _carry_out(home: Home, state: MailboxState, into: MailboxState, old: Entry, arrival: Arrival) -> Appended:
    source, target = home.paths(state.name), home.paths(into.name)
    if into is state:
        own = [DirectoryUpdate(home, source, state, sorted({old.place, arrival.place}))]
    else:
        own = [
            DirectoryUpdate(home, source, state, (old.place,)),
            DirectoryUpdate(home, target, into, (arrival.place,)),
        ]
    own[0].expect([old.file_name])
    own[-1].expect([arrival.file_name])
    pending = _write_intent(home, state, into, old, arrival)
    try:
        [uid] = place_files(home, into, [arrival])
        is_durable = _remove(source, old, arrival, target)
    except BaseException:
        if not os.path.lexists(os.path.join(target.place(arrival.place), arrival.file_name)):
            intent.forget(home.root, pending)
        raise
    for change in own:
        change.record()
    safeio.point("replace.before-index")
    _save(home, state, into, old, arrival.entry(uid, next_modseq(into.modseq)))
    safeio.point("replace.after-index")
    arrival.staged.release()
    if is_durable:
        intent.forget(home.root, pending)
        safeio.point("replace.after-clear")
    else:
        # After a power cut the old file may be there again: then the intent removes it.
        home.expect_intents()
    return Appended(into.guid, into.uid_validity, [uid])


def _remove(source: MailboxPaths, old: Entry, arrival: Arrival, target: MailboxPaths) -> bool:
    """Remove the old file, or take the new one back and raise. Return whether the removal is durable."""
    safeio.point("replace.before-unlink")
    directory = source.place(old.place)
    try:
        removed_from = [directory, *_unlink(source, old)]
    except BaseException:
        take_back(target, [arrival])
        raise
    safeio.point("replace.after-unlink")
    try:
        sync_directories(removed_from)
    except (OSError, MailError):
        return False
    safeio.point("replace.after-directory-sync")
    return True


def _unlink(source: MailboxPaths, old: Entry) -> list[str]:
    """Remove a message's file, also under a name that another program has just given it. Return other directories concerned.

    A file that another program has removed is none that this change must keep.
    """
    try:
        safeio.unlink(os.path.join(source.place(old.place), old.file_name))
    except FileNotFoundError:
        with safeio.boundary():
            renamed = [
                (directory, name)
                for directory in (source.new, source.cur)
                for name in os.listdir(directory)
                if name.partition(":2,")[0] == old.base
            ]
        for directory, name in renamed:
            safeio.discard(os.path.join(directory, name))
        return [directory for directory, _name in renamed]
    return []


def _write_intent(
    home: Home, state: MailboxState, into: MailboxState, old: Entry, arrival: Arrival
) -> intent.Intent:  # fmt: skip
    payload: dict[str, object] = {
        "mailbox": into.name,
        "guid": into.guid.hex(),
        "files": [arrival.record],
        "source": state.name,
        "removed": [old.place, old.file_name],
    }
    # The name in tmp/ must be safe before the intent is.
    safeio.sync_directory(home.temporary)
    return intent.write(home.root, intent.Intent(recovery.REPLACE, payload))


def _save(home: Home, state: MailboxState, into: MailboxState, old: Entry, new: Entry) -> None:
    """Update the index: both changes have one modseq where they are in one mailbox."""
    since = state.modseq, into.modseq
    into.uid_next = UID(new.uid + 1)
    into.modseq = ModSeq(new.modseq)
    if into is not state:
        state.modseq = next_modseq(state.modseq)
    gone = [UID(old.uid)]

    def save(index: Index) -> None:
        index.mailboxes.save(state)
        if into is not state:
            index.mailboxes.save(into)
        index.messages.add(into.key, [new])
        index.expunge(state.key, gone, state.modseq)

    home.update(save, 2)
    if into is not state:
        home.local_changes.keep(state.key, LocalChange(since[0], state.modseq, [], gone))
    home.local_changes.keep(into.key, LocalChange(since[1], into.modseq, [new.row()], gone if into is state else []))
    if state.key in home.untidied:
        home.untidied[state.key] += 1
