"""The bookkeeping for our own changes of a mailbox: the mtimes of new/ and cur/ in the index, and the keywords.

The recorded mtimes tell up to when the directories have been read. A change of ours moves them. If they were equal to
the recorded ones before it, then only our change moved them, and the new ones are recorded as our own. If not, another
program changed the directory first, and the old ones stay, so that the next refresh reads it.

The directory is not read right after our change: that would cost far more than the change and, within the same tick,
prove nothing. It is read once, when the mtime is old enough.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence

from mailserver.errors import LimitReached
from mailserver.store.further_flags import IN_NAME
from mailserver.store.index.records import OWN, MailboxState
from mailserver.store.maildir.format import keywords
from mailserver.store.maildir.format.filename import info_mask
from mailserver.store.maildir.format.paths import MailboxPaths
from mailserver.store.maildir.home import folders
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.sync import scan


class DirectoryUpdate:
    """A change of directories: made before it, `record`ed after it."""

    def __init__(self, home: Home, paths: MailboxPaths, state: MailboxState, places: Sequence[int] = (0, 1)) -> None:
        """`places`: the directories that will change, 0 for new/, 1 for cur/.

        Raises: NoSuchMailbox when its directory is gone, NoSpace, StoreUnavailable.
        """
        self.places = places
        self._names = home.expected_names
        self._paths = paths
        self._state = state
        self._level: list[int] = []
        """The places whose mtimes were equal to the recorded ones."""
        try:
            self._look()
        except FileNotFoundError:
            # Somebody removed an empty new/ or cur/ below the running server.
            try:
                folders.complete(paths.directory)
                self._look()
            except FileNotFoundError as error:
                raise folders.missing(state.name) from error

    def _look(self) -> None:
        paths, state = self._paths, self._state
        self._level = [
            place
            for place in self.places
            if scan.directory_mtime(paths.place(place)) == (state.cur_mtime if place else state.new_mtime)
        ]

    def expect(self, names: Iterable[str]) -> None:
        """Expect a watcher to report these file names: they are changes of this account object."""
        self._names.expect(names)

    def record(self) -> None:
        """Record the current mtimes in the state."""
        state = self._state
        for place in self._level:
            mtime = scan.directory_mtime(self._paths.place(place))
            if place and mtime != state.cur_mtime:
                state.cur_mtime, state.cur_racy = mtime, state.cur_racy or OWN
            elif not place and mtime != state.new_mtime:
                state.new_mtime, state.new_racy = mtime, state.new_racy or OWN


def known_mask(state: MailboxState, names: Iterable[str]) -> int:
    """Return the bits of those of the flags that the mailbox has."""
    return keywords.Keywords(state.keywords).mask(names)


def make_keywords(home: Home, state: MailboxState, names: Collection[str]) -> int:
    """Return the bits of the flags. New keywords get numbers, on disk before any file name has them.

    Under the account's lock; takes Dovecot's to write. Raises: LimitReached, BadSyntax, InUse, NoSpace.
    """
    wanted = [name for name in names if not name.startswith("\\")]
    known = keywords.Keywords(state.keywords)
    if not wanted:
        # The file does not contain system flags.
        return known.mask(names)
    paths = home.paths(state.name)
    files = paths.keywords, paths.further_keywords
    level = keywords.signature(*files) == state.keywords_signature
    if not level or any(known.bit(name) is None for name in wanted):
        with home.dotlocked([paths.directory]):
            current = keywords.read(*files)
            try:
                known = current.including(wanted)
            except LimitReached:
                known = current.without_unused(_used(paths)).including(wanted)
            if known is not current:
                keywords.write(paths.keywords, known, paths.further_keywords, before=current)
            state.keywords_signature = keywords.signature(*files)
        state.keywords = known.names
    return known.mask(names)


def _used(paths: MailboxPaths) -> int:
    """Return the mask of all further keywords in file names: an interrupted STORE may have set some unknown to the index."""
    mask = 0
    for place in (0, 1):
        with contextlib.suppress(FileNotFoundError):
            names = scan.read_directory(paths.place(place)).names
            for info in {name.partition(":")[2] for name in names if IN_NAME in name}:
                mask |= info_mask(info)
    return mask


def flag_names(state: MailboxState, mask: int) -> list[str]:
    """Return the names for a mask, system flags first."""
    return keywords.Keywords(state.keywords).flags(mask)
