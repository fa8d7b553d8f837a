"""The directory of an account: its lock, its index, and room on its disk. All that operations of the store share.

Rules:

*   What changes anything runs inside `locked()`. Taking the lock finishes or undoes what a dead holder left.
*   While nobody else has held the lock, the rows of the index that this object wrote last are not read again.
*   Files first, index after. Once files have changed nothing fails for the index's sake: `update` drops an index that
    cannot be written, and the next use makes it anew from the files.
*   What is to be acknowledged as done runs inside `changing()`, which refuses while something of the account could not be
    made safe on the disk, be it by another process (`unsynced`).
*   Reading needs no lock, but for making an index that is absent or unusable.
*   On a full disk the ballast is given up first; where that is not enough the index is built in memory, and the one on
    disk is tried again some seconds later.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Final, TypeVar

from mailserver.errors import LimitReached, MailboxFull, NoSpace, StoreUnavailable
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
from mailserver.store.maildir.home.local_changes import ExpectedNames, Steps
from mailserver.store.maildir.home.lock_context import LockContext
from mailserver.store.maildir.home.recovery import recover
from mailserver.store.maildir.home.settings import Settings
from mailserver.store.maildir.home.text_search import TextSearch
from mailserver.types import MailboxId, ModSeq

T = TypeVar("T")

INDEX_NAME: Final = "mailserver-index.sqlite"
DISK_RETRY: Final = 5.0
"""Seconds between attempts to get from an index in memory back to the one on disk."""

_MOST_PATHS: Final = 256


class Home:
    """One account's directory, for one account object: used by one thread at a time."""

    def __init__(self, root: str, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.layout = Layout(root, settings.encoding)
        self.boot = boot_id()
        self.names: dict[MailboxId, str] = {}
        """Where mailboxes in use were last found."""
        self.counts: dict[MailboxId, tuple[ModSeq, tuple[int, int, int]]] = {}
        """Numbers of messages, unseen and deleted ones, as of a modseq."""
        self.expected_names = ExpectedNames()
        self.text_index: TextSearch | None = None
        """Set by the account, unless it is switched off."""
        self.something_due = False
        """An intent waits to be settled: the next look at a mailbox takes the lock for it."""
        self.unsettled: set[str] = set()
        """Ids of the intents that have been logged as not to be settled."""
        self.due: set[str] = set()
        """Ids of intents that are due though their names on the disk could not be made to say so."""
        self.steps = Steps()
        self.untidied: dict[int, int] = {}
        """Messages expunged since a mailbox's uidlist was last looked at for dead lines, by key."""
        self.most_unseen: int | None = None
        """Mailboxes with more new files than that are not to be read here; set by `bounded`."""
        self.dotlocks = Dotlocks(root)
        self.unsafe = unsynced.Unsafe()
        """What could not be made safe when the lock was taken last."""
        self._lock = lock.AccountLock(root)
        self._locked = LockContext(self, changing=False)
        self._changing = LockContext(self, changing=True)
        self._index: Index | None = None
        self._is_current = False
        """The index has been looked at since the lock was taken."""
        self._intents_left = True
        self._disk_again = 0.0
        self._damaged: tuple[int, int] | None = None
        self._depth = 0
        self._paths: dict[str, MailboxPaths] = {}

    @property
    def temporary(self) -> str:
        """Where messages are received, for all mailboxes."""
        return os.path.join(self.root, "tmp")

    def paths(self, name: str) -> MailboxPaths:
        """Where that mailbox is, whether there or not. Raises: BadMailboxName."""
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
        """As `locked`, for what is to be acknowledged. Raises StoreUnavailable too while something cannot be made safe."""
        return self._changing

    def take_lock(self) -> None:
        """For `locked`, which says what it raises."""
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
        self.steps.forget_long()
        try:
            if held.noted or self.unsafe or safeio.unsynced or safeio.leftovers:
                self.unsafe = unsynced.settle(self, held.notes())
            if self.dotlocks.some_left:
                self.dotlocks.remove_left()
            if not held.alone or self.something_due or self._intents_left:
                self._forget()
                self._intents_left = recover(self)
        except BaseException:
            self.give_lock(failed=True)
            raise

    def give_lock(self, *, failed: bool) -> None:
        """For `locked`."""
        self._depth -= 1
        if self._depth:
            return
        if failed:
            # What is remembered may speak of what was not done; and an intent may have been left.
            self._forget()
            self._intents_left = True
        if self._index is not None:
            self._index.mailboxes.alone = False
        if self._lock.noted or self.unsafe or safeio.unsynced or safeio.leftovers:
            unsynced.note(self, self.unsafe, self._lock)
        self._lock.__exit__(None, None, None)

    def expect_intents(self) -> None:
        """An intent stays when the lock is given back: whoever takes it next looks for it."""
        self._intents_left = True

    def dotlocked(self, directories: Iterable[str], *, must: bool = False) -> AbstractContextManager[None]:
        """Hold Dovecot's lock of these mailboxes too, inside `locked`. Those held already are not taken again.

        With `must` the ballast is given up for it. Raises: InUse, NoSpace, StoreUnavailable, FileNotFoundError.
        """
        return self.dotlocks.holding(directories, self.with_room if must else None)

    def holds_dotlock(self, directory: str) -> bool:
        """Whether Dovecot is kept out of that mailbox now."""
        return self.dotlocks.is_held(directory)

    def _forget(self) -> None:
        """Others may have changed what is remembered."""
        self.steps.forget()
        if self._index is not None:
            self._index.mailboxes.forget()

    # --- room

    def with_room(self, operation: Callable[[], T]) -> T:
        """Do it, on a full disk once more without the ballast. Raises: NoSpace if that is not enough."""
        try:
            return operation()
        except NoSpace:
            if not reserved_space.release(self.settings.reserved_space_root):
                raise
            return operation()

    # --- bounds

    def check_mailboxes(self, more: int) -> None:
        """Raises: LimitReached where so many more would be too many."""
        limit = self.settings.bounds.mailboxes
        if not self.layout.has_room(more, limit):
            raise LimitReached(f"an account can have {limit} mailboxes")

    def check_messages(self, state: MailboxState, more: int) -> None:
        """Raises: MailboxFull where so many more would be too many.

        Each message had a UID of its own, so only a mailbox that has given many need be counted.
        """
        limit = self.settings.bounds.messages
        if state.uid_next - 1 + more <= limit:
            return
        if self.read(lambda index: index.messages.counts(state.key))[0] + more > limit:
            raise MailboxFull(f"a mailbox can have {limit} messages")

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """What would read a mailbox with `Settings.many` files that nobody has seen raises ScanTooLarge meanwhile."""
        self.most_unseen = self.settings.many
        try:
            yield
        finally:
            self.most_unseen = None

    def scan_too_large(self, name: str) -> ScanTooLarge:
        """The exception that says who can read it: see `scan_process`."""
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
        }
        return ScanTooLarge(order)

    def forget(self, mailbox: MailboxId) -> None:
        """It is deleted."""
        self.names.pop(mailbox, None)
        self.counts.pop(mailbox, None)

    # --- index

    def index(self) -> Index:
        """The open index, made anew where it must be. Raises: InUse, StoreUnavailable."""
        known = self._index
        if known is not None:
            if self._depth and self._is_current:
                return known
            if known.in_memory:
                if time.monotonic() < self._disk_again:
                    # Who holds the lock has read it: the other one, come in between, would get what lacks the rest.
                    self._is_current = self._depth > 0
                    return known
            elif known.is_current():
                if self._depth:
                    self._is_current = known.mailboxes.alone = True
                return known
            else:
                known.close()
                self.steps.forget()
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
            self.steps.forget()
        self._index = opened
        return opened

    def read(self, operation: Callable[[Index], T]) -> T:
        """An answer from the index; once more from a new one if it turns out to be unusable."""
        try:
            return operation(self.index())
        except schema.Broken:
            self._drop(damaged=True)
        except schema.Unusable:
            self._drop(damaged=False)
        return operation(self.index())

    def index_is_damaged(self) -> None:
        """One of schema.Broken has been raised outside of `read` and `update`: its next use makes it anew."""
        self._drop(damaged=True)

    def update(self, operation: Callable[[Index], None], changes: int = 0) -> None:
        """Put into the index what has happened to the files, about that many messages, in one transaction."""
        for _ in range(2):
            index = self.index()
            try:
                index.commit(operation, changes)
            except schema.Broken:
                self._drop(damaged=True)
                return
            except schema.Busy:
                # Somebody renders many messages; the wait was bounded, and is not worth the ballast.
                continue
            except schema.Unusable:
                if not reserved_space.release(self.settings.reserved_space_root):
                    break
            else:
                return
        self._drop(damaged=False)

    @property
    def checkpoint_due(self) -> bool:
        """Is the index's WAL long? Never blocks: read on the reactor's thread."""
        index = self._index
        return index is not None and index.checkpoint_due

    def checkpoint(self) -> None:
        """Shorten it."""
        if self._index is not None:
            self._index.checkpoint()

    def close(self) -> None:
        """Give descriptors back; the next use opens them again."""
        self.dotlocks.close()
        self.steps.forget()
        if self.text_index is not None:
            self.text_index.close()
        if self._index is not None:
            self._index.close()
            self._index = None

    @property
    def _index_path(self) -> str:
        return os.path.join(self.root, INDEX_NAME)

    def _open(self) -> Index | None:
        """The index on disk, None if the machine does not let it be used."""
        for _ in range(2):
            try:
                opened = None if self._damaged else Index.open(self._index_path)
                if opened is None:
                    with self.locked():
                        opened = self._remake()
                if self._index is not None and self._index.in_memory:
                    # What happened meanwhile is not in it: every mailbox is read anew.
                    with opened.transaction():
                        opened.mailboxes.distrust()
                return opened
            except (*schema.Unusable, NoSpace, OSError):
                if not reserved_space.release(self.settings.reserved_space_root):
                    break
        return None

    def _remake(self) -> Index:
        if self._index is not None and not self._index.in_memory and self._index.is_current():
            # Taking the lock has made it.
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
        self.steps.forget()
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
            self._disk_again = time.monotonic() + DISK_RETRY
