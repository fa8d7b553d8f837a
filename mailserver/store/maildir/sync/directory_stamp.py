"""The state of a mailbox's directories when the index was up to date, to be compared without the index.

A SELECT of a mailbox whose columns are in memory needs no more, and so no hop to the account's thread.

Why three stats are enough, whoever changes the mailbox (this process, other workers, other programs):

*   Every message that comes, goes or changes its flags moves the mtime of new/ or cur/. Both were read when they had
    not moved for `scan.RACY_NS` (`SETTLED`): a later change cannot have the same mtime. Fresh mtimes, also those of our
    own changes, are not `settled`: the index knows more about them than a stat can tell.
*   New or burnt UIDs, and a new UIDVALIDITY, change the uidlist, whose signature has inode, size and mtime. A mailbox
    that was deleted and made anew, or another one that was renamed to this name, has another uidlist.
*   Only the index knows the claimed \\Recent messages. A stamp with unclaimed ones is never `settled`. Without them,
    none can come without a new UID.
*   A new keyword letter that no file name has yet changes nothing that the index would see either.
*   A change of this process that its columns lack moved one of the three as well.
"""

from __future__ import annotations

import os

from mailserver.store.index.records import SETTLED, MailboxState
from mailserver.store.maildir.format.paths import MailboxPaths
from mailserver.store.maildir.home.home import Home


class DirectoryStamp:
    """Implements `store.rows.MailboxStamp`. Made in the account's thread, used on any."""

    __slots__ = ("_cur", "_home", "_name", "_new", "_paths", "_signature", "settled")

    def __init__(self, home: Home, paths: MailboxPaths, state: MailboxState) -> None:
        """`state`: the index's row when the columns of this stamp are up to date."""
        self._home = home
        self._name = state.name
        self._paths = paths.new, paths.cur, paths.uidlist
        self._new, self._cur = state.new_mtime, state.cur_mtime
        self._signature = state.uidlist_signature
        self.settled = (
            state.new_racy == SETTLED
            and state.cur_racy == SETTLED
            and state.boot == home.boot
            and state.recent_from >= state.uid_next
        )

    def unchanged(self, name: str) -> bool:
        """Tell whether the name still means this mailbox in this state. Three stats."""
        if name != self._name or self._home.something_due:
            return False
        new, cur, listed = self._paths
        stat = os.stat
        try:
            if stat(new).st_mtime_ns != self._new or stat(cur).st_mtime_ns != self._cur:
                return False
            found = stat(listed)
        except OSError:
            return False
        # `uidlist.signature` takes as long as the stat itself.
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) == self._signature
