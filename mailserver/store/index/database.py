"""The open index of one account."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import apsw

from mailserver.store.index import schema
from mailserver.store.index.field_texts import FieldTexts
from mailserver.store.index.header_texts import HeaderTexts
from mailserver.store.index.mailboxes import Mailboxes
from mailserver.store.index.messages import Messages
from mailserver.store.index.packed_columns import Arrays, PackedColumns
from mailserver.store.index.previews import Previews
from mailserver.store.index.sort_keys import SortKeyRows
from mailserver.store.index.summaries import Summaries
from mailserver.store.index.sums import Sum
from mailserver.store.interfaces import Bounds
from mailserver.types import ModSeq

_LOOK_EVERY: Final = 1000
"""Expunges of one mailbox between two checks."""

CHECKPOINT_DUE: Final = 512
"""Pages of 4 KiB in the WAL from which on an idle account makes a checkpoint."""
CHECKPOINT_AT_ONCE: Final = 8 * CHECKPOINT_DUE
"""Pages from which on a commit makes a checkpoint: the bound of a WAL that is never idle."""

BULK = 2000
"""Changes of more messages than this get a larger page cache for their duration."""


class Index:
    """The tables of one account, on disk or, where that is impossible, in memory."""

    def __init__(self, path: str, connection: apsw.Connection, inode: tuple[int, int] | None) -> None:
        self.path = path
        self.in_memory = inode is None
        self._inode = inode
        self._connection = connection
        self.history = Bounds().expunges
        """Expunges that are remembered for each mailbox, up to twice as many between two checks. Readers that are further
        behind compare with all UIDs."""
        self._unlooked: dict[int, int] = {}
        self._wal_pages = 0
        # Instead of SQLite's own checkpoints, which come in the middle of a request.
        connection.set_wal_hook(self._committed)
        self.messages = Messages(connection)
        self.sums = self.messages.sums
        self.mailboxes = Mailboxes(connection, self.sums)
        self.header_texts = HeaderTexts(connection)
        self.field_texts = FieldTexts(connection)
        self.previews = Previews(connection)
        self.packed_columns = PackedColumns(connection, self.messages)
        self.summaries = Summaries(connection)
        self.sort_keys = SortKeyRows(connection)

    @classmethod
    def open(cls, path: str) -> Index | None:
        """Open the index on disk. None if it is absent or unusable: then `remake` it.

        Raises: those of schema.Unusable, OSError.
        """
        try:
            return cls._open(path, create=False)
        except apsw.CantOpenError:
            if os.path.lexists(path):
                raise
            return None
        except (*schema.Broken, schema.NotOurs):
            return None

    @classmethod
    def remake(cls, path: str) -> Index:
        """Open the index on disk; make it anew if need be. Only for the holder of the account's lock.

        Raises: those of schema.Unusable, OSError.
        """
        known = cls.open(path)
        if known is not None:
            return known
        schema.remove(path)
        return cls._open(path, create=True)

    @classmethod
    def _open(cls, path: str, *, create: bool) -> Index:
        connection = schema.connect(path, create=create)
        status = os.stat(path)
        return cls(path, connection, (status.st_dev, status.st_ino))

    @classmethod
    def make_in_memory(cls, path: str) -> Index:
        """Make empty tables in memory, in place of the file at `path`."""
        return cls(path, schema.connect(schema.IN_MEMORY, create=True), None)

    def is_current(self) -> bool:
        """Tell whether other processes that open the path see the same tables."""
        if self._inode is None:
            return True
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._inode

    @contextlib.contextmanager
    def transaction(self, changes: int = 0) -> Iterator[None]:
        """Run the block in a transaction, with room for about that many changed messages."""
        self._begin(changes)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        finally:
            self._end(changes)

    def commit(self, operation: Callable[[Index], None], changes: int = 0) -> None:
        """Run a short operation in a `transaction`: cheaper, for frequent use."""
        self._begin(changes)
        try:
            operation(self)
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        finally:
            self._end(changes)

    def _begin(self, changes: int) -> None:
        if changes > BULK:
            self._connection.execute("PRAGMA cache_size = -32768")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._end(changes)
            raise

    def _roll_back(self) -> None:
        self.mailboxes.forget()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _end(self, changes: int) -> None:
        if changes > BULK:
            self._connection.execute("PRAGMA cache_size = -256; PRAGMA shrink_memory")

    def pack(self, key: int, modseq: ModSeq, columns: Arrays) -> None:
        """Store the columns of a mailbox for its next loader, if that needs no waiting."""
        if self.in_memory:
            return
        with self._optional(), self.transaction():
            self.packed_columns.put(key, modseq, columns)

    @contextlib.contextmanager
    def _optional(self) -> Iterator[None]:
        """Skip the block if it would wait for another writer, or fails."""
        self._connection.set_busy_timeout(0)
        try:
            # A fault of the file will raise in the next operation that needs it.
            with contextlib.suppress(*schema.Unusable, *schema.Broken):
                yield
        finally:
            self._connection.set_busy_timeout(schema.BUSY_TIMEOUT)

    def sum_of(self, key: int) -> Sum:
        """Return the sum of a mailbox; counted, and kept if that needs no waiting, where there is none."""
        known = self.sums.of(key)
        if known is not None:
            return known
        with self._optional(), self.transaction():
            if self.sums.of(key) is None and self.mailboxes.has_key(key):
                self.sums.put(key, self.messages.count_sizes(key))
        return self.sums.of(key) or self.messages.count_sizes(key)

    def count_account(self) -> None:
        """Make the sums of the account, and of mailboxes that have none, inside `transaction`."""
        for state in self.mailboxes.all():
            if self.sums.of(state.key) is None:
                self.sums.put(state.key, self.messages.count_sizes(state.key))
        self.sums.put_account()

    def forget_all_counts(self) -> None:
        """Have every mailbox read from disk and counted anew, inside `transaction`."""
        self.mailboxes.distrust()
        self.sums.forget_all()

    def forget_sums(self) -> None:
        """Have all sums counted anew."""
        with self.transaction():
            self.sums.forget_all()

    def expunge(self, key: int, uids: Sequence[int], modseq: ModSeq) -> None:
        """Remove messages and add them to the expunge history, inside `transaction`; the history stays bounded."""
        self.messages.expunge(key, uids, modseq)
        self._unlooked[key] = self._unlooked.get(key, _LOOK_EVERY) + len(uids)
        if self._unlooked[key] >= _LOOK_EVERY:
            self._unlooked[key] = 0
            if self.messages.has_history_of(key, 2 * self.history):
                self.prune(key, self.history)

    @property
    def checkpoint_due(self) -> bool:
        """True if the WAL is long. Never blocks; read on any thread."""
        return self._wal_pages >= CHECKPOINT_DUE

    def checkpoint(self) -> None:
        """Checkpoint the WAL, as far as no reader needs it; two syncs. What fails is done later."""
        self._wal_pages = 0
        with contextlib.suppress(*schema.Unusable, *schema.Broken):
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _committed(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._wal_pages = pages
        if pages >= CHECKPOINT_AT_ONCE:
            self.checkpoint()
        return apsw.SQLITE_OK

    def prune(self, key: int, keep: int) -> None:
        """Bound a mailbox's history of expunges, inside `transaction`."""
        floor = self.messages.prune(key, keep)
        if floor is not None:
            self.mailboxes.raise_floor(key, floor)

    def close(self) -> None:
        """Close the file."""
        self._connection.close(force=True)


def next_modseq(last: int) -> ModSeq:
    """Return a modseq above the last one and not below the clock, so that neither lost commits nor a lost index reuse
    one.
    """
    return ModSeq(max(last + 1, time.time_ns() // 1000))
