"""FETCH (RFC 3501 6.4.5, 7.4.2; RFC 7162 3.1.4): its items, and the implicit \\Seen. `imap.fetch.response` writes the responses.

A message that is gone is left out. FETCH then ends with NO [EXPUNGEISSUED] (RFC 2180 4.1.2),
UID FETCH with OK (RFC 3501 6.4.8).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Final

from mailserver.errors import BadSyntax, InUse, LimitReached, MessageExpunged, NoSpace, ReadOnly, StoreUnavailable
from mailserver.imap import condstore, message_limit, qresync
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.fetch.binary import BINARY, read_binary
from mailserver.imap.fetch.cached import single_response
from mailserver.imap.fetch.modifiers import read_modifiers
from mailserver.imap.fetch.object_ids import EMAIL_ID, THREAD_ID
from mailserver.imap.fetch.pipelined import answer_alike
from mailserver.imap.fetch.plan import FetchBatchSize, FetchPlan, Item, Need, gather
from mailserver.imap.fetch.preview import PREVIEW, read_preview
from mailserver.imap.fetch.response import FetchResponse
from mailserver.imap.fetch.save_date import SAVE_DATE, SAVEDATE
from mailserver.imap.fetch.section import Range, Section, read_section
from mailserver.imap.object_ids import OBJECTID
from mailserver.imap.partial import PARTIAL
from mailserver.imap.selected_mailbox import SelectedMailbox
from mailserver.imap.session import Session
from mailserver.imap.uidonly import UIDONLY
from mailserver.imap.utf8_accept import UTF8_ACCEPT
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.sequence_set import SequenceSet
from mailserver.message.header_summary import KEPT
from mailserver.session.cost import Cost
from mailserver.store.flags import SEEN, FlagChange
from mailserver.types import UID

MAX_ITEMS: Final = 1000

ITEMS: Final = {
    item.label.decode("ascii"): item
    for item in (
        Item(b"FLAGS", Need.COLUMN),
        Item(b"UID", Need.COLUMN),
        Item(b"INTERNALDATE", Need.COLUMN),
        Item(b"RFC822.SIZE", Need.COLUMN),
        Item(b"MODSEQ", Need.COLUMN),
        Item(b"ENVELOPE", Need.SUMMARY),
        Item(b"BODY", Need.SUMMARY),
        Item(b"BODYSTRUCTURE", Need.SUMMARY),
        Item(b"RFC822", Need.FILE, Section(), sets_seen=True),
        Item(b"RFC822.HEADER", Need.FILE, Section(text="HEADER")),
        Item(b"RFC822.TEXT", Need.FILE, Section(text="TEXT"), sets_seen=True),
        SAVE_DATE,
        EMAIL_ID,
        THREAD_ID,
    )
}
"""Items by name. BODY[...], BODY.PEEK[...], those of BINARY, and PREVIEW are made by `read_items`."""

MACROS: Final = {
    "ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"),
    "FAST": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    "FULL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"),
}

_UID: Final = ITEMS["UID"]
_ONE: Final = re.compile(rb" ([1-9][0-9]{0,8}) (.+)", re.DOTALL)
"""The arguments of a command that names one message."""


def read_items(reader: Reader) -> tuple[Item, ...]:
    """A macro, one item, or a list in parentheses; each item once. Raises: BadSyntax, LimitReached."""
    if not reader.skip(b"("):
        word = reader.read_atom()
        macro = MACROS.get(word.upper())
        return tuple(ITEMS[name] for name in macro) if macro else (_item(reader, word),)
    items = [_item(reader, reader.read_atom())]
    while reader.skip(b" "):
        items.append(_item(reader, reader.read_atom()))
        if len(items) > MAX_ITEMS:
            raise LimitReached("too many FETCH items")
    reader.take(b")")
    return tuple(dict.fromkeys(items))


def _item(reader: Reader, word: str) -> Item:
    name, bracket, specifier = word.partition("[")
    name = name.upper()
    if not bracket:
        if name == "PREVIEW":
            return read_preview(reader)
        if name in ITEMS:
            return ITEMS[name]
        raise BadSyntax("unknown FETCH item")
    if name in ("BINARY", "BINARY.PEEK", "BINARY.SIZE"):
        return read_binary(reader, name, specifier)
    if name not in ("BODY", "BODY.PEEK"):
        raise BadSyntax("unknown FETCH item")
    section = read_section(reader, specifier)
    kept = section.text == "HEADER.FIELDS" and not section.numbers and section.fields <= KEPT
    return Item(b"BODY" + section.label, Need.SUMMARY if kept else Need.FILE, section, sets_seen=name == "BODY")


def _read_plan(reader: Reader) -> FetchPlan:
    return _planned(read_items(reader), reader)


def _read_uid_plan(reader: Reader) -> FetchPlan:
    return _planned(_with(read_items(reader), _UID), reader)


def _planned(items: tuple[Item, ...], reader: Reader) -> FetchPlan:
    modifiers = () if reader.at_end else read_modifiers(reader)
    if any(name == "CHANGEDSINCE" for name, _value in modifiers):
        items = _with(items, ITEMS["MODSEQ"])
    return FetchPlan(items, modifiers)


def _with(items: tuple[Item, ...], *more: Item) -> tuple[Item, ...]:
    """The items with those that are missing, UID first."""
    missing = tuple(each for each in more if each not in items)
    return (*missing, *items) if missing == (_UID,) else (*items, *missing)


@lru_cache(maxsize=64)
def _with_changes(plan: FetchPlan, *, with_uid: bool) -> FetchPlan:
    """The plan with the items that a CONDSTORE client gets where flags change (RFC 7162 3.2.4)."""
    more = (ITEMS["FLAGS"], ITEMS["MODSEQ"])
    return FetchPlan(_with(plan.items, *((_UID, *more) if with_uid else more)), plan.modifiers)


async def fetch(session: Session, command: Command) -> str | None:
    """FETCH, UID FETCH (RFC 3501 6.4.5, 6.4.8; RFC 7162 3.1.4)."""
    reader = command.reader
    if (one := _ONE.match(reader.text or b"")) is not None and _answer_one(session, command, int(one[1]), one[2]):
        return None
    reader.read_sp()
    sequence_set = reader.read_sequence_set()
    reader.read_sp()
    tail = reader.text
    # UIDFETCH responses have the UID once (RFC 9586 3.3).
    has_uid = command.uid and "UIDONLY" not in session.enabled
    plan = session.services.argument_cache.read(_read_uid_plan if has_uid else _read_plan, reader)
    ranges: Sequence[Range] = session.positions(command, sequence_set)
    selected = session.mailbox
    if plan.is_resync and not (command.uid and "QRESYNC" in session.enabled):
        raise BadSyntax("VANISHED needs UID FETCH, and ENABLE QRESYNC")
    if not command.uid and any(name == "PARTIAL" for name, _value in plan.modifiers):
        raise BadSyntax("PARTIAL needs UID FETCH")
    for name, value in plan.modifiers:
        if name == "PARTIAL":
            message_limit.refuse(session, value.last - value.first + 1)
    if plan.has_modseqs:
        condstore.enable(session)
    if plan.modifiers:
        ranges = await _modified(session, dict(plan.modifiers), sequence_set, ranges)
    ranges, lowest = message_limit.newest(session, ranges)
    seen = await _set_seen(session, selected, ranges) if plan.sets_seen else frozenset[int]()
    if seen and "CONDSTORE" in session.enabled:
        plan = _with_changes(plan, with_uid="UIDONLY" not in session.enabled)
    answer = FetchResponse(session, selected, plan, seen)
    await answer.write(ranges)
    if answer.expunged:
        # The next sync finds the other messages that are gone.
        selected.live.poked()
    error = answer.error or (MessageExpunged() if answer.expunged and not command.uid else None)
    if error is not None:
        message_limit.report_beside(session, lowest)
        raise error
    if session.input.buffered and not command.uid and tail is not None and not plan.modifiers:
        session.after_reply(partial(_answer_alike, session, plan, tail))
    return None if lowest is None else message_limit.report(session, lowest, None)


def _answer_one(session: Session, command: Command, number: int, tail: bytes) -> bool:
    """Answer a command that names one message, where `single_response` can. Raises: BadSyntax, LimitReached for its items."""
    uid, selected = command.uid, session.mailbox
    plan = session.services.argument_cache.read_text(_read_uid_plan if uid else _read_plan, tail)
    if plan.has_modseqs and plan.is_single:
        condstore.enable(session)
    response = single_response(selected, plan, number, uid=uid, utf8=session.utf8)
    if response is None:
        return False
    session.channel.write(response)
    if not uid and session.input.buffered:
        session.after_reply(partial(_answer_alike, session, plan, tail))
    return True


async def _modified(
    session: Session, modifiers: dict[str, Any], sequence_set: SequenceSet, ranges: Sequence[Range]
) -> Sequence[Range]:
    """The positions that the modifiers leave; expunges are sent first. Raises: BadSyntax."""
    if "PARTIAL" in modifiers:
        ranges = modifiers["PARTIAL"].of_ranges(ranges)
    since = modifiers.get("CHANGEDSINCE")
    if since is None:
        return ranges
    if "VANISHED" in modifiers:
        since = await qresync.fetch_vanished(session, since, sequence_set)
    return await condstore.changed(session, ranges, since)


async def _answer_alike(session: Session, plan: FetchPlan, tail: bytes) -> None:
    answer_alike(session, plan, tail)


COMMANDS = (
    CommandSpec(
        "FETCH",
        State.SELECTED,
        fetch,
        uses_sequence_numbers=True,
        uid_form=True,
        capabilities=(
            SAVEDATE,
            PREVIEW,
            BINARY,
            condstore.CONDSTORE,
            qresync.QRESYNC,
            PARTIAL,
            UIDONLY,
            OBJECTID,
            message_limit.MESSAGELIMIT,
            UTF8_ACCEPT,
        ),
        reference="RFC 3501, RFC 8474, RFC 3516, RFC 8514, RFC 8970, RFC 7162, RFC 9394, RFC 9586, RFC 9738, RFC 9755, RFC 6858",
        cost=Cost(
            "messages named times items, octets of what is read", "reactor (what was read recently), account's thread"
        ),
    ),
)


async def _set_seen(session: Session, selected: SelectedMailbox, ranges: Sequence[Range]) -> frozenset[int]:
    """Set \\Seen where it is not set, in one operation, and return the UIDs that were changed.

    Mail can still be read where flags cannot be written: on a full disk, in a directory of another user.
    """
    view, live = selected.view, selected.live
    if selected.read_only or live.mailbox.read_only:
        return frozenset()
    uids = []
    for rows in gather(selected, ranges, FetchBatchSize()):
        uids += [UID(uid) for uid, mask in zip(rows.uids, rows.masks, strict=True) if not mask & SEEN]
    if not uids:
        return frozenset()
    try:
        await live.change(lambda mailbox: mailbox.store_flags(uids, FlagChange.ADD, ("\\Seen",)), len(uids))
    except (NoSpace, InUse, ReadOnly, StoreUnavailable) as error:
        session.channel.log("seen-not-stored", user=session.user, reason=error.reason)
        return frozenset()
    view.silence(uids)
    return frozenset(uids)
