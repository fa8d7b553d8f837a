"""The account object's own recent changes: file names that a watcher will report, and the last change of each mailbox."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from mailserver.store.rows import Row
from mailserver.types import UID, ModSeq

MAX_EXPECTED_NAMES: Final = 4096
LARGE: Final = 1000
"""Messages of a change from which on it is kept for one reader only: rows take memory."""


class ExpectedNames:
    """File names that this object has made or removed, and that no watcher has reported yet.

    Added in the account's thread, removed on the reactor's: each step is one call into C. A name too many hides another
    program's change until the mailbox is next compared whole, seconds later. A name too few costs an extra check.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()

    def expect(self, names: Iterable[str]) -> None:
        """Add names before the change."""
        if len(self._names) > MAX_EXPECTED_NAMES:
            # There is no watcher.
            self._names = set()
        self._names.update(names)

    def others(self, names: Iterable[str]) -> list[str]:
        """Return the names that were not expected."""
        own = self._names
        found = []
        for name in names:
            if name in own:
                own.discard(name)
            else:
                found.append(name)
        return found


class LocalChange(NamedTuple):
    """A complete change of a mailbox between two modseqs."""

    since: ModSeq
    upto: ModSeq
    rows: Sequence[Row]
    """By rising UID."""
    expunged: Sequence[UID]


class LocalChanges:
    """The last own change of each mailbox, by key. LARGE ones are kept until they are read, or until the next change."""

    def __init__(self) -> None:
        self._steps: dict[int, LocalChange] = {}
        self._large: set[int] = set()

    def __len__(self) -> int:
        return len(self._steps)

    def keep(self, key: int, step: LocalChange) -> None:
        """Keep a change after it was made."""
        self._large.discard(key)
        self._steps[key] = step
        if len(step.rows) + len(step.expunged) > LARGE:
            self._large.add(key)

    def take(self, key: int, since: ModSeq, upto: ModSeq) -> LocalChange | None:
        """Return the change between these two modseqs, if it is kept."""
        step = self._steps.get(key)
        if step is None or (step.since, step.upto) != (since, upto):
            return None
        if key in self._large:
            self._large.remove(key)
            del self._steps[key]
        return step

    def forget_large(self) -> None:
        """Drop LARGE changes, which nobody needs any more."""
        while self._large:
            self._steps.pop(self._large.pop(), None)

    def forget(self) -> None:
        """Drop all, as other processes may have changed the mailboxes."""
        self._steps.clear()
        self._large.clear()
