"""Telling a session what changed in its mailbox: EXPUNGE, EXISTS, RECENT, FLAGS and FETCH (RFC 3501 7).

A client's sequence numbers move only here. The order is: expunges from the highest number down, then the new size,
then flags, whose numbers are those after the expunges.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mailserver.errors import MailError
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
    if wait:
        await selected.live.catch_up()
    elif selected.live.stale:
        await selected.live.refresh()
    view = selected.view
    if view.behind():
        last = view.uids[view.count - 1] if view.count else 0
        await tell_changes(session, allow_expunge=allow_expunge, uid=uid)
        newest = view.uids[view.count - 1] if view.count else 0
        if newest > last and newest >= selected.live.claimed_end and not selected.read_only:
            await _claim_recent(selected)


async def _claim_recent(selected: Selected) -> None:
    """Sessions that begin after this one was told of new messages do not see them as \\Recent (RFC 3501 2.3.2).

    A SELECT that crosses with this sees them so too: of sessions at the same time it is undefined which does, and what
    cannot be determined "SHOULD be considered recent". Claimed before they are told, they could be recent to nobody.
    """
    # They stay \\Recent for the next session if the store cannot say so now; that harms nobody.
    with contextlib.suppress(MailError):
        await selected.live.run(lambda mailbox: mailbox.claim_recent())


async def tell_changes(session: Session, *, allow_expunge: bool, uid: bool = False) -> None:
    """Move the view to its columns, and tell the client what moved; others get their turn in between.

    Raises: ConnectionLost.
    """
    channel = session.channel
    for number, lines in enumerate(_changes(session.mailbox, allow_expunge=allow_expunge, uid=uid)):
        if number:
            await channel.drain()
        channel.write(lines)


def _changes(selected: Selected, *, allow_expunge: bool, uid: bool) -> Iterator[bytes]:
    view = selected.view
    moved = view.sync(allow_expunge=allow_expunge)
    for start in range(0, len(moved.expunged), _CHUNK):
        yield b"".join([b"* %d EXPUNGE\r\n" % seq for seq, _uid in moved.expunged[start : start + _CHUNK]])
    if moved.exists is not None:
        yield b"* %d EXISTS\r\n* %d RECENT\r\n" % (moved.exists, moved.recent)
    if moved.keywords is not None:
        yield flag_lines(moved.keywords, read_only=selected.read_only)
    columns = view.columns
    for start in range(0, len(moved.flags), _CHUNK):
        pieces = []
        for seq, number in moved.flags[start : start + _CHUNK]:
            at = columns.position(number)
            if at < 0:
                continue  # expunged since the last chunk: told the next time
            flags = writer.flags(columns.flags[at], columns.keywords, number >= view.recent_from)
            if uid:
                pieces.append(b"* %d FETCH (UID %d FLAGS %b)\r\n" % (seq, number, flags))
            else:
                pieces.append(b"* %d FETCH (FLAGS %b)\r\n" % (seq, flags))
        yield b"".join(pieces)


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
    last = view.uids[view.count - 1] if view.count else 0
    found = view.columns.deleted_uids()
    return found[: bisect_right(found, last)]
