"""Taking up other programs' changes by the file names from a watcher, without reading the directories."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

from mailserver.errors import NoSpace, StoreUnavailable
from mailserver.store.flags import LETTERS
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format import keywords, uidlist, uidlist_format
from mailserver.store.maildir.format.filename import base_of, is_own
from mailserver.store.maildir.format.paths import MailboxPaths
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.local_changes import LocalChange
from mailserver.store.maildir.sync import scan
from mailserver.store.maildir.sync.differences import FEW
from mailserver.store.maildir.sync.entries import fresh_entries, moved_entry, next_uids, read_keywords, sort_by_delivery
from mailserver.store.maildir.sync.recent import leave_new
from mailserver.store.recent_uids import NONE_CLAIMED
from mailserver.types import UID


def is_up_to_date(home: Home, state: MailboxState, names: Collection[str]) -> bool:
    """Tell whether the index already has everything that happened to these file names. False if uncertain. No lock.

    It has if another worker made the changes. Raises: StoreUnavailable.
    """
    paths = home.paths(state.name)
    if not _lists_unchanged(home, state, paths):
        return False
    bases = _by_base(names)
    if len(bases) > FEW:
        return False
    index = home.index()
    for base, its_names in bases.items():
        known = index.messages.by_base(state.key, base)
        found = _find(paths, its_names)
        if known is None:
            if found is not None:
                return False
        elif not _exists(paths.place(known.place), known.file_name) or (
            found is not None and (known.file_name != found.name or known.place != (found.place == "cur"))
        ):
            return False
    return True


def are_deliveries(names: Collection[str]) -> bool:
    """Tell whether these are the names of new messages that other programs have delivered: the index lacks them.

    Another worker's delivery has a name of this server's form, and its renames have one with flags.
    """
    return not any(":" in name or is_own(name) for name in names)


def take_up(home: Home, state: MailboxState, names: Collection[str], *, claims: bool = False) -> range | None:
    """Take up the changes of these file names alone. None if a `reconcile` is needed.

    With `claims` new messages are claimed in the same transaction, unless earlier ones are unclaimed. Return their UIDs.
    Under the account's lock. Raises: as `reconcile`.
    """
    paths = home.paths(state.name)
    if uidlist.signature(paths.uidlist) != state.uidlist_signature or state.boot != home.boot:
        return None
    bases = _by_base(names)
    if len(bases) > FEW:
        return None
    index = home.index()
    before = state.modseq
    changed: list[Entry] = []
    fresh: list[tuple[str, scan.Found]] = []
    modseq = next_modseq(state.modseq)
    for base, its_names in bases.items():
        known = index.messages.by_base(state.key, base)
        found = _find(paths, its_names)
        if found is None:
            if known is not None and not _exists(paths.place(known.place), known.file_name):
                return None
        elif known is None:
            fresh.append((base, found))
        elif not _exists(paths.place(known.place), known.file_name):
            changed.append(moved_entry(known, found, modseq))
        elif known.file_name != found.name or known.place != (found.place == "cur"):
            # Under two names at once: a scan decides.
            return None
    names_changed = read_keywords(paths, state)
    if names_changed and len(state.keywords) > LETTERS:
        return None
    if not changed and not fresh and not names_changed:
        return NONE_CLAIMED
    sort_by_delivery(fresh)
    if state.uid_next + len(fresh) - 1 > uidlist_format.HIGHEST_UID:
        return None
    given = next_uids(state, len(fresh))
    new = fresh_entries([(uid, base, found) for uid, (base, found) in zip(given, fresh, strict=True)], modseq)
    claimed = NONE_CLAIMED
    if new:
        try:
            with home.dotlocked([paths.directory], must=True):
                if uidlist.signature(paths.uidlist) != state.uidlist_signature:
                    return None
                lines = [(entry.uid, entry.base) for entry in new]
                state.uidlist_signature = home.with_room(lambda: uidlist.append(paths.uidlist, lines))
        except (NoSpace, StoreUnavailable):
            return None
        first, state.uid_next = state.uid_next, UID(new[-1].uid + 1)
        if claims and state.recent_from == first:
            claimed = range(first, state.uid_next)
            state.recent_from = state.uid_next
            moved = {entry.uid: entry for entry in leave_new(home, state, [entry for entry in new if not entry.place])}
            new = [moved.get(entry.uid, entry) for entry in new]
    reported = sorted([*new, *(entry for entry in changed if entry.modseq == modseq)])
    if reported or names_changed:
        state.modseq = modseq

    def save(index: Index) -> None:
        index.mailboxes.save(state)
        index.messages.change(state.key, changed)
        index.messages.add(state.key, new, foreign=True)

    home.update(save, len(new) + len(changed))
    if state.modseq != before:
        home.local_changes.keep(state.key, LocalChange(before, modseq, [entry.row() for entry in reported], []))
    return claimed


def _lists_unchanged(home: Home, state: MailboxState, paths: MailboxPaths) -> bool:
    return (
        state.boot == home.boot
        and uidlist.signature(paths.uidlist) == state.uidlist_signature
        and keywords.signature(paths.keywords, paths.further_keywords) == state.keywords_signature
    )


def _by_base(names: Collection[str]) -> dict[str, list[str]]:
    bases: dict[str, list[str]] = {}
    for name in names:
        if name and name[0] != "." and scan.can_be_listed(name):
            bases.setdefault(base_of(name), []).append(name)
    return bases


def _find(paths: MailboxPaths, names: Collection[str]) -> scan.Found | None:
    """Find the existing one of these names: cur/ before new/, more flags before fewer."""
    for place, directory in (("cur", paths.cur), ("new", paths.new)):
        for name in sorted(names, key=lambda name: (len(name), name), reverse=True):
            if _exists(directory, name):
                return scan.Found(place, name)
    return None


def _exists(directory: str, name: str) -> bool:
    if "/" in name:
        return False
    try:
        return stat.S_ISREG(os.lstat(f"{directory}/{name}").st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise safeio.failure(error) from error
