"""Unsolicited responses: EXPUNGE, EXISTS, RECENT, FLAGS and FETCH for changes in the selected mailbox (RFC 3501 7).

A client's sequence numbers move only here. The order is: expunges from the highest number down, then the new size,
then flags, whose numbers are those after the expunges.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from mailserver.imap.selected_mailbox import SelectedMailbox
from mailserver.imap.wire import writer
from mailserver.session.channel import Channel
from mailserver.store.flags import MAX_KEYWORDS
from mailserver.types import UID

_CHUNK = 1000
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
    if selected.view.behind():
        await send_changes(channel, selected, allow_expunge=allow_expunge, uid=uid)


def listening(selected: SelectedMailbox | None, name: str | None = None) -> AbstractContextManager[None]:
    """Send new messages of the selected mailbox at once, until the block exits; only if `name` is that mailbox's."""
    if selected is None or name not in (None, selected.live.mailbox.name):
        return nullcontext()
    return selected.live.listening(selected.view)


async def send_changes(
    channel: Channel, selected: SelectedMailbox, *, allow_expunge: bool, uid: bool = False
) -> None:  # fmt: skip
    """Move the view to its columns, and send the differences; others get their turn in between.

    Messages that come while \\Recent is claimed are left to the next time. Raises: ConnectionLost.
    """
    view, uids = selected.view, selected.view.columns.uids
    newest = uids[-1] if uids else 0
    if newest > view.last_uid:
        await selected.live.claim_recent(view, range(view.last_uid + 1, newest + 1))
    for number, lines in enumerate(_changes(selected, allow_expunge=allow_expunge, uid=uid, below=UID(newest + 1))):
        if number:
            await channel.drain()
        channel.write(lines)


def _changes(selected: SelectedMailbox, *, allow_expunge: bool, uid: bool, below: UID) -> Iterator[bytes]:
    view = selected.view
    moved = view.sync(allow_expunge=allow_expunge, below=below)
    for start in range(0, len(moved.expunged), _CHUNK):
        yield b"".join([b"* %d EXPUNGE\r\n" % seq for seq, _uid in moved.expunged[start : start + _CHUNK]])
    if moved.exists is not None:
        yield b"* %d EXISTS\r\n* %d RECENT\r\n" % (moved.exists, moved.recent)
    if moved.keywords is not None:
        yield flag_lines(moved.keywords, read_only=selected.read_only)
    columns = view.columns
    for start in range(0, len(moved.flags), _CHUNK):
        pieces = [keyword_lines(selected)]
        for seq, number in moved.flags[start : start + _CHUNK]:
            at = columns.position(number)
            if at < 0:
                continue  # expunged since the last chunk: sent the next time
            flags = writer.flags(columns.flags[at], columns.keywords, number in view.recent_uids)
            if uid:
                pieces.append(b"* %d FETCH (UID %d FLAGS %b)\r\n" % (seq, number, flags))
            else:
                pieces.append(b"* %d FETCH (FLAGS %b)\r\n" % (seq, flags))
        yield b"".join(pieces)


def keyword_lines(selected: SelectedMailbox) -> bytes:
    """FLAGS and PERMANENTFLAGS if there are new keywords; they are sent before a message has one of them."""
    keywords = selected.view.take_keywords()
    return b"" if keywords is None else flag_lines(keywords, read_only=selected.read_only)


def flag_lines(keywords: tuple[str, ...], *, read_only: bool) -> bytes:
    """FLAGS and PERMANENTFLAGS of a mailbox; `\\*` only while a new keyword has room (RFC 3501 7.1)."""
    names = [*writer.FLAG_NAMES, *(name for name in keywords if name)]
    room = len(names) - len(writer.FLAG_NAMES) < MAX_KEYWORDS
    permanent = [] if read_only else [*names, "\\*"] if room else names
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
