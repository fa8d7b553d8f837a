"""One user's Maildir: the tree of mailboxes, and the entry for messages."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from attrs import evolve

from mailserver.errors import (
    BadMailboxName,
    Cannot,
    LimitReached,
    MailboxExists,
    MailboxHasChildren,
    MailError,
    NoSuchMailbox,
)
from mailserver.store.index.database import HISTORY
from mailserver.store.index.records import MailboxState
from mailserver.store.interfaces import MailboxInfo, MailboxList, MaildropLock, Status
from mailserver.store.maildir.account import relocation
from mailserver.store.maildir.account.mailbox_list import MailboxListReader
from mailserver.store.maildir.account.text_index import NOW, TextIndex
from mailserver.store.maildir.disk import directories, lock, reserved_space, safeio
from mailserver.store.maildir.format import subscriptions, uidlist
from mailserver.store.maildir.format.uid_validity import next_uid_validity
from mailserver.store.maildir.home import folders, intent, recovery, special_use
from mailserver.store.maildir.home.folders import INBOX, canonical
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.renaming import rename_tree
from mailserver.store.maildir.home.settings import Settings
from mailserver.store.maildir.home.special_use import set_special_use
from mailserver.store.maildir.mailbox import delivery, staged_file
from mailserver.store.maildir.mailbox.mailbox import MaildirMailbox
from mailserver.store.maildir.sync.reconcile import sync_uidlist
from mailserver.store.receiving import Appended, Delivery, NewMessage, Prepared, StagedMessage
from mailserver.types import UID, MailboxId, UIDValidity

_log = logging.getLogger(__name__)


class MaildirAccount:
    """Implements `store.interfaces.Account`."""

    def __init__(self, user: str, root: str, settings: Settings) -> None:
        self._user = user
        self._home = Home(root, settings)
        self._list = MailboxListReader(self._home)
        self._text_index = TextIndex(self._home, self._contents)
        if settings.search_index:
            self._home.text_index = self._text_index

    @property
    def user(self) -> str:
        """The full name."""
        return self._user

    @property
    def root(self) -> str:
        """INBOX's directory, which contains all others."""
        return self._home.root

    # --- names

    def mailboxes(self) -> Sequence[MailboxInfo]:
        """Return every name, parents included, sorted; INBOX first. Raises: InUse, StoreUnavailable."""
        return self._list.read().infos

    def mailbox_list(self) -> MailboxList:
        """Return the same with the subscriptions, to be used until they change. Raises: InUse, StoreUnavailable."""
        return self._list.read()

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

    # --- messages

    def stage(self) -> StagedMessage:
        """Start receiving a message."""
        return staged_file.StagedFile(self._home.temporary, self._home.settings.hostname)

    def append(
        self, name: str, messages: Sequence[NewMessage], seen_by: Callable[[MailboxId], bool] = lambda _mailbox: False
    ) -> Appended:
        """Publish staged messages, all or none. Raises: NoSuchMailbox, LimitReached, InUse, NoSpace."""
        name = canonical(name)
        self._check(name)
        appended = delivery.append(self._home, name, messages, seen_by)
        reserved_space.ensure(self._home.settings.reserved_space_root)
        return appended

    def deliver(
        self, deliveries: Sequence[Delivery], seen_by: Callable[[MailboxId], bool] = lambda _mailbox: False
    ) -> list[Appended | Exception]:
        """Do `append` for each of them, together."""
        try:
            named = [evolve(each, name=canonical(each.name)) for each in deliveries]
            return delivery.deliver(self._home, named, seen_by)
        finally:
            for each in deliveries:
                for new in each.messages:
                    new.staged.abort()
            reserved_space.ensure(self._home.settings.reserved_space_root)

    def prepare(self, name: str, messages: Sequence[NewMessage]) -> Prepared:
        """Sync the messages with an intent record. Raises: as `append`."""
        name = canonical(name)
        self._check(name)
        return delivery.prepare(self._home, name, messages)

    def lock_maildrop(self) -> MaildropLock:
        """Acquire the account's lock for a POP3 session. Raises: InUse, NoSpace, StoreUnavailable."""
        root = self._home.root
        return self._home.with_room(lambda: lock.MaildropLock(root))

    @property
    def has_maintenance(self) -> bool:
        """True if the index's WAL is long, or a text index exists or is wanted."""
        home = self._home
        return home.checkpoint_due or (home.text_index is not None and home.text_index.in_use)

    def maintain(self, stop: Callable[[], bool]) -> float | None:
        """Checkpoint the index, then update the text index, a little at a time."""
        if self._home.checkpoint_due:
            self._home.checkpoint()
            return NOW
        text_index = self._home.text_index
        return None if text_index is None else text_index.work(stop)

    def bounded(self) -> AbstractContextManager[None]:
        """Raise ScanTooLarge meanwhile rather than read a mailbox with very many new files."""
        return self._home.bounded()

    def close(self) -> None:
        """Close files and connections. The next use opens them again."""
        self._list.forget()
        self._home.close()

    @property
    def is_there(self) -> bool:
        """Tell whether the Maildir is still at its path."""
        return is_account(self._home.root)

    # --- for the store

    def move_to(self, root: str) -> None:
        """Move the whole account to another place, with its UIDs, and leave a marker (see `relocation`).

        This object must not be used afterwards. Raises: PlaceTaken, InUse, NoSpace, StoreUnavailable.
        """
        with self._home.locked():
            self._home.close()
            relocation.exchange(self._home.root, root)

    def become_account(self, uid_validity: UIDValidity) -> None:
        """Turn a directory into a Maildir. Raises: InUse, NoSpace, StoreUnavailable."""
        with self._home.locked():
            self._home.layout.create(INBOX, uid_validity)

    def set_up(self) -> None:
        """Make a new account's special-use folders, the first name of each use. Raises: BadMailboxName, NoSpace."""
        uses = {use: names[0] for use, names in self._home.settings.special_use.items() if names}
        with self._home.changing():
            for name in dict.fromkeys(uses.values()):
                self.create(name, frozenset("\\" + use for use, other in uses.items() if other == name))
            # Programs that list only subscribed mailboxes show them too.
            subscriptions.write(self._home.root, uses.values(), self._home.settings.encoding)

    # --- for the administrator

    def special_uses(self) -> Mapping[str, special_use.Holder]:
        """Return the mailbox of each attribute, and the reason. Raises: InUse, StoreUnavailable."""
        return self._list.holders()

    def give_special_use(self, attribute: str, name: str | None) -> None:
        """Give an attribute to that mailbox alone; None: to the one that has a name for it.

        Raises: NoSuchMailbox, BadMailboxName, InUse, NoSpace, StoreUnavailable.
        """
        home = self._home
        with home.changing():
            if name is None:
                special_use.unset(home, attribute)
                return
            name = canonical(name)
            self._check(name)
            guid = sync_uidlist(home, name).guid
            had = special_use.read(home.root).get(guid, frozenset())
            set_special_use(home, guid, had | {attribute})

    def tidy(self) -> None:
        """Finish and remove what a dead process left: once after a start. Raises: InUse."""
        home = self._home
        if home.text_index is None:
            self._text_index.discard()
        with home.locked():
            home.layout.sweep()
            speaks_of = [left.payload.get("files", ()) for left in intent.read_all(home.root)]
            keep = frozenset(str(file[0]) for files in speaks_of for file in files)
            folders.complete(home.root)
            staged_file.sweep(home.temporary, keep)
            for state in home.read(lambda index: index.mailboxes.all()):
                home.update(lambda index, key=state.key: index.prune(key, HISTORY))  # type: ignore[misc]

    # --- small parts

    def _contents(self, state: MailboxState, uids: Sequence[UID]) -> Iterable[tuple[UID, bytes]]:
        return MaildirMailbox(self._home, state).all_contents(uids)

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


def is_account(root: str) -> bool:
    """Tell whether there is a Maildir already: ours or another program's."""
    return os.path.isdir(os.path.join(root, "cur")) or os.path.isdir(os.path.join(root, "new"))
