"""The annotations that sessions follow (RFC 5465 5.6, 5.7): the entries that have changed since they were last read.

A hash of each value is kept, and a stamp of the annotations of each mailbox: where it is the same, nothing is read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from mailserver.errors import MailError
from mailserver.store.interfaces import Account
from mailserver.store.time_slice import TimeSlice

OF_ACCOUNT: Final = ""
"""Stands for the name of a mailbox: the annotations of the account itself."""
MOST_ENTRIES: Final = 20_000
"""Entries of all followed mailboxes of an account."""
_SLICE_OCTETS: Final = 262144
"""Octets of annotations that are read in one turn of the account's thread."""

Read = Sequence["_Known | None"]


class TooManyFollowed(MailError):
    """More entries than are remembered (RFC 5465 3.1, 5.8)."""

    imap_code = "NOTIFICATIONOVERFLOW"
    text = "the mailboxes have too many annotations to follow"


class _Known(NamedTuple):
    stamp: object
    """`Account.annotations_stamp`."""
    hashes: Mapping[str, int]


_NONE: Final = _Known(None, {})


class FollowedAnnotations:
    """What is known of the annotations of an account and its mailboxes."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._entries = 0

    def __contains__(self, name: str) -> bool:
        """Tell whether the annotations of that mailbox are known."""
        return name in self._known

    @property
    def names(self) -> Collection[str]:
        """The names of the mailboxes whose annotations are known."""
        return self._known.keys()

    def add_new(self, name: str) -> None:
        """Note a mailbox that has just been made: whatever annotations it has are changes."""
        self._known.setdefault(name, _NONE)

    def rename(self, renamed: Mapping[str, str]) -> None:
        """Move what is known to the new name of each mailbox, which is given by the old one."""
        moved = {new: self._known.pop(old) for old, new in renamed.items() if old in self._known}
        self.forget(moved)
        self._known.update(moved)

    def forget(self, names: Iterable[str]) -> None:
        """Note that these mailboxes are gone."""
        for name in names:
            known = self._known.pop(name, None)
            if known is not None:
                self._entries -= len(known.hashes)

    async def read(
        self, account: Account, names: Sequence[str], run: Callable[[Callable[[], Read]], Awaitable[Read]]
    ) -> Sequence[tuple[str, Sequence[str]]]:
        """Read those of these mailboxes; return the entries that have changed, of mailboxes that were known before.

        `run` runs a function in the account's thread. Annotations that cannot be read now are left for the next time.
        Raises: TooManyFollowed; then nothing is known any more.
        """
        changed: list[tuple[str, Sequence[str]]] = []
        while names:
            found = await run(partial(self._read_some, account, names))
            for name, known in zip(names, found, strict=False):
                before = self._known.get(name)
                if known is None or known is before:
                    continue
                self.forget((name,))
                self._known[name] = known
                self._entries += len(known.hashes)
                if before is not None and (entries := _difference(before.hashes, known.hashes)):
                    changed.append((name, entries))
            if self._entries > MOST_ENTRIES:
                self._known.clear()
                self._entries = 0
                raise TooManyFollowed
            names = names[len(found) :]
        return changed

    def _read_some(self, account: Account, names: Sequence[str]) -> Read:
        """Read the first of these, as many as one turn of the account's thread has time for."""
        time_slice = TimeSlice(_SLICE_OCTETS)
        found: list[_Known | None] = []
        for each in names:
            octets, known = 0, self._known.get(each)
            name = each or None
            try:
                stamp = account.annotations_stamp(name)
                if known is None or stamp != known.stamp:
                    values = {} if stamp is None else account.annotations(name)
                    octets = sum(map(len, values.values()))
                    known = _Known(stamp, {entry: hash(value) for entry, value in values.items()}) if values else _NONE
            except MailError:
                known = None  # it is gone, or is read the next time
            found.append(known)
            if time_slice.take(1 + octets):
                break
        return found


def _difference(before: Mapping[str, int], now: Mapping[str, int]) -> Sequence[str]:
    return sorted(entry for entry in before.keys() | now.keys() if before.get(entry) != now.get(entry))
