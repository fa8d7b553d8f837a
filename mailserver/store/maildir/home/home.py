"""An account's directory: its lock, its index, and its share of disk space. All operations of the store share it.

Rules:

*   Changes are made inside `locked()`. Acquiring the lock finishes or undoes what a dead holder left.
*   While no other process has held the lock, the index rows that this object wrote last are not read again.
*   Files first, index after. Once files have changed, nothing fails because of the index: `update` drops an index that
    cannot be written, and the next use makes it anew from the files.
*   Changes that will be acknowledged are made inside `changing()`. It refuses while something of the account could not
    be made safe on the disk, by this process or another (`unsynced`).
*   Reading needs no lock, except to make an index that is absent or unusable.
*   On a full disk the reserved space is released first. If that is not enough, the index is built in memory, and the
    one on disk is tried again some seconds later.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Final, TypeVar

from mailserver.errors import LimitReached, MailboxFull, NoSpace, OverQuota, StoreUnavailable
from mailserver.store.index import schema
from mailserver.store.index.database import Index
from mailserver.store.index.records import MailboxState
from mailserver.store.interfaces import ScanTooLarge
from mailserver.store.maildir.disk import lock, reserved_space, safeio
from mailserver.store.maildir.disk.process_start import boot_id
from mailserver.store.maildir.format.dotlocks import Dotlocks
from mailserver.store.maildir.format.paths import MailboxPaths
from mailserver.store.maildir.home import unsynced
from mailserver.store.maildir.home.folders import Layout
from mailserver.store.maildir.home.local_changes import ExpectedNames, LocalChanges
from mailserver.store.maildir.home.lock_context import LockContext
from mailserver.store.maildir.home.quota_state import QuotaState
from mailserver.store.maildir.home.recovery import recover
from mailserver.store.maildir.home.settings import Settings
from mailserver.store.maildir.home.text_search import TextSearch
from mailserver.types import MailboxId, ModSeq

T = TypeVar("T")

INDEX_NAME: Final = "mailserver-index.sqlite"
DISK_RETRY: Final = 5.0
"""Seconds between attempts to return from an index in memory to the one on disk."""

_MOST_PATHS: Final = 256


class Home:
    """One account's directory, for one account object: used by one thread at a time."""

    def __init__(self, root: str, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.layout = Layout(root, settings.encoding)
        self.boot = boot_id()
        self.names: dict[MailboxId, str] = {}
        """The last known names of mailboxes in use."""
        self.counts: dict[MailboxId, tuple[ModSeq, tuple[int, int, int]]] = {}
        """Numbers of messages, unseen and deleted ones, as of a modseq."""
        self.expected_names = ExpectedNames()
        self.quota = QuotaState(root)
        self.text_index: TextSearch | None = None
        """Set by the account, unless it is switched off."""
        self.something_due = False
        """An intent is due: the next operation on a mailbox acquires the lock to settle it."""
        self.unsettled: set[str] = set()
        """Ids of intents that could not be settled, and were logged."""
        self.due: set[str] = set()
        """Ids of intents that are due, but whose files could not be renamed to say so."""
        self.ask_again = 0.0
        """When `Settings.decided` may be asked again after it failed, by time.monotonic()."""
        self.local_changes = LocalChanges()
        self.untidied: dict[int, int] = {}
        """Messages expunged since a mailbox's uidlist was last checked for dead lines, by key."""
        self.most_unseen: int | None = None
        """Mailboxes with more new files than this are not read here; set by `bounded`."""
        self.dotlocks = Dotlocks(root)
        self.unsafe = unsynced.Unsafe()
        """Paths that were not safe when the lock was acquired last."""
        self._lock = lock.AccountLock(root)
        self._locked = LockContext(self, changing=False)
        self._changing = LockContext(self, changing=True)
        self._index: Index | None = None
        self._is_current = False
        """The index has been checked since the lock was acquired."""
        self._intents_left = True
        self._disk_again = 0.0
        self._damaged: tuple[int, int] | None = None
        self._depth = 0
        self._paths: dict[str, MailboxPaths] = {}

    @property
    def intents_left(self) -> bool:
        """True if the account may have intents. Under the lock."""
        return self._intents_left

    @property
    def temporary(self) -> str:
        """The directory in which messages are received, for all mailboxes."""
        return os.path.join(self.root, "tmp")

    def paths(self, name: str) -> MailboxPaths:
        """Return a mailbox's paths, whether it exists or not. Raises: BadMailboxName."""
        known = self._paths.get(name)
        if known is None:
            if len(self._paths) >= _MOST_PATHS:
                self._paths.clear()
            known = self._paths[name] = MailboxPaths(self.layout.path(name))
        return known

    # --- locks

    def locked(self) -> AbstractContextManager[None]:
        """Hold the account's lock. Reentrant. Raises: InUse, NoSpace, StoreUnavailable."""
        return self._locked

    def changing(self) -> AbstractContextManager[None]:
        """Do `locked` for a change that will be acknowledged. Also raises StoreUnavailable while something is not safe."""
        return self._changing

    def acquire_lock(self) -> None:
        """Acquire the lock for `locked`, which lists the exceptions."""
        if self._depth:
            self._depth += 1
            return
        held = self._lock
        try:
            self.with_room(held.__enter__)
        except FileNotFoundError as error:
            raise StoreUnavailable("the account is gone") from error
        self._depth = 1
        self._is_current = False
        self.local_changes.forget_large()
        try:
            if held.noted or self.unsafe or safeio.unsynced or safeio.leftovers:
                self.unsafe = unsynced.settle(self, held.notes())
            if self.dotlocks.some_left:
                self.dotlocks.remove_left()
            if not held.alone or self.something_due or self._intents_left:
                self._forget()
                self._intents_left = recover(self)
        except BaseException:
            self.release_lock(failed=True)
            raise

    def release_lock(self, *, failed: bool) -> None:
        """Release the lock for `locked`."""
        self._depth -= 1
        if self._depth:
            return
        if failed:
            # Cached state may describe what was not done, and there may be an intent.
            self._forget()
            self._intents_left = True
        if self._index is not None:
            self._index.mailboxes.alone = False
        if self._lock.noted or self.unsafe or safeio.unsynced or safeio.leftovers:
            unsynced.note(self, self.unsafe, self._lock)
        self._lock.__exit__(None, None, None)

    def expect_intents(self) -> None:
        """Note that an intent stays when the lock is released: the next holder checks for it."""
        self._intents_left = True

    def dotlocked(self, directories: Iterable[str], *, must: bool = False) -> AbstractContextManager[None]:
        """Hold Dovecot's lock on these mailboxes too, inside `locked`. Those held already are not taken again.

        With `must` the reserved space may be released for it. Raises: InUse, NoSpace, StoreUnavailable,
        FileNotFoundError.
        """
        return self.dotlocks.holding(directories, self.with_room if must else None)

    def holds_dotlock(self, directory: str) -> bool:
        """Tell whether Dovecot is kept out of that mailbox now."""
        return self.dotlocks.is_held(directory)

    def _forget(self) -> None:
        """Drop cached state, as other processes may have changed it."""
        self.local_changes.forget()
        if self._index is not None:
            self._index.mailboxes.forget()

    # --- room

    def with_room(self, operation: Callable[[], T]) -> T:
        """Run an operation, on a full disk once more without the reserved space. Raises: NoSpace if that is not enough."""
        try:
            return operation()
        except NoSpace:
            if not reserved_space.release(self.settings.reserved_space_root):
                raise
            return operation()

    # --- bounds

    def check_mailboxes(self, more: int) -> None:
        """Raise LimitReached or OverQuota if so many more would be too many."""
        if not more:
            return
        limit = self.settings.bounds.mailboxes
        if not self.layout.has_room(more, limit):
            raise LimitReached(f"an account can have {limit} mailboxes")
        allowed = self.quota.limits.mailboxes
        if allowed is not None and not self.layout.has_room(more, allowed):
            raise OverQuota

    def check_messages(self, state: MailboxState, more: int) -> None:
        """Raise MailboxFull if so many more would be too many.

        Each message has had a UID of its own, so only a mailbox that has given many UIDs is counted.
        """
        limit = self.settings.bounds.messages
        if state.uid_next - 1 + more <= limit:
            return
        if self.read(lambda index: index.messages.counts(state.key))[0] + more > limit:
            raise MailboxFull(f"a mailbox can have {limit} messages")

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """Let a read of a mailbox with `Settings.many` new files raise ScanTooLarge meanwhile."""
        self.most_unseen = self.settings.many
        try:
            yield
        finally:
            self.most_unseen = None

    def scan_too_large(self, name: str) -> ScanTooLarge:
        """Make the exception with the order for `scan_process`."""
        settings = self.settings
        order: dict[str, str | int] = {
            "root": self.root,
            "mailbox": name,
            "hostname": settings.hostname,
            "reserved_space_root": settings.reserved_space_root,
            "utf8_names": settings.encoding.utf8,
            "escape": settings.encoding.escape,
            "slashes": settings.encoding.slashes,
            "mailboxes": settings.bounds.mailboxes,
            "messages": settings.bounds.messages,
            "expunges": settings.bounds.expunges,
        }
        return ScanTooLarge(order)

    def forget(self, mailbox: MailboxId) -> None:
        """Drop a deleted mailbox."""
        self.names.pop(mailbox, None)
        self.counts.pop(mailbox, None)

    # --- index

    def index(self) -> Index:
        """Return the open index, made anew if need be. Raises: InUse, StoreUnavailable."""
        known = self._index
        if known is not None:
            if self._depth and self._is_current:
                return known
            if known.in_memory:
                if time.monotonic() < self._disk_again:
                    # The holder of the lock has read it: a new one in between would lack the rest.
                    self._is_current = self._depth > 0
                    return known
            elif known.is_current():
                if self._depth:
                    self._is_current = known.mailboxes.alone = True
                    self._check_sums(known)
                return known
            else:
                known.close()
                self.local_changes.forget()
                self._index = known = None
        opened = self._open()
        if opened is None:
            if known is not None:
                self._disk_again = time.monotonic() + DISK_RETRY
                return known
            self._disk_again = time.monotonic() + DISK_RETRY
            opened = Index.make_in_memory(self._index_path)
        elif known is not None:
            known.close()
            self.local_changes.forget()
        opened.history = self.settings.bounds.expunges
        self._index = opened
        if self._depth:
            self._check_sums(opened)
        return opened

    def _check_sums(self, index: Index) -> None:
        """Remove the sums if another version has changed the account without them. Under the lock."""
        if self._lock.sums_hold or index.in_memory:
            return
        with contextlib.suppress(*schema.Unusable, *schema.Broken):
            index.forget_sums()
            self._lock.mark_sums()

    def read(self, operation: Callable[[Index], T]) -> T:
        """Read from the index; once more from a new one if it turns out to be unusable."""
        try:
            return operation(self.index())
        except schema.Broken:
            self._drop(damaged=True)
        except schema.Unusable:
            self._drop(damaged=False)
        return operation(self.index())

    def index_is_damaged(self) -> None:
        """Note that schema.Broken was raised outside of `read` and `update`: the next use makes the index anew."""
        self._drop(damaged=True)

    def update(self, operation: Callable[[Index], None], changes: int = 0) -> None:
        """Write changes of about that many messages to the index, in one transaction."""
        for _ in range(2):
            index = self.index()
            try:
                index.commit(operation, changes)
            except schema.Broken:
                self._drop(damaged=True)
                return
            except schema.Busy:
                # Another process renders many messages. The wait was bounded, and is not worth the reserved space.
                continue
            except schema.Unusable:
                if not reserved_space.release(self.settings.reserved_space_root):
                    break
            else:
                return
        self._drop(damaged=False)

    @property
    def checkpoint_due(self) -> bool:
        """True if the index's WAL is long. Never blocks; read on the reactor's thread."""
        index = self._index
        return index is not None and index.checkpoint_due

    def checkpoint(self) -> None:
        """Checkpoint the index."""
        if self._index is not None:
            self._index.checkpoint()

    def close(self) -> None:
        """Close files. The next use opens them again."""
        self.dotlocks.close()
        self.local_changes.forget()
        if self.text_index is not None:
            self.text_index.close()
        if self._index is not None:
            self._index.close()
            self._index = None

    @property
    def _index_path(self) -> str:
        return os.path.join(self.root, INDEX_NAME)

    def _open(self) -> Index | None:
        """Open the index on disk. None if the machine does not let it be used."""
        for _ in range(2):
            try:
                opened = None if self._damaged else Index.open(self._index_path)
                if opened is None:
                    with self.locked():
                        opened = self._remake()
                if self._index is not None and self._index.in_memory:
                    # It lacks the changes made meanwhile: every mailbox is read anew.
                    with opened.transaction():
                        opened.mailboxes.distrust()
                return opened
            except (*schema.Unusable, NoSpace, OSError):
                if not reserved_space.release(self.settings.reserved_space_root):
                    break
        return None

    def _remake(self) -> Index:
        if self._index is not None and not self._index.in_memory and self._index.is_current():
            # Acquiring the lock has made it.
            return self._index
        if self._damaged is not None:
            with contextlib.suppress(OSError):
                status = os.stat(self._index_path)
                # Another process may have made a new one already.
                if (status.st_dev, status.st_ino) == self._damaged:
                    schema.remove(self._index_path)
            self._damaged = None
        return Index.remake(self._index_path)

    def _drop(self, *, damaged: bool) -> None:
        index, self._index = self._index, None
        self._is_current = False
        self.local_changes.forget()
        if index is None:
            return
        if damaged:
            with contextlib.suppress(OSError):
                status = os.stat(self._index_path)
                if not index.in_memory and index.is_current():
                    self._damaged = (status.st_dev, status.st_ino)
            index.close()
        else:
            index.close()
            self._index = Index.make_in_memory(self._index_path)
            self._index.history = self.settings.bounds.expunges
            self._disk_again = time.monotonic() + DISK_RETRY
