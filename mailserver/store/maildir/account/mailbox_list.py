"""The list of an account's mailboxes, read again only as far as something of it has changed.

Why a few stats prove that a list still holds, whoever changes the account:

*   A mailbox that is made, removed or renamed changes a name in the root, and so the root's mtime. It counts if it was
    older than `scan.RACY_NS` when it was read (`settled`), as a later change cannot have the same one then.
*   The files of subscriptions and of given special uses are compared by inode, size and mtime, which must be as old.
*   A special use was given to a GUID. The GUIDs of these mailboxes, mostly five, are compared by their uidlists.
*   A directory without cur/ becomes a mailbox by a change in itself, not in the root: these are examined each time. There
    are none in most accounts.
*   A cur/ that vanishes alone, from a directory that stays, is the exception. It is found with the next change of the
    root, or when a client tries to open the mailbox (`distrust`).

If something has changed, or may have, the root is read, and each directory in it is examined. Names that were there before
are not decoded again, and the list is computed only if its parts differ. Deliveries to INBOX change the root, too, by
Dovecot's lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Final

from mailserver.errors import StoreUnavailable
from mailserver.store.interfaces import MailboxInfo
from mailserver.store.maildir.format import subscriptions, uidlist
from mailserver.store.maildir.format.uidlist import Signature
from mailserver.store.maildir.home import folders, special_use
from mailserver.store.maildir.home.folders import INBOX
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.sync import scan
from mailserver.types import MailboxId

_MOST_INCOMPLETE: Final = 8
"""Directories without cur/ that are examined before a list is used again."""
_MOST_FILES: Final = 24
"""Files that are compared before a list is used again."""

_Stamps = tuple[tuple[str, Signature | None], ...]


class MaildirList:
    """Implements `store.interfaces.MailboxList`. Made in the account's thread, used on any."""

    __slots__ = ("__weakref__", "_incomplete", "_settled", "_stamps", "infos", "subscribed")

    def __init__(self, infos: Sequence[MailboxInfo], subscribed: frozenset[str]) -> None:
        self.infos = infos
        self.subscribed = subscribed
        self._stamps: _Stamps = ()
        self._incomplete: Sequence[str] = ()
        self._settled = False

    def renew(self, stamps: _Stamps, incomplete: Sequence[str], *, settled: bool) -> None:
        """Note that it held when the root and the files of `stamps` were so.

        `incomplete`: directories that have no cur/. `settled`: equal stamps prove that it still holds.
        """
        self._settled = False
        self._stamps, self._incomplete = stamps, incomplete
        self._settled = settled and len(incomplete) <= _MOST_INCOMPLETE and len(stamps) <= _MOST_FILES

    def distrust(self) -> None:
        """Note that it may not hold, whatever the stats say."""
        self._settled = False

    def is_current(self) -> bool:
        """Tell whether it certainly still holds. A few stats."""
        if not self._settled:
            return False
        try:
            return all(uidlist.signature(path) == stamp for path, stamp in self._stamps) and not any(
                map(folders.is_mailbox, self._incomplete)
            )
        except StoreUnavailable:
            return False


class MailboxListReader:
    """Reads the list of one account, in its thread."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._last: MaildirList | None = None
        self._made_of: tuple[object, ...] = ()
        """What the last list was computed of."""
        self._directories: Mapping[str, str] = {}
        self._guids: dict[str, tuple[Signature | None, MailboxId | None]] = {}
        """GUIDs of the mailboxes that were given a special use, with the state of their uidlists."""

    def distrust(self) -> None:
        """Read the list again the next time: it may have a mailbox that cannot be opened."""
        if self._last is not None:
            self._last.distrust()

    def forget(self) -> None:
        """Drop all that is kept."""
        self._last, self._made_of, self._directories, self._guids = None, (), {}, {}

    def read(self) -> MaildirList:
        """Return the list. Raises: InUse, StoreUnavailable."""
        last = self._last
        if last is not None and last.is_current():
            return last
        home = self._home
        root = home.root
        now = time.time_ns()
        # The stamps before what they are of: a change between the two shows the next time.
        stamps = [
            (path, uidlist.signature(path))
            for path in (root, os.path.join(root, special_use.FILE_NAME), os.path.join(root, subscriptions.FILE_NAME))
        ]
        settled = not any(stamp is not None and scan.is_racy(stamp.mtime_ns, now) for _path, stamp in stamps)
        directories, incomplete = home.layout.directories(self._directories)
        names = home.layout.sorted_names(directories)
        given = self._read_given(frozenset(names))
        subscribed = subscriptions.read(root, home.settings.encoding)
        made_of = names, given, subscribed
        if last is None or made_of != self._made_of:
            last = self._last = MaildirList(self._infos(*made_of), subscribed)
        self._guids = {name: self._guids[name] for name in given.guids}
        stamps += [(home.paths(name).uidlist, self._guids[name][0]) for name in given.guids]
        # A mailbox that is missing may come back, and show by its GUID alone.
        paths = [os.path.join(root, directory) for directory in incomplete]
        last.renew(tuple(stamps), paths, settled=settled and not given.missing)
        self._made_of, self._directories = made_of, directories
        return last

    def holders(self) -> Mapping[str, special_use.Holder]:
        """Return the mailbox of each special use. Raises: InUse, StoreUnavailable."""
        there = frozenset(self._home.layout.mailboxes())
        return special_use.assign(there, self._read_given(there).attributes, self._home.settings.special_use)

    def _infos(
        self, names: Sequence[str], given: special_use.Given, subscribed: frozenset[str]
    ) -> Sequence[MailboxInfo]:
        there = frozenset(names)
        uses: dict[str, set[str]] = {}
        for attribute, holder in special_use.assign(there, given.attributes, self._home.settings.special_use).items():
            uses.setdefault(holder.name, set()).add(attribute)
        every = set(there)
        for name in there:
            every.update(folders.parents(name))
        return tuple(
            MailboxInfo(name, name in there, frozenset(uses.get(name, ())), name in subscribed)
            for name in sorted(every, key=lambda name: (name != INBOX, name))
        )

    def _read_given(self, there: frozenset[str]) -> special_use.Given:
        return special_use.given(self._home, there, special_use.read(self._home.root), self._guid_of)

    def _guid_of(self, name: str) -> MailboxId | None:
        """Return the GUID of a uidlist, which is read again only if it has changed."""
        stamp = uidlist.signature(self._home.paths(name).uidlist)
        known = self._guids.get(name)
        if known is None or known[0] != stamp:
            known = self._guids[name] = stamp, special_use.guid_of(self._home, name)
        return known[1]
