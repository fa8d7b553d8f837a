"""The tree of mailboxes of one Maildir account: names, subscriptions, and each mailbox by its name."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Mapping, Sequence

from mailserver.errors import (
    BadMailboxName,
    Cannot,
    LimitReached,
    MailboxExists,
    MailboxHasChildren,
    MailError,
    NoSuchMailbox,
)
from mailserver.store.interfaces import MailboxInfo, MailboxList, ScanTooLarge, Status
from mailserver.store.maildir.account import annotation_change
from mailserver.store.maildir.account.mailbox_list import MailboxListReader
from mailserver.store.maildir.account.statuses import statuses
from mailserver.store.maildir.disk import directories, safeio
from mailserver.store.maildir.format import subscriptions, uidlist
from mailserver.store.maildir.format.uid_validity import next_uid_validity
from mailserver.store.maildir.home import folders, intent, recovery, special_use
from mailserver.store.maildir.home.folders import INBOX, canonical
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.renaming import rename_tree
from mailserver.store.maildir.home.special_use import set_special_use
from mailserver.store.maildir.mailbox.mailbox import MaildirMailbox
from mailserver.store.maildir.sync.reconcile import sync_uidlist
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID, MailboxId

_log = logging.getLogger(__name__)


class MailboxTree:
    """The part of an account that knows its mailboxes; `MaildirAccount` is the whole."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._list = MailboxListReader(home)

    # --- names

    def mailboxes(self) -> Sequence[MailboxInfo]:
        """Return every name, parents included, sorted; INBOX first. Raises: InUse, StoreUnavailable."""
        return self._list.read().infos

    def mailbox_list(self) -> MailboxList:
        """Return the same with the subscriptions, to be used until they change. Raises: InUse, StoreUnavailable."""
        return self._list.read()

    def mailbox_ids(self, ids: Collection[MailboxId] | None = None) -> Mapping[MailboxId, str]:
        """Return the names of the mailboxes with these ids, or of all, that the index has."""
        return self._home.read(lambda index: index.mailboxes.names(ids))

    def list_paths(self) -> Sequence[str]:
        """Return the root."""
        return (self._home.root,)

    def watched_paths(self, name: str) -> Sequence[str]:
        """Return cur/ and new/ of a mailbox. On any thread. Raises: BadMailboxName."""
        directory = self._home.layout.path(name)
        return f"{directory}/cur", f"{directory}/new"

    def subscriptions(self) -> frozenset[str]:
        """Return the subscribed names, also those that do not exist. Raises: StoreUnavailable."""
        return subscriptions.read(self._home.root, self._home.settings.encoding)

    def set_subscribed(self, name: str, *, subscribed: bool) -> None:
        """Subscribe or unsubscribe. Raises: BadMailboxName, LimitReached, InUse, NoSpace."""
        name = canonical(name)
        self._home.paths(name)
        with self._home.changing():
            known = self.subscriptions()
            wanted = known | {name} if subscribed else known - {name}
            if len(wanted) > max(len(known), self._home.settings.bounds.mailboxes):
                raise LimitReached(f"no more than {self._home.settings.bounds.mailboxes} names can be subscribed to")
            if wanted != known:
                subscriptions.write(self._home.root, wanted, self._home.settings.encoding)

    def create(self, name: str, special_use: frozenset[str] = frozenset()) -> MailboxId:
        """Make a mailbox and its missing parents.

        Raises: MailboxExists, BadMailboxName, LimitReached, InUse, NoSpace.
        """
        name = canonical(name)
        home = self._home
        home.paths(name)
        with home.changing():
            if home.layout.exists(name):
                raise MailboxExists
            missing = [
                level_name for level_name in (*folders.parents(name), name) if not home.layout.exists(level_name)
            ]
            home.check_mailboxes(len(missing))
            made: list[str] = []
            try:
                for level_name in missing:
                    home.layout.create(level_name, next_uid_validity(home.root))
                    made.append(level_name)
                state = sync_uidlist(home, name)
                if special_use:
                    set_special_use(home, state.guid, special_use)
            except BaseException:
                for level_name in reversed(made):
                    home.layout.undo_create(level_name)
                raise
            return state.guid

    def delete(self, name: str) -> None:
        """Remove a mailbox with its mail. Raises: NoSuchMailbox, MailboxHasChildren, Cannot, InUse."""
        name = canonical(name)
        home = self._home
        if name == INBOX:
            raise Cannot("INBOX cannot be deleted")
        with home.changing():
            if not self._exists(name):
                raise MailboxHasChildren if self._children(name) else NoSuchMailbox
            safeio.point("delete.before-rename")
            retired = home.layout.retire(name)
            safeio.point("delete.after-rename")
            state = home.read(lambda index: index.mailboxes.by_name(name))
            if state is not None:
                key = state.key
                home.update(lambda index: index.mailboxes.remove(key))
                home.forget(state.guid)
                try:
                    special_use.forget(home.root, state.guid)
                except (MailError, OSError) as error:
                    # It is deleted all the same: LIST checks whether the mailbox exists.
                    _log.warning("the special use of the deleted mailbox %s could not be removed: %r", name, error)
            safeio.point("delete.after-index")
        # It is invisible: other operations need not wait for the removal of much mail. It stays deleted if the disk
        # keeps the files; the next operation tries again.
        directories.discard_tree(retired)

    def rename(self, old: str, new: str) -> None:
        """Rename with all children; INBOX: its messages move to `new`.

        Raises: NoSuchMailbox, MailboxExists, BadMailboxName, LimitReached, InUse, NoSpace.
        """
        old, new = canonical(old), canonical(new)
        home = self._home
        home.paths(new)
        with home.changing():
            children = self._children(old)
            moving = [old, *children] if self._exists(old) else children
            if not moving:
                raise NoSuchMailbox
            if home.layout.exists(new):
                raise MailboxExists
            if old == INBOX:
                self._empty_inbox(new)
                return
            if new.startswith(old + "/"):
                raise BadMailboxName("a mailbox cannot be moved below itself")
            rename_tree(home, moving, old, new)

    def _empty_inbox(self, new: str) -> None:
        """Make `new` and move the messages of INBOX there."""
        home = self._home
        created = [name for name in (*folders.parents(new), new) if not home.layout.exists(name)]
        pending = intent.write(home.root, intent.Intent(recovery.CREATE, {"created": created}))
        try:
            self.create(new)
            # RFC 5464 4.1: both have them then.
            annotation_change.copy(home, INBOX, new)
            inbox = self.mailbox(INBOX)
            inbox.refresh()
            moved = inbox.move([UID(uid) for uid in inbox.load().uids], new)
            if not moved.source:
                # While the intent exists, mailboxes without messages are removed.
                intent.clear(home.root, pending)
        except MailError:
            with contextlib.suppress(OSError, MailError):
                touched = recovery.undo_create(home, pending.payload)
                home.update(lambda index: index.mailboxes.distrust(touched))
                intent.forget(home.root, pending)
            raise
        if moved.source:
            intent.forget(home.root, pending)

    # --- mailboxes

    def mailbox(self, name: str) -> MaildirMailbox:
        """Return a mailbox by name. Raises: NoSuchMailbox, InUse, NoSpace, StoreUnavailable."""
        name = canonical(name)
        home = self._home
        self._check(name)
        state = home.read(lambda index: index.mailboxes.by_name(name))
        signature = uidlist.signature(home.paths(name).uidlist)
        if (
            state is None
            or signature is None
            or signature[:2] != state.uidlist_signature[:2]
            or state.boot != home.boot
        ):
            with home.locked():
                state = sync_uidlist(home, name)
        return MaildirMailbox(home, state)

    def status(self, name: str) -> Status:
        """Return counts, after taking up other programs' changes. Raises: NoSuchMailbox, InUse."""
        mailbox = self.mailbox(name)
        mailbox.refresh()
        return mailbox.status()

    def statuses(self, names: Sequence[str], time_slice: TimeSlice) -> Mapping[str, Status | MailError | ScanTooLarge]:
        """Return the status of many mailboxes, or what `status` raises, by name."""
        return statuses(self._home, names, self.mailbox, time_slice)

    # --- small parts

    def _check(self, name: str) -> None:
        if not self._exists(name):
            self._list.distrust()
            raise folders.missing(name)

    def _exists(self, name: str) -> bool:
        try:
            return folders.is_mailbox(self._home.paths(name).directory)
        except BadMailboxName:
            return False

    def _children(self, name: str) -> list[str]:
        return [other for other in self._home.layout.mailboxes() if other.startswith(name + "/")]
