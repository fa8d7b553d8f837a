"""The directory of an account: its lock, its index, and room on its disk. All that operations of the store share.

Rules:

*   What changes anything runs inside `locked()`. Taking the lock finishes or undoes what a dead holder left.
*   Files first, index after. Once files have changed nothing fails for the index's sake: `update` drops an index that
    cannot be written, and the next use makes it anew from the files.
*   Reading needs no lock, but for making an index that is absent or unusable.
*   On a full disk the ballast is given up first; where that is not enough the index is built in memory, and the one on
    disk is tried again some seconds later.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from attrs import frozen

from mailserver.errors import LimitReached, MailboxFull, NoSpace, StoreUnavailable
from mailserver.message.summary import Summary
from mailserver.store.index import schema
from mailserver.store.index.database import Index
from mailserver.store.index.records import MailboxState
from mailserver.store.interfaces import Bounds
from mailserver.store.maildir import ballast, keywords, lock, safeio, uidlist
from mailserver.store.maildir.folders import Layout
from mailserver.store.maildir.recovery import recover
from mailserver.types import MailboxId, ModSeq

T = TypeVar("T")

INDEX_NAME: Final = "mailserver-index.sqlite"
DISK_RETRY: Final = 5.0
"""Seconds between attempts to get from an index in memory back to the one on disk."""

MOST_OWN_NAMES: Final = 4096


@frozen
class Settings:
    """What all accounts have in common."""

    summarise: Callable[[bytes], Summary]
    hostname: str
    ballast_root: str
    """Where the ballast lies: a directory on the file system of the mail."""
    utf8_names: bool = False
    bounds: Bounds = Bounds()


@frozen
class MailboxPaths:
    """Directories and files of one mailbox."""

    directory: str

    @property
    def new(self) -> str:
        """Delivered, not yet seen by any session."""
        return os.path.join(self.directory, "new")

    @property
    def cur(self) -> str:
        """Seen, or with flags."""
        return os.path.join(self.directory, "cur")

    @property
    def uidlist(self) -> str:
        """UIDs."""
        return os.path.join(self.directory, uidlist.FILE_NAME)

    @property
    def keywords(self) -> str:
        """Keyword letters."""
        return os.path.join(self.directory, keywords.FILE_NAME)

    def place(self, place: int) -> str:
        """new/ for 0, cur/ for 1."""
        return self.cur if place else self.new


class OwnNames:
    """File names that we have just made or removed, and a watcher has not told of yet.

    Added to in the account's thread, taken off on the reactor's: each step is one call into C. A name too many hides a
    foreign change until the mailbox is next compared whole, seconds later; one too few costs a look.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()

    def expect(self, names: Iterable[str]) -> None:
        """Before the change."""
        if len(self._names) > MOST_OWN_NAMES:
            # Nobody watches.
            self._names = set()
        self._names.update(names)

    def others(self, names: Iterable[str]) -> list[str]:
        """Those that were not expected."""
        own = self._names
        found = []
        for name in names:
            if name in own:
                own.discard(name)
            else:
                found.append(name)
        return found


class Home:
    """One account's directory, for one account object: used by one thread at a time."""

    def __init__(self, root: str, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.layout = Layout(root, utf8=settings.utf8_names)
        self.boot = boot_id()
        self.names: dict[MailboxId, str] = {}
        """Where mailboxes in use were last found."""
        self.counts: dict[MailboxId, tuple[ModSeq, tuple[int, int, int]]] = {}
        """Numbers of messages, unseen and deleted ones, as of a modseq."""
        self.own_names = OwnNames()
        self.something_due = False
        """An intent waits to be settled: the next look at a mailbox takes the lock for it."""
        self.unsettled: set[str] = set()
        """Ids of the intents that have been logged as not to be settled."""
        self._index: Index | None = None
        self._disk_again = 0.0
        self._damaged: tuple[int, int] | None = None
        self._depth = 0
        self._dotlocked: set[str] = set()

    @property
    def temporary(self) -> str:
        """Where messages are received, for all mailboxes."""
        return os.path.join(self.root, "tmp")

    def paths(self, name: str) -> MailboxPaths:
        """Where that mailbox is, whether there or not. Raises: BadMailboxName."""
        return MailboxPaths(self.layout.path(name))

    # --- locks

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the account's lock. Reentrant. Raises: InUse, NoSpace, StoreUnavailable."""
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        try:
            held = self.with_room(lock.AccountLock(self.root).__enter__)
        except FileNotFoundError as error:
            raise StoreUnavailable("the account is gone") from error
        with contextlib.ExitStack() as stack:
            stack.push(held)
            self._depth = 1
            try:
                recover(self)
                yield
            finally:
                self._depth = 0

    @contextlib.contextmanager
    def dotlocked(self, directories: Iterable[str], *, must: bool = False) -> Iterator[None]:
        """Hold Dovecot's lock of these mailboxes too, inside `locked`. Those held already are not taken again.

        With `must` the ballast is given up for it. Raises: InUse, NoSpace, StoreUnavailable, FileNotFoundError.
        """
        wanted = set(directories) - self._dotlocked
        with contextlib.ExitStack() as stack:
            if must:
                self.with_room(lambda: stack.enter_context(lock.dotlocks(wanted)))
            else:
                stack.enter_context(lock.dotlocks(wanted))
            self._dotlocked |= wanted
            try:
                yield
            finally:
                self._dotlocked -= wanted

    def holds_dotlock(self, directory: str) -> bool:
        """Whether Dovecot is kept out of that mailbox now."""
        return directory in self._dotlocked

    # --- room

    def with_room(self, operation: Callable[[], T]) -> T:
        """Do it, on a full disk once more without the ballast. Raises: NoSpace if that is not enough."""
        try:
            return operation()
        except NoSpace:
            if not ballast.release(self.settings.ballast_root):
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

    def forget(self, mailbox: MailboxId) -> None:
        """It is deleted."""
        self.names.pop(mailbox, None)
        self.counts.pop(mailbox, None)

    # --- index

    def index(self) -> Index:
        """The open index, made anew where it must be. Raises: InUse, StoreUnavailable."""
        known = self._index
        if known is not None:
            if known.in_memory:
                if time.monotonic() < self._disk_again:
                    return known
            elif known.is_current():
                return known
            else:
                known.close()
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

    def update(self, operation: Callable[[Index], None], changes: int = 0) -> None:
        """Put into the index what has happened to the files, about that many messages, in one transaction."""
        for _ in range(2):
            index = self.index()
            try:
                with index.transaction(changes):
                    operation(index)
            except schema.Broken:
                self._drop(damaged=True)
                return
            except schema.Busy:
                # Somebody renders many messages; the wait was bounded, and is not worth the ballast.
                continue
            except schema.Unusable:
                if not ballast.release(self.settings.ballast_root):
                    break
            else:
                return
        self._drop(damaged=False)

    def close(self) -> None:
        """Give descriptors back; the next use opens them again."""
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
                if not ballast.release(self.settings.ballast_root):
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


def boot_id() -> str:
    """What tells one start of the machine from another; "" where it is not told."""
    with contextlib.suppress(FileNotFoundError, StoreUnavailable):
        fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 64).decode("ascii").strip()
        finally:
            os.close(fd)
    return ""


def sync_directories(directories: Iterable[str]) -> None:
    """Make the names in them safe, in the order given, each once."""
    for directory in dict.fromkeys(directories):
        safeio.sync_directory(directory)
