"""Telling a session what changed in its mailbox: EXPUNGE, EXISTS, RECENT, FLAGS and FETCH (RFC 3501 7).

A client's sequence numbers move only here. The order is: expunges from the highest number down, then the new size,
then flags, whose numbers are those after the expunges.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from mailserver.imap.wire import writer
from mailserver.store.flags import MAX_KEYWORDS
from mailserver.types import UID

if TYPE_CHECKING:
    from mailserver.imap.session import Selected, Session

_CHUNK = 1000
"""Messages told between two looks at whether the client still reads, and others wait."""


async def tell(session: Session, *, allow_expunge: bool, uid: bool = False, wait: bool = True) -> None:
    """Take up what others did, if anybody poked, and write all that is new; `uid` adds UIDs to FETCH answers.

    `wait` is for what another session of the mailbox is taking up now; IDLE is poked once that is done.
    Raises: MailboxChanged, StoreUnavailable, InUse.
    """
    selected = session.mailbox
    with selected.live.listening(selected.view):
        if wait:
            await selected.live.catch_up()
        elif selected.live.stale:
            await selected.live.refresh()
    if selected.view.behind():
        await tell_changes(session, allow_expunge=allow_expunge, uid=uid)


def listening(session: Session, name: str | None = None) -> AbstractContextManager[None]:
    """The client is told at once, meanwhile, of messages that come into the selected mailbox (if `name` is that one's)."""
    selected = session.selected
    if selected is None or name not in (None, selected.live.mailbox.name):
        return nullcontext()
    return selected.live.listening(selected.view)


async def tell_changes(session: Session, *, allow_expunge: bool, uid: bool = False) -> None:
    """Move the view to its columns, and tell the client what moved; others get their turn in between.

    Messages that come while \\Recent is claimed are left to the next time. Raises: ConnectionLost.
    """
    channel, selected = session.channel, session.mailbox
    view, uids = selected.view, selected.view.columns.uids
    newest = uids[-1] if uids else 0
    if newest > view.last_uid:
        await selected.live.claim_recent(view, range(view.last_uid + 1, newest + 1))
    for number, lines in enumerate(_changes(selected, allow_expunge=allow_expunge, uid=uid, below=UID(newest + 1))):
        if number:
            await channel.drain()
        channel.write(lines)


def _changes(selected: Selected, *, allow_expunge: bool, uid: bool, below: UID) -> Iterator[bytes]:
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
                continue  # expunged since the last chunk: told the next time
            flags = writer.flags(columns.flags[at], columns.keywords, number in view.recent_uids)
            if uid:
                pieces.append(b"* %d FETCH (UID %d FLAGS %b)\r\n" % (seq, number, flags))
            else:
                pieces.append(b"* %d FETCH (FLAGS %b)\r\n" % (seq, flags))
        yield b"".join(pieces)


def keyword_lines(selected: Selected) -> bytes:
    """FLAGS and PERMANENTFLAGS if there are new keywords; a client hears of a keyword before a message has it."""
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


async def deleted_messages(selected: Selected) -> list[UID]:
    """The messages of the view that are flagged \\Deleted now, rising; what others flagged counts too."""
    await selected.live.catch_up()
    view = selected.view
    found = view.columns.deleted_uids()
    return found[: bisect_right(found, view.last_uid)]
