"""STORE and UID STORE (RFC 3501 6.4.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mailserver.errors import BadSyntax, ReadOnly
from mailserver.imap import updates
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.session import Session
from mailserver.imap.wire import writer
from mailserver.imap.wire.reader import Reader
from mailserver.session.cost import BOTH, Cost
from mailserver.store.flags import FlagChange, known_mask
from mailserver.store.view import View

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
    is_synced = view.is_synced
    gone: dict[int, int] | None = {} if uid else None
    for start, end in (chunk for low, high in ranges for chunk in _chunks(low, high)):
        columns = view.columns
        lines = [updates.keyword_lines(session.mailbox)]
        numbers = view.uids[start:end]
        if is_synced:
            lines += _lines(view, start, numbers, columns.flags[start:end], uid=uid)
        else:
            if gone is None:
                gone = columns.expunged_flags(view.expunged_position)
            for position, number in enumerate(numbers, start):
                at = columns.position(number)
                if at >= 0 or number in gone:
                    mask = columns.flags[at] if at >= 0 else gone[number]
                    lines += _lines(view, position, [number], [mask], uid=uid)
        session.write(b"".join(lines))
        if end - start == _CHUNK:
            await session.channel.drain()
            is_synced = view.is_synced


def _lines(view: View, start: int, uids: Sequence[int], masks: Sequence[int], *, uid: bool) -> list[bytes]:
    """FETCH responses of messages from that position on. Each kind of flags is written once."""
    keywords = view.columns.keywords
    lines: list[bytes] = []
    for low, high, recent in view.recent_uids.parts(uids):
        part = masks[low:high]
        texts = {mask: writer.flags(mask, keywords, recent) for mask in set(part)}
        if uid:
            lines += [
                b"* %d FETCH (UID %d FLAGS %b)\r\n" % (seq, number, texts[mask])
                for seq, (number, mask) in enumerate(zip(uids[low:high], part, strict=True), start + low + 1)
            ]
        else:
            lines += [
                b"* %d FETCH (FLAGS %b)\r\n" % (seq, texts[mask]) for seq, mask in enumerate(part, start + low + 1)
            ]
    return lines


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
