"""What an account object remembers of its own changes: names that a watcher will tell of, and what became of mailboxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from mailserver.store.rows import Row
from mailserver.types import UID, ModSeq

MOST_OWN_NAMES: Final = 4096
LONG: Final = 1000
"""Messages of a change that is remembered for the next reader only: rows take room."""


class ExpectedNames:
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


class Step(NamedTuple):
    """What happened to a mailbox between two modseqs, whole."""

    since: ModSeq
    upto: ModSeq
    rows: Sequence[Row]
    """By rising UID."""
    expunged: Sequence[UID]


class Steps:
    """The last change of ours to each mailbox, by key; of LONG ones no longer than until it is read, or the next change."""

    def __init__(self) -> None:
        self._steps: dict[int, Step] = {}
        self._long: set[int] = set()

    def __len__(self) -> int:
        return len(self._steps)

    def keep(self, key: int, step: Step) -> None:
        """After the change."""
        self._long.discard(key)
        self._steps[key] = step
        if len(step.rows) + len(step.expunged) > LONG:
            self._long.add(key)

    def take(self, key: int, since: ModSeq, upto: ModSeq) -> Step | None:
        """What happened between the two, if that is what is remembered."""
        step = self._steps.get(key)
        if step is None or (step.since, step.upto) != (since, upto):
            return None
        if key in self._long:
            self._long.remove(key)
            del self._steps[key]
        return step

    def forget_long(self) -> None:
        """Nobody needs them any more."""
        while self._long:
            self._steps.pop(self._long.pop(), None)

    def forget(self) -> None:
        """Others may have changed the mailboxes."""
        self._steps.clear()
        self._long.clear()
