"""Identification of the mailbox in a directory, by its uidlist's header and the index: the first step of `reconcile`.

Another GUID or UIDVALIDITY is another mailbox. A GUID in another place is a mailbox that another program renamed; or
copied, if the old place still has it. Unchanged files are not read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from attrs import field, frozen

from mailserver.store.index.database import next_modseq
from mailserver.store.index.records import MailboxState
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.format.paths import MailboxPaths
from mailserver.store.maildir.format.uid_validity import next_uid_validity
from mailserver.store.maildir.home import folders
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.sync.differences import FEW
from mailserver.store.maildir.sync.uidlist_repair import rebuild_uidlist
from mailserver.types import UID

_LATER_US = 60_000_000
"""Microseconds by which a modseq may be above the mtime that its change left: syncs of a slow disk come between."""
_USUAL_LINE = 48
"""Octets of a usual uidlist line, to estimate how much there is to read."""


@frozen
class Identified:
    """A mailbox, read as far as its identification needs."""

    state: MailboxState
    """The state to start from."""
    listed: uidlist.UidList | None = None
    """The uidlist, if it had to be read or made."""
    is_written: bool = True
    """The list is a file. That of a new mailbox is written later, together with the lines of its messages."""
    tail: dict[str, UID] = field(factory=dict)
    """UIDs by base, if these lines are all that is new in the list."""
    is_new: bool = False
    """The index does not have it."""


def identify(home: Home, name: str, exclude_dovecot: Callable[[None], None]) -> Identified:
    """Identify a mailbox, under the account's lock. `exclude_dovecot(None)` takes Dovecot's, before a list is made.

    Raises: NoSuchMailbox, InUse, NoSpace, StoreUnavailable; ScanTooLarge inside `Home.bounded`.
    """
    paths = home.paths(name)
    state = home.index().mailboxes.by_name(name)
    signature = uidlist.signature(paths.uidlist)
    is_written = True
    if signature is None:
        if not folders.is_mailbox(paths.directory):
            if state is not None:
                forget(home, state)
            raise folders.missing(name)
        exclude_dovecot(None)
        listed = _make_list(home, paths, state)
        is_written = state is not None
    else:
        if state is not None and state.boot == home.boot:
            if signature == state.uidlist_signature:
                return Identified(state)
            tail = _read_tail(home, paths, state)
            if tail:
                return Identified(state, tail=tail)
        most = home.most_unseen
        if most is not None and signature.size > most * _USUAL_LINE:
            raise home.scan_too_large(name)
        listed = uidlist.read(paths.uidlist)
    _complete_header(home, listed, state)
    if state is not None and (state.guid, state.uid_validity) != (listed.guid, listed.uid_validity):
        forget(home, state)
        state = None
    if state is None:
        state = _by_guid(home, name, listed)
    if state is not None:
        return Identified(state, listed, is_written)
    modseq = next_modseq(earlier_modseqs(paths))
    state = MailboxState(0, listed.guid, name, listed.uid_validity, UID(1), modseq, modseq, recent_from=UID(1))
    return Identified(state, listed, is_written, is_new=True)


def earlier_modseqs(paths: MailboxPaths) -> int:
    """Return a number that no modseq given so far is above, whatever the clock says now.

    Each change of a mailbox changes a directory, and its modseq is the time of the change (`next_modseq`). So where the index
    is lost and the clock was set back, clients still get modseqs above all that they know.
    """
    newest = 0
    for path in (paths.new, paths.cur, paths.uidlist):
        with contextlib.suppress(FileNotFoundError), safeio.boundary():
            newest = max(newest, os.stat(path).st_mtime_ns)
    return newest // 1000 + _LATER_US


def forget(home: Home, state: MailboxState) -> None:
    """Remove a mailbox from the index: it is gone, or another has its place."""
    key = state.key
    home.update(lambda index: index.mailboxes.remove(key))


def _read_tail(home: Home, paths: MailboxPaths, state: MailboxState) -> dict[str, UID] | None:
    """Read only the lines that were added to the list; None if that is not enough."""
    if state.uid_next == 1 or len(state.uidlist_signature) != len(uidlist.Signature._fields):
        return None
    known = uidlist.Signature(*state.uidlist_signature)
    if uidlist.read_header(paths.uidlist) != (state.uid_validity, state.guid):
        return None
    tail = uidlist.read_tail(paths.uidlist, known, state.uid_next - 1)
    if tail is None or tail.damaged or not 0 < len(tail.entries) <= FEW:
        return None
    index = home.index()
    if any(index.messages.by_base(state.key, base) is not None for _uid, base in tail.entries):
        # A known message has another UID now.
        return None
    state.uidlist_signature = tail.signature
    return {base: uid for uid, base in tail.entries}


def _make_list(home: Home, paths: MailboxPaths, state: MailboxState | None) -> uidlist.UidList:
    """Make a missing uidlist: an unwritten one for a new mailbox, or one from the index for a known mailbox."""
    if state is None:
        validity = home.with_room(lambda: next_uid_validity(home.root))
        return uidlist.unwritten(paths.uidlist, validity)
    lost = uidlist.unwritten(paths.uidlist, state.uid_validity, state.guid, state.uid_next)
    return rebuild_uidlist(home, lost, state)


def _complete_header(home: Home, listed: uidlist.UidList, state: MailboxState | None) -> None:
    if "G" in listed.header_missing and state is not None:
        listed.guid = state.guid
    if "V" in listed.header_missing:
        listed.uid_validity = state.uid_validity if state is not None else next_uid_validity(home.root)


def _by_guid(home: Home, name: str, listed: uidlist.UidList) -> MailboxState | None:
    """Return the state of a mailbox that another program renamed."""
    other = home.read(lambda index: index.mailboxes.by_guid(listed.guid))
    if other is None:
        return None
    if folders.identity(home.paths(other.name).directory) == (listed.guid, listed.uid_validity):
        listed.guid = uidlist.new_guid()
        listed.damaged = True
        return None
    if other.uid_validity != listed.uid_validity:
        forget(home, other)
        return None
    other.name = name
    return other
