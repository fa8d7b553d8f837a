"""Reads of small messages whole: many in the account's thread, or one from memory on the reactor's.

The reactor's thread cannot ask the index for the name of a file. So reads in the account's thread keep the names, and those of
their neighbours (`home.file_names`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from mailserver.errors import StoreUnavailable
from mailserver.store.index.records import MailboxState
from mailserver.store.maildir.disk.page_cache import may_wait, page_cache
from mailserver.store.maildir.format.message_file import read_cached, read_cached_header, read_small
from mailserver.store.maildir.format.paths import MailboxPaths
from mailserver.store.maildir.home.file_names import GROUP
from mailserver.store.maildir.home.home import Home
from mailserver.types import UID


class SmallReads:
    """The reads of one mailbox."""

    def __init__(self, home: Home, state: MailboxState) -> None:
        self._home = home
        self._names = home.settings.file_names
        # Accounts that are copies of one another have the same GUIDs.
        self._names_key = home.root, state.names_key
        self._may_wait: bool | None = None

    def whole(self, key: int, paths: MailboxPaths, uids: Sequence[UID], limit: int) -> list[tuple[UID, bytes]]:
        """Do `Mailbox.read_whole`; `key` is the mailbox's in the index."""
        places = (os.path.join(paths.new, ""), os.path.join(paths.cur, ""))
        found: list[tuple[UID, bytes]] = []
        if self._may_wait is None:
            self._may_wait = may_wait(paths.cur)
        for uid, place, name, size in self._files(key, uids):
            if uid != uids[len(found)]:
                break
            try:
                data = read_small(places[place] + os.fsdecode(name), size, limit)
            except (FileNotFoundError, StoreUnavailable):
                break
            if data is None:
                break
            limit -= len(data)
            found.append((uid, data))
        return found

    def cached(self, paths: MailboxPaths, uid: UID, size: int | None, *, only_header: bool) -> bytes | None:
        """Do `Mailbox.read_cached`, by the name that `whole` kept."""
        name = self._names.find(self._names_key, uid)
        cache = page_cache()
        if not name or cache is None:
            return None
        path = b"%b/%b" % (paths.encoded, name)
        return read_cached_header(cache, path) if only_header else read_cached(cache, path, size)

    def _files(self, key: int, uids: Sequence[UID]) -> list[tuple[UID, int, bytes, int | None]]:
        """Return the files of these messages (rising), and keep their names if `cached` never waits for them."""
        if self._may_wait:
            return self._home.read(lambda index: index.messages.files_of(key, uids))
        names, mailbox = self._names, self._names_key
        more = names.lacks(mailbox, uids) if uids else None
        files = self._home.read(lambda index: index.messages.files_of(key, more or uids))
        found = [(uid, names.name_of(place, name)) for uid, place, name, _size in files]
        if more is None:
            if len(found) <= GROUP:
                names.change(mailbox, found)
            return files
        names.keep(mailbox, more, found)
        wanted = set(uids)
        return [file for file in files if file[0] in wanted]
