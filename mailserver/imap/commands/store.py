"""STORE and UID STORE (RFC 3501 6.4.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailserver.errors import BadSyntax, ReadOnly
from mailserver.imap import updates
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.session import Session
from mailserver.imap.wire import writer
from mailserver.imap.wire.reader import Reader
from mailserver.session.cost import BOTH, Cost
from mailserver.store.flags import FlagChange, known_mask

_ITEM = re.compile(r"([+-]?)FLAGS(\.SILENT)?")
_HOW = {"+": FlagChange.ADD, "-": FlagChange.REMOVE, "": FlagChange.REPLACE}
_CHUNK = 1000
"""Messages in one write. Between two, the session waits for a client that does not read."""


def _read_change(reader: Reader) -> tuple[FlagChange, bool, tuple[str, ...]]:
    """The kind of change, whether it is silent, and the flags."""
    item = _ITEM.fullmatch(reader.read_word())
    if item is None:
        raise BadSyntax("expected FLAGS, +FLAGS or -FLAGS")
    reader.read_sp()
    return _HOW[item[1]], item[2] is not None, tuple(reader.read_flags(bare=True))


async def store(session: Session, command: Command) -> str | None:
    """RFC 3501 6.4.6. All messages change in one operation of the store; each is answered, changed or not.

    STORE of messages that another session has expunged, and whose EXPUNGE this client has not got, is answered by
    OK [EXPUNGEISSUED], with a FETCH of the flags that they would have; so does Dovecot. The NO of RFC 2180 4.2 would read as a
    failure, although the flags of all messages that exist are stored. UID STORE ignores them (RFC 3501 6.4.8).
    """
    reader = command.reader
    reader.read_sp()
    sequence_set = reader.read_sequence_set()
    reader.read_sp()
    how, silent, flags = session.services.argument_cache.read(_read_change, reader)
    selected = session.mailbox
    ranges, uids = session.positions(command, sequence_set), session.uids(command, sequence_set)
    if selected.read_only:
        raise ReadOnly
    if not uids:
        return None
    stored = await selected.live.change(lambda mailbox: mailbox.store_flags(uids, how, flags), len(uids))
    view = selected.view
    view.silence(uids)
    if stored.gone and not command.uid:
        columns = view.columns
        columns.flag_expunged(view.expunged_position, stored.gone, how, known_mask(flags, columns.keywords))
    if not silent:
        # A new keyword is announced before the first message that has it.
        await updates.send_changes(session.channel, session.mailbox, allow_expunge=False, uid=command.uid)
        await _answer(session, ranges, uid=command.uid)
    return "[EXPUNGEISSUED] some of the messages no longer exist" if stored.gone and not command.uid else None


async def _answer(session: Session, ranges: list[tuple[int, int]], *, uid: bool) -> None:
    """FETCH responses for those positions of the view. With `uid`, messages that are gone get none."""
    view = session.view
    columns, recent = view.columns, view.recent_uids
    fragments: dict[tuple[int, bool], bytes] = {}
    level = view.is_synced
    gone: dict[int, int] | None = {} if uid else None
    for start, end in (chunk for low, high in ranges for chunk in _chunks(low, high)):
        lines = [updates.keyword_lines(session.mailbox)]
        for position in range(start, end):
            number = view.uids[position]
            at = position if level else columns.position(number)
            if at >= 0:
                mask = columns.flags[at]
            else:
                if gone is None:
                    gone = columns.expunged_flags(view.expunged_position)
                if number not in gone:
                    continue
                mask = gone[number]
            kind = mask, number in recent
            flags = fragments.get(kind)
            if flags is None:
                flags = fragments[kind] = writer.flags(kind[0], columns.keywords, kind[1])
            lines.append(
                b"* %d FETCH (UID %d FLAGS %b)\r\n" % (position + 1, number, flags)
                if uid
                else b"* %d FETCH (FLAGS %b)\r\n" % (position + 1, flags)
            )
        session.write(b"".join(lines))
        if end - start == _CHUNK:
            await session.channel.drain()
            level = view.is_synced


def _chunks(low: int, high: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _CHUNK, high)) for start in range(low, high, _CHUNK))


COMMANDS = (
    CommandSpec(
        "STORE",
        State.SELECTED,
        store,
        uid_form=True,
        uses_sequence_numbers=True,
        cost=Cost("messages named times flags given", BOTH),
    ),
)
