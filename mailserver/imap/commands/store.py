"""STORE and UID STORE (RFC 3501 6.4.6, RFC 7162 3.1.3)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mailserver.errors import BadSyntax, ReadOnly
from mailserver.imap import condstore, message_limit, updates
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.session import Session
from mailserver.imap.store_responses import write_responses
from mailserver.imap.uidonly import UIDONLY
from mailserver.imap.wire import writer
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.sequence_set import format_set
from mailserver.session.cost import BOTH, Cost
from mailserver.store.flags import FlagChange, known_mask
from mailserver.store.interfaces import Stored
from mailserver.store.view import View
from mailserver.types import UID, ModSeq

_ITEM = re.compile(r"([+-]?)FLAGS(\.SILENT)?")
_HOW = {"+": FlagChange.ADD, "-": FlagChange.REMOVE, "": FlagChange.REPLACE}
_DRAINED = 32 * 1024
"""Octets of responses after which the session waits for a client that does not read."""


def _read_change(reader: Reader) -> tuple[FlagChange, bool, tuple[str, ...]]:
    """The kind of change, whether it is silent, and the flags."""
    item = _ITEM.fullmatch(reader.read_word())
    if item is None:
        raise BadSyntax("expected FLAGS, +FLAGS or -FLAGS")
    reader.read_sp()
    return _HOW[item[1]], item[2] is not None, tuple(reader.read_flags(bare=True))


def _read_unchanged_since(reader: Reader) -> ModSeq | None:
    """The modifier in parentheses and SP, if there is one (RFC 4466 2.5). Raises: BadSyntax."""
    if not reader.skip(b"("):
        return None
    if reader.read_word() != "UNCHANGEDSINCE":
        raise BadSyntax("unknown STORE modifier")
    reader.read_sp()
    modseq = condstore.read_modseq(reader)
    reader.take(b")")
    reader.read_sp()
    return modseq


async def store(session: Session, command: Command) -> str | None:
    """RFC 3501 6.4.6. All messages change in one operation of the store; each is answered, changed or not.

    STORE of messages that another session has expunged, and whose EXPUNGE this client has not got, is answered by
    OK [EXPUNGEISSUED], with a FETCH of the flags that they would have; so does Dovecot. The NO of RFC 2180 4.2 would read as a
    failure, although the flags of all messages that exist are stored. UID STORE ignores them (RFC 3501 6.4.8). With
    UNCHANGEDSINCE they are among the MODIFIED: their expunge is a change (RFC 7162 3.2.7).
    """
    reader = command.reader
    reader.read_sp()
    sequence_set = reader.read_sequence_set()
    reader.read_sp()
    since = _read_unchanged_since(reader)
    how, silent, flags = session.services.argument_cache.read(_read_change, reader)
    selected = session.mailbox
    ranges, lowest = message_limit.newest(session, session.positions(command, sequence_set))
    uids = [UID(uid) for low, high in ranges for uid in session.view.uids[low:high]]
    if selected.read_only:
        raise ReadOnly
    if since is not None:
        condstore.enable(session)
    if not uids:
        return None
    view = selected.view
    before = view.columns.modseq
    stored = await selected.live.change(lambda mailbox: mailbox.store_flags(uids, how, flags, since), len(uids))
    view.silence(uids)
    if stored.gone and not command.uid and since is None:
        columns = view.columns
        columns.flag_expunged(view.expunged_position, stored.gone, how, known_mask(flags, columns.keywords))
    if not session.enabled.isdisjoint(("CONDSTORE", "UIDONLY")):
        if not silent:
            await updates.send_changes(session.channel, selected, allow_expunge=False)
        refused = frozenset(stored.modified)
        gone = frozenset(() if silent or command.uid or since is not None else stored.gone)
        after = before if since is None else None
        await write_responses(session, ranges, silent=silent, refused=refused, gone=gone, after=after)
        return message_limit.report(session, lowest, _tagged(view, stored, since, uid=command.uid))
    if not silent:
        # A new keyword is announced before the first message that has it.
        await updates.send_changes(session.channel, session.mailbox, allow_expunge=False, uid=command.uid)
        await _answer(session, ranges, uid=command.uid)
    return message_limit.report(session, lowest, _tagged(view, stored, since, uid=command.uid))


def _tagged(view: View, stored: Stored, since: ModSeq | None, *, uid: bool) -> str | None:
    if since is not None and (stored.modified or stored.gone):
        failed = sorted([*stored.modified, *stored.gone])
        numbers = failed if uid else [seq for each in failed if (seq := view.seq(each)) is not None]
        return f"[MODIFIED {format_set(numbers).decode('ascii')}] some of the messages have changed"
    return "[EXPUNGEISSUED] some of the messages no longer exist" if stored.gone and not uid else None


async def _answer(session: Session, ranges: Sequence[tuple[int, int]], *, uid: bool) -> None:
    """FETCH responses for those positions of the view. With `uid`, messages that are gone get none."""
    view = session.view
    is_synced = view.is_synced
    gone: dict[int, int] | None = {} if uid else None
    step, size = updates.lines_at_once(view.columns.keywords), 0
    for start, end in (chunk for low, high in ranges for chunk in _chunks(low, high, step)):
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
        text = b"".join(lines)
        session.write(text)
        size += len(text)
        if size >= _DRAINED:
            size = 0
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


def _chunks(low: int, high: int, step: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + step, high)) for start in range(low, high, step))


COMMANDS = (
    CommandSpec(
        "STORE",
        State.SELECTED,
        store,
        uid_form=True,
        uses_sequence_numbers=True,
        capabilities=(condstore.CONDSTORE, UIDONLY, message_limit.MESSAGELIMIT),
        reference="RFC 3501, RFC 7162, RFC 9586, RFC 9738",
        cost=Cost("messages named times flags given", BOTH),
    ),
)
