"""One user's Maildir: quota, messages and maintenance; `mailbox_tree` has the mailboxes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from attrs import evolve

from mailserver.errors import (
    BadMailboxName,
    NoSuchMailbox,
)
from mailserver.store.annotations import AnnotationChange, Annotations
from mailserver.store.index.database import Index
from mailserver.store.index.records import MailboxState
from mailserver.store.interfaces import MaildropLock
from mailserver.store.maildir.account import annotation_change, relocation
from mailserver.store.maildir.account.mailbox_tree import MailboxTree
from mailserver.store.maildir.account.text_index import NOW, TextIndex
from mailserver.store.maildir.disk import lock, reserved_space
from mailserver.store.maildir.format import subscriptions
from mailserver.store.maildir.home import folders, intent, special_use
from mailserver.store.maildir.home.folders import INBOX, canonical
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.settings import Settings
from mailserver.store.maildir.home.special_use import set_special_use
from mailserver.store.maildir.mailbox import delivery, prepared, staged_file
from mailserver.store.maildir.mailbox.mailbox import MaildirMailbox
from mailserver.store.maildir.sync import usage
from mailserver.store.maildir.sync.reconcile import sync_uidlist
from mailserver.store.quota import QuotaWarning
from mailserver.store.receiving import Appended, Delivery, NewMessage, Prepared, StagedMessage
from mailserver.types import UID, MailboxId, Quota, UIDValidity, Usage

_log = logging.getLogger(__name__)


class MaildirAccount(MailboxTree):
    """Implements `store.interfaces.Account`."""

    def __init__(self, user: str, root: str, settings: Settings) -> None:
        self._user = user
        super().__init__(Home(root, settings))
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

    # --- quota

    @property
    def quota(self) -> Quota:
        """Limits that additions keep to."""
        return self._home.quota.limits

    @quota.setter
    def quota(self, limits: Quota) -> None:
        self._home.quota.limits = limits

    def usage(self, name: str = INBOX) -> Usage:
        """Return what counts for the quota, up to date for that mailbox. Raises: InUse, StoreUnavailable."""
        with contextlib.suppress(NoSuchMailbox, BadMailboxName):
            self.mailbox(name).refresh()
        names = [info.name for info in self._list.read().infos if info.selectable]
        home = self._home
        with home.locked():
            known = home.read(lambda index: index.mailboxes.count())
            if known != len(names):
                # Another program has made or removed mailboxes.
                usage.count(home)
            return usage.usage(home)._replace(mailboxes=len(names))

    def check_quota(self, messages: int, octets: int) -> None:
        """Raise OverQuota if so many more are certainly too many now."""
        home = self._home
        if home.quota.limits.limits_messages:
            with home.locked():
                usage.keep_to_quota(home, lambda: usage.Addition(home).check(octets, messages))

    def recount(self) -> tuple[Usage, Usage]:
        """Count the account anew. Return the usage before and after. Raises: InUse, StoreUnavailable."""
        with self._home.locked():
            before = self.usage()
            self._home.update(Index.forget_all_counts)
            usage.count(self._home)
            return before, self.usage()

    def take_quota_warning(self) -> QuotaWarning | None:
        """Return a warning that is due, once."""
        due, self._home.quota.due = self._home.quota.due, None
        return due

    # --- annotations

    def annotations(self, name: str | None) -> Annotations:
        """Return those of a mailbox, or of the account. Raises: NoSuchMailbox, BadMailboxName, StoreUnavailable."""
        return annotation_change.read(self._home, None if name is None else canonical(name))

    def annotations_stamp(self, name: str | None) -> object:
        """Return inode, size and mtime of the file. Raises: BadMailboxName, StoreUnavailable."""
        return annotation_change.stamp(self._home, None if name is None else canonical(name))

    def annotate(self, name: str | None, changes: Mapping[str, bytes | None], most: int) -> AnnotationChange | None:
        """Change them, all or none. Raises: NoSuchMailbox, BadMailboxName, TooManyAnnotations, InUse, NoSpace."""
        with self._home.changing():
            return annotation_change.change(self._home, None if name is None else canonical(name), changes, most)

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
        appended = usage.keep_to_quota(self._home, lambda: delivery.append(self._home, name, messages, seen_by))
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

    def prepare(self, name: str, messages: Sequence[NewMessage], token: str = "") -> Prepared:
        """Sync the messages with an intent record that has the token. Raises: as `append`."""
        name = canonical(name)
        self._check(name)
        return usage.keep_to_quota(self._home, lambda: prepared.prepare(self._home, name, messages, token))

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
                home.update(lambda index, key=state.key: index.prune(key, index.history))  # type: ignore[misc]

    # --- small parts

    def _contents(self, state: MailboxState, uids: Sequence[UID]) -> Iterable[tuple[UID, bytes]]:
        return MaildirMailbox(self._home, state).all_contents(uids)


def is_account(root: str) -> bool:
    """Tell whether there is a Maildir already: ours or another program's."""
    return os.path.isdir(os.path.join(root, "cur")) or os.path.isdir(os.path.join(root, "new"))
