"""A cache of the file names of messages, for reads on the reactor's thread, which cannot ask the index.

A name is kept with those of its neighbours, GROUP consecutive UIDs at a time: most clients go on there, and the index gives a
hundred names for little more than one. A name may be out of date, as a change of flags renames the file; then there is no
such file, and the index is asked. No other message ever has it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from typing import Final

GROUP: Final = 128
"""UIDs of a group."""
_EACH: Final = 41
"""Octets of a name beside its text."""
_OF_GROUP: Final = 500
"""Octets of a group beside its names."""

_Key = tuple[Hashable, int]
"""A mailbox of an account, and the number of a group."""


class FileNames:
    """The names of all mailboxes of a worker, bounded in octets. Any thread may read them; writers wait for each other."""

    def __init__(self, octets: int = 4 << 20) -> None:
        self.octets_kept = 0
        self._octets = octets
        self._groups: OrderedDict[_Key, list[bytes]] = OrderedDict()
        self._writing = threading.Lock()

    @staticmethod
    def name_of(place: int, name: bytes) -> bytes:
        """Return the name below the mailbox's directory of a file in new/ (0) or cur/ (1)."""
        return (b"cur/" if place else b"new/") + name

    def find(self, mailbox: Hashable, uid: int) -> bytes | None:
        """Return the name of a message's file as it was last, as `name_of` does; None or b"" if unknown."""
        group = self._groups.get((mailbox, uid // GROUP))
        return None if group is None else group[uid % GROUP]

    def lacks(self, mailbox: Hashable, uids: Sequence[int]) -> range | None:
        """Return the UIDs of all groups of these messages (rising) if a group of them is unknown, and they are few."""
        first, last = uids[0] // GROUP, uids[-1] // GROUP
        if last - first > 1 or all((mailbox, number) in self._groups for number in (first, last)):
            return None
        return range(first * GROUP, (last + 1) * GROUP)

    def keep(self, mailbox: Hashable, uids: range, names: Iterable[tuple[int, bytes]]) -> None:
        """Keep the names of these whole groups of UIDs, as `lacks` returned them."""
        first = uids.start // GROUP
        groups = [[b""] * GROUP for _ in range(first, uids.stop // GROUP)]
        for uid, name in names:
            groups[uid // GROUP - first][uid % GROUP] = name
        with self._writing:
            for number, group in enumerate(groups, first):
                self._forget((mailbox, number))
                self.octets_kept += _weight(group)
                self._groups[mailbox, number] = group
            self._trim()

    def change(self, mailbox: Hashable, names: Iterable[tuple[int, bytes]]) -> None:
        """Keep the names of these messages, as `name_of` returns them, whose groups are known."""
        with self._writing:
            for uid, name in names:
                group = self._groups.get((mailbox, uid // GROUP))
                if group is not None:
                    self.octets_kept += len(name) - len(group[uid % GROUP])
                    group[uid % GROUP] = name
            self._trim()

    def forget(self, mailbox: Hashable, uids: Iterable[int]) -> None:
        """Forget the groups of these messages, most of which have other names now."""
        with self._writing:
            for number in {uid // GROUP for uid in uids}:
                self._forget((mailbox, number))

    def _trim(self) -> None:
        while self.octets_kept > self._octets:
            self._forget(next(iter(self._groups)))

    def _forget(self, key: _Key) -> None:
        group = self._groups.pop(key, None)
        if group is not None:
            self.octets_kept -= _weight(group)


def _weight(group: Sequence[bytes]) -> int:
    return _OF_GROUP + sum(map(len, group)) + _EACH * len(group)
