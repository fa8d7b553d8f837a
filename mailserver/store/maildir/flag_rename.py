"""STORE on disk: flags are letters of the file's name, so a change of flags is a rename within cur/ (or out of new/).

A rename is whole by itself, so there is no intent: one that was cut off has changed some messages and not the others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from mailserver.store.index.database import Index
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.interfaces import FlagChange
from mailserver.store.maildir import safeio
from mailserver.store.maildir.filename import MaildirName
from mailserver.store.maildir.home import Home, sync_directories
from mailserver.store.maildir.own_change import OwnChange
from mailserver.types import ModSeq


class FlagRename:
    """One STORE: files renamed, then the directories synced and the index told."""

    def __init__(self, home: Home, state: MailboxState, modseq: ModSeq, how: FlagChange, mask: int) -> None:
        self._home = home
        self._paths = paths = home.paths(state.name)
        self._state = state
        self._modseq = modseq
        self._how = how
        self._mask = mask
        self._own = OwnChange(home, paths, state)
        self._changed: list[Entry] = []
        self._left_new = False

    def carry_out(self, entries: Sequence[Entry]) -> list[Entry]:
        """Rename; those whose file was not there."""
        missing = []
        cur = self._paths.cur + "/"
        for entry in entries:
            mask = self._new_mask(entry.flags)
            if mask == entry.flags:
                continue
            name = entry.base + entry.suffix
            renamed = MaildirName.parse(name).with_mask(mask).format()
            self._own.expect(name, renamed)
            try:
                safeio.rename(os.path.join(self._paths.place(entry.place), name), cur + renamed)
            except FileNotFoundError:
                missing.append(entry)
                continue
            safeio.point("store.after-rename")
            self._left_new |= not entry.place
            self._changed.append(
                entry._replace(modseq=self._modseq, flags=mask, suffix=renamed[len(entry.base) :], place=1)
            )
        return missing

    def finish(self) -> None:
        """Sync and tell the index."""
        state = self._state
        if self._changed:
            sync_directories([self._paths.cur, *([self._paths.new] if self._left_new else [])])
            safeio.point("store.after-directory-sync")
            self._own.record()
            state.modseq = self._modseq

        def save(index: Index) -> None:
            index.mailboxes.save(state)
            index.messages.change(state.key, self._changed)

        self._home.update(save, len(self._changed))
        safeio.point("store.after-index")

    def _new_mask(self, flags: int) -> int:
        if self._how is FlagChange.ADD:
            return flags | self._mask
        return flags & ~self._mask if self._how is FlagChange.REMOVE else self._mask
