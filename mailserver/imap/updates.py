"""Unsolicited responses: EXPUNGE or VANISHED, EXISTS, RECENT, FLAGS and FETCH for changes in the selected mailbox (RFC 3501 7; RFC 7162 3).

A client's sequence numbers move only here. The order is: expunges from the highest number down, then the new size,
then flags, whose numbers are those after the expunges.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from mailserver.imap.selected_mailbox import SelectedMailbox
from mailserver.imap.wire import writer
from mailserver.imap.wire.sequence_set import format_set
from mailserver.session.channel import Channel
from mailserver.store.flags import LETTERS, has_room, has_unused
from mailserver.types import UID

_CHUNK = 1000
_FEW = 32
"""Messages in one write. Between two, the session waits for a client that does not read, and lets others go first."""


async def sync(
    channel: Channel, selected: SelectedMailbox, *, allow_expunge: bool, uid: bool = False, wait: bool = True
) -> None:
    """Read the changes of others, if there was a poke, and send all that is new; `uid` adds UIDs to FETCH responses.

    `wait`: also for changes that another session of the mailbox is reading now. IDLE is poked once they are read.
    Raises: MailboxChanged, StoreUnavailable, InUse.
    """
    with selected.live.listening(selected.view):
        if wait:
            await selected.live.catch_up()
        elif selected.live.stale:
            await selected.live.refresh()
    if selected.view.behind() and selected.events.messages:
        await send_changes(channel, selected, allow_expunge=allow_expunge, uid=uid)
        _send_highest(channel, selected)


def _send_highest(channel: Channel, selected: SelectedMailbox) -> None:
    """Send the modseq that the client shall note, where it is not the highest that it has seen (RFC 7162 3.2).

    While an expunge must wait, it is a lower one, so that a client that loses its connection now does not miss the expunge.
    """
    view, enabled = selected.view, selected.enabled
    if "CONDSTORE" not in enabled:
        return
    if view.has_unreported_expunges or ("QRESYNC" in enabled and selected.owes_highest):
        selected.owes_highest = False
        channel.write(b"* OK [HIGHESTMODSEQ %d] highest modseq\r\n" % view.complete_modseq)


def listening(selected: SelectedMailbox | None, name: str | None = None) -> AbstractContextManager[None]:
    """Send new messages of the selected mailbox at once, until the block exits; only if `name` is that mailbox's."""
    if selected is None or name not in (None, selected.live.mailbox.name):
        return nullcontext()
    return selected.live.listening(selected.view)


async def send_changes(
    channel: Channel, selected: SelectedMailbox, *, allow_expunge: bool, uid: bool = False, requested: bool = False
) -> None:  # fmt: skip
    """Move the view to its columns, and send the differences; others get their turn in between.

    Messages that come while \\Recent is claimed are left to the next time. `requested`: also to a client that wants no changes
    by itself (RFC 5465 3.1). Raises: ConnectionLost.
    """
    if not (requested or selected.events.messages):
        return
    view, uids, known = selected.view, selected.view.columns.uids, selected.view.last_uid
    newest = uids[-1] if uids else 0
    if newest > view.last_uid and "IMAP4rev2" not in selected.enabled:
        await selected.live.claim_recent(view, range(view.last_uid + 1, newest + 1))
    results = selected.result_updates
    if results is not None:
        # Nothing may be awaited between this and the EXPUNGE responses.
        await results.report_expunged()
    for number, lines in enumerate(_changes(selected, allow_expunge=allow_expunge, uid=uid, below=UID(newest + 1))):
        if number:
            await channel.drain()
        channel.write(lines)
    if results is not None:
        await results.report_changed()
    if selected.events.fetch_new is not None and view.last_uid > known:
        await selected.events.fetch_new(selected, known)
    if selected.events.own:
        selected.events.own = {uid for uid in selected.events.own if uid > view.last_uid}


def _changes(selected: SelectedMailbox, *, allow_expunge: bool, uid: bool, below: UID) -> Iterator[bytes]:
    view = selected.view
    moved = view.sync(allow_expunge=allow_expunge, below=below, flags=selected.events.flags)
    has_modseqs, uids_only = "CONDSTORE" in selected.enabled, "UIDONLY" in selected.enabled
    is_rev2 = "IMAP4rev2" in selected.enabled
    if moved.expunged and (uids_only or "QRESYNC" in selected.enabled):
        selected.owes_highest = True
        uids = sorted([gone for _seq, gone in moved.expunged])
        for start in range(0, len(uids), _CHUNK):
            yield b"* VANISHED %b\r\n" % format_set(uids[start : start + _CHUNK])
    else:
        for start in range(0, len(moved.expunged), _CHUNK):
            yield b"".join([b"* %d EXPUNGE\r\n" % seq for seq, _uid in moved.expunged[start : start + _CHUNK]])
    if moved.exists is not None:
        selected.owes_highest = True
        yield b"* %d EXISTS\r\n" % moved.exists + (b"" if is_rev2 else b"* %d RECENT\r\n" % moved.recent)
    columns = view.columns
    if moved.keywords is not None:
        yield flag_lines(moved.keywords, columns.flags, read_only=selected.read_only)
    step = lines_at_once(columns.keywords)
    for start in range(0, len(moved.flags), step):
        pieces = [keyword_lines(selected)]
        for seq, number in moved.flags[start : start + step]:
            at = columns.position(number)
            if at < 0:
                continue  # expunged since the last chunk: sent the next time
            flags = writer.flags(columns.flags[at], columns.keywords, number in view.recent_uids)
            if uids_only:
                end = b" MODSEQ (%d))" % columns.modseqs[at] if has_modseqs else b")"
                pieces.append(b"* %d UIDFETCH (FLAGS %b%b\r\n" % (number, flags, end))
            elif has_modseqs:
                modseq = columns.modseqs[at]
                pieces.append(b"* %d FETCH (UID %d FLAGS %b MODSEQ (%d))\r\n" % (seq, number, flags, modseq))
            elif uid or is_rev2 or selected.events.uids:
                pieces.append(b"* %d FETCH (UID %d FLAGS %b)\r\n" % (seq, number, flags))
            else:
                pieces.append(b"* %d FETCH (FLAGS %b)\r\n" % (seq, flags))
        yield b"".join(pieces)


def lines_at_once(keywords: Sequence[str]) -> int:
    """Return the number of responses with flags in one write: each may have all keywords beyond the letters."""
    return _CHUNK if len(keywords) <= LETTERS else _FEW


def keyword_lines(selected: SelectedMailbox) -> bytes:
    """FLAGS and PERMANENTFLAGS if there are new keywords; they are sent before a message has one of them."""
    keywords = selected.view.take_keywords()
    if keywords is None:
        return b""
    return flag_lines(keywords, selected.view.columns.flags, read_only=selected.read_only)


def flag_lines(keywords: tuple[str, ...], masks: Iterable[int], *, read_only: bool) -> bytes:
    """FLAGS and PERMANENTFLAGS of a mailbox; `\\*` only while a new keyword has room (RFC 3501 7.1).

    `masks`: those of all messages.
    """
    names = [*writer.FLAG_NAMES, *(name for name in keywords if name)]
    permanent = [] if read_only else [*names, "\\*"] if has_room(keywords) or has_unused(keywords, masks) else names
    return b"* FLAGS %b\r\n* OK [PERMANENTFLAGS %b] permanent flags\r\n" % (
        writer.flag_list(names),
        writer.flag_list(permanent),
    )


async def deleted_messages(selected: SelectedMailbox) -> list[UID]:
    """The messages of the view that are flagged \\Deleted now, by whatever session, rising."""
    await selected.live.catch_up()
    view = selected.view
    found = view.columns.deleted_uids()
    return found[: bisect_right(found, view.last_uid)]
