"""COPY and MOVE between the mailboxes of one account.

COPY links (link(2)) each file to a new base in the target's cur/; MOVE renames (rename(2)), never links and unlinks: a
message is in exactly one of the two mailboxes at any moment. The base is new in both, as an old line of the target's
uidlist may know the old one. An intent stands from before the first change until all is in place: a COPY that was
interrupted is undone, a MOVE finished (`recovery`). The order of syncs is that of `delivery`; of a MOVE the target is
synced before the source.

The new message keeps date, size, flags (keywords by name) and what was rendered of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

from attrs import define

from mailserver.errors import MessageExpunged, NoSuchMailbox
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.interfaces import Copied
from mailserver.store.maildir import intent, recovery, safeio, uidlist
from mailserver.store.maildir.filename import MaildirName, flag_letters, new_base
from mailserver.store.maildir.home import Home, sync_directories
from mailserver.store.maildir.own_change import OwnChange, flag_names, make_keywords
from mailserver.store.maildir.reconcile import level, reconcile
from mailserver.store.maildir.uids import next_uids
from mailserver.types import UID


@define
class _Pair:
    """One message, as it is and as it will be."""

    old: Entry
    new: Entry


def transfer(home: Home, state: MailboxState, uids: Sequence[UID], target: str, *, move: bool) -> Copied:
    """Copy (all or none) or move (what is there). Under the account's lock; the state is saved.

    Raises: NoSuchMailbox, MessageExpunged, LimitReached, InUse, NoSpace, StoreUnavailable.
    """
    if not home.layout.exists(target):
        raise NoSuchMailbox
    # Before the target's lock: it may take the source's, and locks are not taken against the order of paths.
    state, entries = present_entries(home, state, uids)
    with home.dotlocked([home.paths(target).directory]):
        into = level(home, target)
        if into.guid == state.guid:
            state = into
        if len(entries) != len(uids) and not move:
            raise MessageExpunged
        if not entries:
            return Copied(into.guid, into.uid_validity, [], [])
        if into is not state or not move:
            home.check_messages(into, len(entries))
        pairs = _name_files(home, state, into, entries)
        return _carry_out(home, state, into, pairs, move=move)


def present_entries(
    home: Home, state: MailboxState, uids: Sequence[UID]
) -> tuple[MailboxState, list[Entry]]:  # fmt: skip
    """Entries of those of the messages (rising) whose files are where the index says, after one look at the disk."""
    paths = home.paths(state.name)
    for attempt in range(2):
        key = state.key
        entries = home.read(lambda index, key=key: index.messages.entries_of(key, uids))  # type: ignore[misc]
        there = [e for e in entries if os.path.lexists(os.path.join(paths.place(e.place), e.base + e.suffix))]
        if len(there) == len(entries) or attempt:
            return state, there
        state = reconcile(home, state.name)
    raise AssertionError


def _name_files(home: Home, state: MailboxState, into: MailboxState, entries: Sequence[Entry]) -> list[_Pair]:
    """New names and UIDs, with the target's letters for the keywords."""
    used = 0
    for entry in entries:
        used |= entry.flags
    make_keywords(home, into, flag_names(state, used))
    masks: dict[int, int] = {}
    modseq = next_modseq(max(into.modseq, state.modseq if into is state else 0))
    place = home.paths(state.name)
    pairs = []
    for uid, entry in zip(next_uids(into, len(entries)), entries, strict=True):
        mask = masks.get(entry.flags)
        if mask is None:
            mask = masks[entry.flags] = make_keywords(home, into, flag_names(state, entry.flags))
        disk = None
        if entry.size is not None:
            with contextlib.suppress(OSError):
                disk = os.lstat(os.path.join(place.place(entry.place), entry.base + entry.suffix)).st_size
        base = new_base(home.settings.hostname, size=disk, virtual_size=entry.size if disk is not None else None)
        others = "".join(c for c in MaildirName.parse(entry.suffix).letters if c not in flag_letters(0xFFFFFFFF))
        suffix = ":2," + flag_letters(mask, others)
        new = Entry(uid, modseq, mask, entry.size, entry.date, base, suffix, 1)
        pairs.append(_Pair(entry, new))
    return pairs


def _carry_out(
    home: Home, state: MailboxState, into: MailboxState, pairs: Sequence[_Pair], *, move: bool
) -> Copied:  # fmt: skip
    source, target = home.paths(state.name), home.paths(into.name)
    own = [OwnChange(home, source, state)]
    if into is not state:
        own.append(OwnChange(home, target, into))
    pending = _write_intent(home, state, into, pairs, move=move)
    step: Callable[[str, str], None] = safeio.rename if move else safeio.link
    verb = "move" if move else "copy"
    done: list[tuple[str, str]] = []
    try:
        lines = [(pair.new.uid, pair.new.base) for pair in pairs]
        into.uidlist_signature = uidlist.append(target.uidlist, lines)
        safeio.point(f"{verb}.after-uidlist")
        for pair in pairs:
            old = os.path.join(source.place(pair.old.place), pair.old.base + pair.old.suffix)
            new = os.path.join(target.cur, pair.new.base + pair.new.suffix)
            own[-1].expect(*([pair.old.file_name] if move else []), pair.new.file_name)
            step(old, new)
            done.append((old, new))
            safeio.point(f"{verb}.after-rename" if move else f"{verb}.after-link")
        sync_directories([target.cur, *(source.place(pair.old.place) for pair in pairs if move)])
        safeio.point(f"{verb}.after-directory-sync")
    except BaseException as error:
        _take_back(done, move=move)
        intent.clear(home.root, pending)
        if isinstance(error, FileNotFoundError):
            # It went between the look and the step.
            raise MessageExpunged from error
        raise
    into.uid_next = UID(pairs[-1].new.uid + 1)
    into.modseq = next_modseq(into.modseq)
    for change in own:
        change.record()
    _save(home, state, into, pairs, move=move)
    safeio.point(f"{verb}.after-index")
    intent.clear(home.root, pending)
    safeio.point(f"{verb}.after-clear")
    sources = [UID(pair.old.uid) for pair in pairs]
    return Copied(into.guid, into.uid_validity, sources, [UID(pair.new.uid) for pair in pairs])


def _write_intent(
    home: Home, state: MailboxState, into: MailboxState, pairs: Sequence[_Pair], *, move: bool
) -> intent.Intent:  # fmt: skip
    names = [pair.new.base + pair.new.suffix for pair in pairs]
    if move:
        files = [
            [pair.old.place, pair.old.base + pair.old.suffix, name] for pair, name in zip(pairs, names, strict=True)
        ]
        payload: dict[str, object] = {"source": state.name, "target": into.name, "pairs": files}
    else:
        payload = {"target": into.name, "names": names}
    return intent.write(home.root, intent.Intent(recovery.MOVE if move else recovery.COPY, payload))


def _take_back(done: Sequence[tuple[str, str]], *, move: bool) -> None:
    """Nobody has been told: put everything back."""
    directories = []
    for old, new in done:
        with contextlib.suppress(OSError):
            if move:
                safeio.rename(new, old)
            else:
                safeio.unlink(new)
        directories += [os.path.dirname(old), os.path.dirname(new)]
    sync_directories(directories)


def _save(home: Home, state: MailboxState, into: MailboxState, pairs: Sequence[_Pair], *, move: bool) -> None:
    modseq = into.modseq if into is state else next_modseq(state.modseq)
    if move:
        state.modseq = modseq
    new = [pair.new._replace(modseq=into.modseq) for pair in pairs]

    def save(index: Index) -> None:
        index.mailboxes.save(state)
        index.mailboxes.save(into)
        index.messages.add(into.key, new)
        index.summaries.copy(state.key, into.key, [(pair.old.uid, pair.new.uid) for pair in pairs])
        if move:
            index.expunge(state.key, [UID(pair.old.uid) for pair in pairs], modseq)

    home.update(save, 2 * len(pairs))
