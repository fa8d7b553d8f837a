"""STORE and UID STORE (RFC 3501 6.4.6)."""

from __future__ import annotations

import re

from mailserver.errors import BadSyntax, MessageExpunged, ReadOnly
from mailserver.imap import updates
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.session import Selected, Session
from mailserver.imap.wire import writer
from mailserver.store.interfaces import FlagChange
from mailserver.types import UID, SeqNum

_ITEM = re.compile(r"([+-]?)FLAGS(\.SILENT)?")
_HOW = {"+": FlagChange.ADD, "-": FlagChange.REMOVE, "": FlagChange.REPLACE}
_CHUNK = 1000
"""Messages between two looks at whether the client still takes our answers."""


async def store(session: Session, command: Command) -> None:
    """RFC 3501 6.4.6. All messages change in one operation of the store; each is answered, changed or not."""
    reader = command.reader
    reader.read_sp()
    sequence_set = reader.read_sequence_set()
    reader.read_sp()
    item = _ITEM.fullmatch(reader.read_word())
    if item is None:
        raise BadSyntax("expected FLAGS, +FLAGS or -FLAGS")
    reader.read_sp()
    flags = reader.read_flags(bare=True)
    reader.read_end()
    selected = session.mailbox
    messages = session.messages(command, sequence_set)
    if selected.read_only:
        raise ReadOnly
    if not messages:
        return
    how, uids = _HOW[item[1]], [uid for _seq, uid in messages]
    stored = await selected.live.change(lambda mailbox: mailbox.store_flags(uids, how, flags))
    selected.view.silence(uids)
    if not item[2]:
        # A keyword that is new is told before the first message that has it.
        session.write(updates.changes(selected, allow_expunge=False, uid=command.uid))
        await _answer(session, messages, uid=command.uid)
    if stored.gone and not command.uid:
        raise MessageExpunged


def _masks(selected: Selected, uids: list[UID]) -> list[int]:
    """The messages' flags, -1 for those that are gone."""
    columns = selected.view.columns
    places = map(columns.position, uids)
    return [columns.flags[at] if at >= 0 else -1 for at in places]


async def _answer(session: Session, messages: list[tuple[SeqNum, UID]], *, uid: bool) -> None:
    view = session.view
    keywords, recent_from = view.columns.keywords, view.recent_from
    for start in range(0, len(messages), _CHUNK):
        chunk = messages[start : start + _CHUNK]
        masks = _masks(session.mailbox, [number for _seq, number in chunk])
        lines = []
        for (seq, number), mask in zip(chunk, masks, strict=True):
            if mask < 0:
                continue
            flags = writer.flags(mask, keywords, number >= recent_from)
            lines.append(
                b"* %d FETCH (UID %d FLAGS %b)\r\n" % (seq, number, flags)
                if uid
                else b"* %d FETCH (FLAGS %b)\r\n" % (seq, flags)
            )
        session.write(b"".join(lines))
        if len(chunk) == _CHUNK:
            await session.channel.drain()


COMMANDS = (CommandSpec("STORE", State.SELECTED, store, uid_form=True, uses_sequence_numbers=True),)
