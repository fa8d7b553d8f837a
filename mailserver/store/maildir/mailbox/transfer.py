"""COPY and MOVE between the mailboxes of one account.

COPY links (link(2)) each file to a new base in the target's cur/. MOVE renames (rename(2)), and never links and
unlinks: a message is in exactly one of the two mailboxes at any moment. The base is new in both cases, as an old line
of the target's uidlist may have the old one. An intent exists from before the first change until everything is in
place: an interrupted COPY is undone, a MOVE is finished (`recovery`). The order of syncs is that of `delivery`; in a
MOVE the target is synced before the source.

The new message keeps date, size, flags (keywords by name), its rendered facts, and the identifier of its content.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

from attrs import define

from mailserver.cancellation import check_change
from mailserver.errors import MailError, MessageExpunged
from mailserver.store.flags import NARROW
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.interfaces import Copied
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.directories import sync_directories
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.format.email_id import email_id
from mailserver.store.maildir.format.filename import MaildirName, check_length, new_base, new_suffix, other_letters
from mailserver.store.maildir.home import folders, intent, recovery
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.local_changes import LocalChange
from mailserver.store.maildir.sync.directory_update import DirectoryUpdate, flag_names, known_mask, make_keywords
from mailserver.store.maildir.sync.entries import next_uids
from mailserver.store.maildir.sync.reconcile import reconcile, sync_uidlist
from mailserver.store.maildir.sync.usage import Addition
from mailserver.store.name_sizes import claims_conversion
from mailserver.types import UID, ModSeq


@define
class _Pair:
    """One message before and after the transfer."""

    old: Entry
    new: Entry


_RETRIES = 2

Found = tuple[Entry, int]
"""A message whose file exists, and the file's octets."""


def transfer(
    home: Home, state: MailboxState, uids: Sequence[UID], target: str, *, move: bool, skip_expunged: bool
) -> Copied:
    """Copy or move messages: all that exist with `skip_expunged`, else all or none. Under the account's lock.

    The state is saved. Raises: NoSuchMailbox, MessageExpunged, LimitReached, OverQuota, InUse, NoSpace, StoreUnavailable,
    Cancelled.
    """
    for _ in range(_RETRIES if skip_expunged else 0):
        # A file that another program removes after the check is skipped as well.
        with contextlib.suppress(MessageExpunged):
            return _transfer(home, state, uids, target, move=move, skip_expunged=True)
    return _transfer(home, state, uids, target, move=move, skip_expunged=skip_expunged)


def _transfer(
    home: Home, state: MailboxState, uids: Sequence[UID], target: str, *, move: bool, skip_expunged: bool
) -> Copied:
    if not home.layout.exists(target):
        raise folders.missing(target)
    # Before the target's lock: it may take the source's, and locks are taken in the order of paths.
    state, found = present_entries(home, state, uids)
    with home.dotlocked([home.paths(target).directory]):
        into = sync_uidlist(home, target)
        if into.guid == state.guid:
            state = into
        if len(found) != len(uids) and not skip_expunged:
            raise MessageExpunged
        if not found:
            return Copied(into.guid, into.uid_validity, [], [])
        if into is not state or not move:
            home.check_messages(into, len(found))
        addition = None if move else Addition(home)
        if addition is not None:
            addition.check(sum(disk if entry.size is None else entry.size for entry, disk in found), len(found))
        pairs = _name_files(home, state, into, found)
        copied = _carry_out(home, state, into, pairs, move=move)
        if addition is not None:
            addition.done()
        return copied


def present_entries(home: Home, state: MailboxState, uids: Sequence[UID]) -> tuple[MailboxState, list[Found]]:
    """Return the messages (rising) whose files are at their indexed place, after one check of the disk."""
    paths = home.paths(state.name)
    for attempt in range(2):
        key = state.key
        entries = home.read(lambda index, key=key: index.messages.entries_of(key, uids))  # type: ignore[misc]
        there = []
        for entry in entries:
            check_change()
            with contextlib.suppress(FileNotFoundError), safeio.boundary():
                size = os.lstat(f"{paths.place(entry.place)}/{entry.base}{entry.suffix}").st_size
                there.append((entry, size))
        if len(there) == len(entries) or attempt:
            return state, there
        state = reconcile(home, state.name)
    raise AssertionError


def _name_files(home: Home, state: MailboxState, into: MailboxState, found: Sequence[Found]) -> list[_Pair]:
    """Choose new names and UIDs, with the target's numbers for the keywords. Raises: LimitReached."""
    used = 0
    for entry, _size in found:
        used |= entry.flags
    make_keywords(home, into, flag_names(state, used))
    shifts = _shifts(state, into, used)
    masks: dict[int, int] = {}
    suffixes: dict[tuple[int, str], str] = {}
    modseq = next_modseq(max(into.modseq, state.modseq if into is state else 0))
    host = home.settings.hostname
    pairs = []
    for uid, (entry, disk) in zip(next_uids(into, len(found)), found, strict=True):
        mask = masks.get(entry.flags)
        if mask is None:
            mask = masks[entry.flags] = _shifted(entry.flags, shifts)
        suffix = suffixes.get((mask, entry.suffix))
        if suffix is None:
            others = other_letters(MaildirName.parse(entry.suffix).letters)
            suffix = suffixes[mask, entry.suffix] = new_suffix(mask, others)
        # A size that its name wrongly claims is not copied into a name of this server, which is believed.
        size = None if entry.size == disk and claims_conversion(entry.base) else entry.size
        content = email_id(os.fsencode(entry.base))
        on_disk = None if size is None else disk
        base = new_base(host, email_id=content, size=on_disk, virtual_size=size)
        if mask > NARROW:
            check_length(base + suffix)
        pairs.append(_Pair(entry, Entry(uid, modseq, mask, size, entry.date, base, suffix, 1)))
    return pairs


def _shifts(state: MailboxState, into: MailboxState, used: int) -> list[tuple[int, int]]:
    """Return (shift, bits): those of the used flags that have a bit so much higher in the target's masks."""
    found: dict[int, int] = {}
    while used:
        bit = used & -used
        used ^= bit
        if new := known_mask(into, flag_names(state, bit)):
            shift = new.bit_length() - bit.bit_length()
            found[shift] = found.get(shift, 0) | bit
    return list(found.items())


def _shifted(mask: int, shifts: Sequence[tuple[int, int]]) -> int:
    """Return the target's mask for the same flags."""
    new = 0
    for shift, bits in shifts:
        new |= (mask & bits) << shift if shift >= 0 else (mask & bits) >> -shift
    return new


def _carry_out(
    home: Home, state: MailboxState, into: MailboxState, pairs: Sequence[_Pair], *, move: bool
) -> Copied:  # fmt: skip
    source, target = home.paths(state.name), home.paths(into.name)
    places: set[int] = {pair.old.place for pair in pairs} if move else set()
    if into is state:
        own = [DirectoryUpdate(home, source, state, sorted({1, *places}))]
    else:
        own = [DirectoryUpdate(home, source, state, sorted(places)), DirectoryUpdate(home, target, into, (1,))]
    pending = _write_intent(home, state, into, pairs, move=move)
    step: Callable[[str, str], None] = safeio.rename if move else safeio.link
    verb = "move" if move else "copy"
    done: list[tuple[str, str]] = []
    try:
        lines = [(pair.new.uid, pair.new.base) for pair in pairs]
        into.uidlist_signature = uidlist.append(target.uidlist, lines)
        safeio.point(f"{verb}.after-uidlist")
        if move:
            own[-1].expect(pair.old.file_name for pair in pairs)
        own[-1].expect(pair.new.file_name for pair in pairs)
        for pair in pairs:
            check_change()
            old = f"{source.place(pair.old.place)}/{pair.old.base}{pair.old.suffix}"
            new = f"{target.cur}/{pair.new.base}{pair.new.suffix}"
            step(old, new)
            done.append((old, new))
            safeio.point(f"{verb}.after-rename" if move else f"{verb}.after-link")
        sync_directories([target.cur, *map(source.place, places)])
        safeio.point(f"{verb}.after-directory-sync")
        if not move:
            # While the intent exists a copy would be undone: it is reported once that is durably removed.
            intent.clear(home.root, pending)
            safeio.point("copy.after-clear")
    except BaseException as error:
        if _take_back(done, move=move):
            intent.forget(home.root, pending)
        if isinstance(error, FileNotFoundError):
            # It went between the check and the step.
            raise MessageExpunged from error
        raise
    since = state.modseq, into.modseq
    into.uid_next = UID(pairs[-1].new.uid + 1)
    into.modseq = ModSeq(pairs[0].new.modseq)
    for change in own:
        change.record()
    _save(home, state, into, pairs, since, move=move)
    safeio.point(f"{verb}.after-index")
    if move:
        # One that stays is finished once more, which does no harm.
        intent.forget(home.root, pending)
        safeio.point("move.after-clear")
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


def _take_back(done: Sequence[tuple[str, str]], *, move: bool) -> bool:
    """Undo the steps: nothing has been acknowledged. Return whether the intent may go."""
    is_back = True
    for old, new in done:
        if not move:
            safeio.discard(new)
            is_back = is_back and new not in safeio.leftovers
            continue
        try:
            safeio.rename(new, old)
        except FileNotFoundError:
            pass
        except (OSError, MailError):
            is_back = False
    try:
        sync_directories(os.path.dirname(path) for pair in done for path in (pair if move else pair[1:]))
    except (OSError, MailError):
        # A power cut may restore the copies: then their intent is needed. Moved messages are somewhere.
        is_back = is_back and move
    return is_back


def _save(
    home: Home, state: MailboxState, into: MailboxState, pairs: Sequence[_Pair], since: tuple[ModSeq, ModSeq], *, move: bool
) -> None:  # fmt: skip
    """Update the index; `since` are the earlier modseqs of the two mailboxes."""
    modseq = into.modseq if into is state else next_modseq(state.modseq)
    gone = [UID(pair.old.uid) for pair in pairs] if move else []
    if move:
        state.modseq = modseq
    new = [pair.new for pair in pairs]

    def save(index: Index) -> None:
        index.mailboxes.save(state)
        if into is not state:
            index.mailboxes.save(into)
        index.messages.add(into.key, new)
        uids = [(pair.old.uid, pair.new.uid) for pair in pairs]
        index.summaries.copy(state.key, into.key, uids)
        index.header_texts.copy(state.key, into.key, uids)
        index.previews.copy(state.key, into.key, uids)
        index.sort_keys.copy(state.key, into.key, uids)
        if move:
            index.expunge(state.key, gone, modseq)

    home.update(save, 2 * len(pairs))
    if move:
        home.local_changes.keep(state.key, LocalChange(since[0], modseq, [], gone))
    rows = [entry.row() for entry in new]
    home.local_changes.keep(into.key, LocalChange(since[1], into.modseq, rows, gone if into is state else []))
