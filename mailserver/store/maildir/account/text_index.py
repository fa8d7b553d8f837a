"""The text index of an account: used by SEARCH, updated in the account's idle time.

Problems and rules:

*   It is useful, but never necessary. If it fails (full disk, damage, another process, a missing file), a search reads
    the messages instead, and mail is received. Nothing here takes the account's lock, except to see whether a mailbox
    is really gone.
*   A mailbox is indexed once text searches would have read WORTH messages of it, from its first message to its last: to
    index a message costs as much as to search it some eight times. Later messages are added, expunged ones are removed. A
    message that is not in the index's ranges yet is read.
*   `work` does one small transaction, and ends early when it is told to.
*   Several processes may do so. One that finds another at work comes again later, and checks inside its own transaction
    what is indexed.
*   A file that is damaged or of another version is removed under a lock of its own, by a process that still finds the
    same file.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import apsw
from attrs import define

from mailserver.errors import MailError
from mailserver.message.indexed_texts import indexed_texts
from mailserver.store.batch_size import STEP
from mailserver.store.index import schema
from mailserver.store.index.fulltext import FullText, query_of
from mailserver.store.index.records import MailboxState
from mailserver.store.maildir.sync.renamed_mailbox import find_renamed
from mailserver.store.search_source import Indexed, Where
from mailserver.types import UID, MailboxId, ModSeq, UIDValidity

if TYPE_CHECKING:
    from mailserver.store.maildir.home.home import Home

T = TypeVar("T")

FILE_NAME: Final = "mailserver-text.sqlite"
LOCK_NAME: Final = "mailserver-text.lock"
TRANSACTION: Final = 256 * 1024
"""Most characters of text in one transaction. A message with more is not indexed, and every search reads it."""
_ENOUGH: Final = 64 * 1024
"""Characters after which a transaction ends: some hundredths of a second."""
_MESSAGES: Final = 100
_REMOVED: Final = 300
"""Messages that one transaction adds or removes."""
_MOST_COUNTED: Final = 1000
"""Mailboxes whose searches are counted."""
_ROOM: Final = 64 * 1024 * 1024
"""Octets of the disk that are left to mail."""
WORTH: Final = 2000
"""Messages of a mailbox that text searches have had to read, from which on it is indexed: some tenths of a second of work.
A message counts once for each search.
"""
NOW: Final = 0.0
_OTHER_AT_WORK: Final = 5.0
_NO_ROOM: Final = 600.0

Read = Callable[[MailboxState, Sequence[UID]], Iterable[tuple[UID, bytes]]]

_log = logging.getLogger(__name__)


@define
class _Plan:
    """The remaining work for one mailbox."""

    upto: ModSeq
    """Modseq up to which the index is complete once it is done."""
    gone: Sequence[int]
    todo: Sequence[UID]


class TextIndex:
    """The text index of one account, used by one thread at a time.

    `read` returns messages of a mailbox as sent, in the given order, without those that are gone or unreadable.
    """

    def __init__(self, home: Home, read: Read) -> None:
        self._home = home
        self._read = read
        self._path = os.path.join(home.root, FILE_NAME)
        self._index: FullText | None = None
        self._wanted: set[tuple[MailboxId, UIDValidity]] = set()
        self._searched: dict[tuple[MailboxId, UIDValidity], int] = {}
        """Messages that text searches have had to read, of mailboxes that are not wanted."""
        self._plans: dict[int, _Plan] = {}
        self._unmerged = self._merge_next = False
        self._again = 0.0
        self._complained = False
        self.in_use = os.path.exists(self._path)
        """True if there may be work. Read by other threads too."""

    # --- asking

    def look_up(self, state: MailboxState, uids: Sequence[UID], needle: str, where: Where) -> Indexed | None:
        """Return the messages (rising, at least one) that may have the needle (folded); None if the index cannot tell."""
        if where is not Where.HEADER:
            self._count((state.guid, state.uid_validity), len(uids))
        query = query_of(needle)
        if query is None:
            return None
        span = (uids[0], uids[-1])
        found = self._try(lambda index: index.find(state.guid, state.uid_validity, span, query, where))
        # An index with higher UIDs than the mailbox was made before the mailbox was restored.
        if found is None or found[2] >= state.uid_next:
            return None
        ranges, hits, _highest = found
        outside: list[UID] = []
        at = 0
        for first, last in ranges:
            low, high = bisect_left(uids, first, at), bisect_right(uids, last, at)
            outside += uids[at:low]
            at = high
        outside += uids[at:]
        if len(hits) < len(uids) // 8:
            return Indexed([UID(uid) for uid in hits if uids[bisect_left(uids, uid)] == uid], outside)
        return Indexed(sorted(set(uids).intersection(hits)), outside)

    def _count(self, mailbox: tuple[MailboxId, UIDValidity], messages: int) -> None:
        """Count messages to be read. A mailbox is wanted from WORTH on."""
        if mailbox in self._wanted:
            return
        searched = self._searched.pop(mailbox, 0) + messages
        if searched < WORTH:
            if len(self._searched) >= _MOST_COUNTED:
                self._searched.clear()
            self._searched[mailbox] = searched
        else:
            self._wanted.add(mailbox)
            self.in_use = True

    # --- making

    def work(self, stop: Callable[[], bool]) -> float | None:
        """Do a little work, until `stop` returns True. Return the seconds to the next call; None: after the next use."""
        if time.monotonic() < self._again:
            return self._again - time.monotonic()
        pause = self._attempt(stop)
        if pause:
            self._again = time.monotonic() + pause
        return pause

    def _attempt(self, stop: Callable[[], bool]) -> float | None:
        try:
            room = os.statvfs(self._home.root)
            if room.f_bavail * room.f_frsize < _ROOM or self._home.index().in_memory:
                return _NO_ROOM
            index = self._open(create=bool(self._wanted))
            if index is None:
                self.in_use = bool(self._wanted)
                return _OTHER_AT_WORK if self._wanted else None
            return self._work(index, stop)
        except schema.Busy:
            return _OTHER_AT_WORK
        except MailError:
            # Another process changes the mailbox, or holds its lock.
            return _OTHER_AT_WORK
        except (*schema.Unusable, OSError) as error:
            self._fail(error)
            return _NO_ROOM
        except (apsw.Error, schema.NotOurs) as error:
            self._fail(error)
            self._remove()
            return NOW if self._wanted else None

    def _work(self, index: FullText, stop: Callable[[], bool]) -> float | None:
        if self._merge_next:
            return self._merge(index)
        rows = index.mailboxes()
        known = {row[1] for row in rows}
        for key, guid, uid_validity, modseq in rows:
            state = self._home.read(lambda main, guid=guid: main.mailboxes.by_guid(guid))  # type: ignore[misc]
            if state is None:
                with self._home.locked():
                    state = find_renamed(self._home, guid, uid_validity)
            if state is None or state.uid_validity != uid_validity or index.highest(key) >= state.uid_next:
                self._plans.pop(key, None)
                self._wanted.discard((guid, uid_validity))
                with index.writing():
                    index.remove_mailbox(key, _REMOVED)
                return NOW
            self._wanted.add((guid, uid_validity))
            if state.modseq != modseq:
                self._step(index, key, state, modseq, stop)
                return NOW
        missing = [wanted for wanted in self._wanted if wanted[0] not in known]
        if not missing:
            return self._merge(index) if self._unmerged else None
        with index.writing():
            for guid, uid_validity in missing:
                index.add_mailbox(guid, uid_validity)
        return NOW

    def _merge(self, index: FullText) -> float:
        with index.writing():
            self._unmerged = index.merge()
        self._merge_next = False
        return NOW

    def _step(self, index: FullText, key: int, state: MailboxState, modseq: ModSeq, stop: Callable[[], bool]) -> None:
        """Do one transaction for one mailbox."""
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._make_plan(index, key, state, modseq)
        if plan.gone or plan.todo:
            self._unmerged = self._merge_next = True
        gone, todo = plan.gone, plan.todo
        with index.writing():
            if gone:
                index.remove(key, gone[:_REMOVED])
                gone = gone[_REMOVED:]
            elif todo:
                todo = todo[self._take(index, key, state, todo[:_MESSAGES], stop) :]
            if not gone and not todo:
                index.set_modseq(key, plan.upto)
        # Once that is written.
        plan.gone, plan.todo = gone, todo
        if not gone and not todo:
            del self._plans[key]

    def _make_plan(self, index: FullText, key: int, state: MailboxState, modseq: ModSeq) -> _Plan:
        """Compare the index with the mailbox: messages to remove and to add."""
        ranges = index.ranges(key, 0, state.uid_next)
        if modseq and modseq >= state.floor:
            gone = self._home.read(lambda main: main.messages.expunged_since(state.key, modseq))
            rows = self._home.read(lambda main: main.messages.changed_since(state.key, modseq))
            changed: Sequence[UID] = [row.uid for row in rows]
            gone = _inside(gone, ranges)
        else:
            there = self._home.read(lambda main: main.messages.uids(state.key))
            changed = [UID(uid) for uid in there]
            gone = [
                UID(uid)
                for first, last in ranges
                for uid in sorted(
                    set(range(first, last + 1)).difference(there[bisect_left(there, first) : bisect_right(there, last)])
                )
            ]
        return _Plan(state.modseq, gone, _outside(changed, ranges))

    def _take(
        self, index: FullText, key: int, state: MailboxState, batch: Sequence[UID], stop: Callable[[], bool]
    ) -> int:
        """Index the first of these messages. Return how many are done. Unreadable or too long ones are skipped."""
        # Another process may have done some since the plan was made.
        todo = _outside(batch, index.ranges(key, batch[0], batch[-1]))
        kept = {uid: text for uid, text, _sent in self._home.read(lambda main: main.header_texts.get(state.key, todo))}
        done: list[UID] = []
        taken = 0
        end = time.monotonic() + STEP
        dealt_with = len(batch)
        for uid, data in self._read(state, todo):
            texts = indexed_texts(data, kept.get(uid), TRANSACTION)
            if texts is not None:
                size = sum(map(len, texts))
                if taken + size > TRANSACTION:
                    dealt_with = batch.index(uid)
                    break
                index.put(key, uid, *texts)
                done.append(uid)
                taken += size
            if taken >= _ENOUGH or stop() or time.monotonic() >= end:
                dealt_with = batch.index(uid) + 1
                break
        index.cover(key, done)
        return dealt_with

    # --- the file

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        self._plans.clear()
        if self._index is not None:
            self._index.close()
            self._index = None

    def discard(self) -> None:
        """Remove the file: the index is switched off."""
        self._wanted.clear()
        self.in_use = False
        if os.path.exists(self._path):
            with contextlib.suppress(OSError), self._alone() as alone:
                if alone:
                    schema.remove(self._path)

    def _try(self, question: Callable[[FullText], T]) -> T | None:
        """Query the index. None if it is missing or fails."""
        try:
            index = self._open(create=False)
            return None if index is None else question(index)
        except (*schema.Unusable, OSError) as error:
            self._fail(error)
        except (apsw.Error, schema.NotOurs) as error:
            self._fail(error)
            self._remove()
        return None

    def _open(self, *, create: bool) -> FullText | None:
        if self._index is not None:
            if self._index.is_current():
                return self._index
            self.close()
        if create and not os.path.exists(self._path):
            with self._alone() as alone:
                if not alone:
                    return None
                self._index = FullText.open(self._path, create=True)
        elif os.path.exists(self._path):
            self._index = FullText.open(self._path)
        if self._index is not None:
            self._complained = False
        return self._index

    def _fail(self, error: Exception) -> None:
        """Log a failure once. Searches go on without the index."""
        if not self._complained:
            self._complained = True
            _log.warning("the text index %s is unusable; searches read the messages instead: %r", self._path, error)

    def _remove(self) -> None:
        """Remove an unusable file, unless another process has replaced it."""
        inode = None if self._index is None else self._index.inode
        self.close()
        # If even the lock is unavailable the file stays, and searches go on without it.
        with contextlib.suppress(OSError), self._alone() as alone:
            if not alone:
                return
            status = os.stat(self._path)
            if inode in (None, (status.st_dev, status.st_ino)) and (inode or not self._is_usable()):
                schema.remove(self._path)

    def _is_usable(self) -> bool:
        try:
            FullText.open(self._path).close()
        except schema.Unusable:
            return True
        except (apsw.Error, schema.NotOurs):
            return False
        return True

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Hold the lock for making and removing the file. False if another process holds it."""
        fd = os.open(os.path.join(self._home.root, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
                fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)


def _inside(uids: Sequence[UID], ranges: Sequence[tuple[int, int]]) -> list[UID]:
    """Return the UIDs (rising) in one of the ranges."""
    found: list[UID] = []
    for first, last in ranges:
        found += uids[bisect_left(uids, first) : bisect_right(uids, last)]
    return found


def _outside(uids: Sequence[UID], ranges: Sequence[tuple[int, int]]) -> list[UID]:
    """Return the UIDs (rising) in none of the ranges."""
    found: list[UID] = []
    at = 0
    for first, last in ranges:
        found += uids[at : bisect_left(uids, first, at)]
        at = bisect_right(uids, last, at)
    found += uids[at:]
    return found
