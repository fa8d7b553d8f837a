"""CONDSTORE (RFC 7162 3.1): modseqs of messages, and the commands by which a client says that it knows them.

From the first such command on, each FETCH response for a change has the message's UID and modseq (3.2.4).
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from typing import Final

from mailserver.errors import BadSyntax
from mailserver.imap.capabilities import Capability
from mailserver.imap.selected_mailbox import SearchScope
from mailserver.imap.session import Session
from mailserver.imap.wire.reader import Reader
from mailserver.store.columns import find_all
from mailserver.store.query import ChangedSince, Query, leaves
from mailserver.types import ModSeq

HIGHEST: Final = 2**63 - 1
"""The largest modseq (RFC 7162 7)."""
SLICE: Final = 50_000
"""Messages whose modseqs are examined before others get their turn."""
_ENTRY_TYPES: Final = ("PRIV", "SHARED", "ALL")


def enable(session: Session) -> None:
    """Do what each CONDSTORE enabling command does (RFC 7162 3.1); once in a session, it sends the HIGHESTMODSEQ."""
    if "CONDSTORE" not in session.enabled:
        session.enabled.add("CONDSTORE")
        if session.selected is not None:
            session.untagged(highest(session.view.complete_modseq))


def highest(modseq: ModSeq) -> bytes:
    """The response that has the client note that modseq (RFC 7162 3.1.2.1)."""
    return b"OK [HIGHESTMODSEQ %d] highest modseq" % modseq


def read_modseq(reader: Reader) -> ModSeq:
    """`mod-sequence-valzer`. Raises: BadSyntax."""
    return ModSeq(reader.read_number(HIGHEST))


def read_search_key(reader: Reader) -> ChangedSince:
    """SP and the arguments of the MODSEQ search key (RFC 7162 3.1.5); the entry is ignored, as a message has one modseq."""
    reader.read_sp()
    if reader.peek(b'"'):
        if not reader.read_string().lower().startswith(b"/flags/"):
            raise BadSyntax("unknown metadata entry")
        reader.read_sp()
        if reader.read_word() not in _ENTRY_TYPES:
            raise BadSyntax("expected priv, shared or all")
        reader.read_sp()
    return ChangedSince(read_modseq(reader))


def enable_by_status(session: Session, items: Collection[str]) -> None:
    """Note that a client asks for these STATUS items, of which HIGHESTMODSEQ enables CONDSTORE."""
    if "HIGHESTMODSEQ" in items:
        enable(session)


def enable_by(session: Session, query: Query) -> bool:
    """Tell whether a search asks for modseqs, which enables CONDSTORE. Its result then has the highest modseq (3.1.6)."""
    asks = any(isinstance(key, ChangedSince) for key in leaves(query))
    if asks:
        enable(session)
    return asks


async def changed(session: Session, ranges: Sequence[tuple[int, int]], since: ModSeq) -> list[tuple[int, int]]:
    """The positions of the view with a modseq above `since`, out of rising half-open ranges."""
    view = session.view
    found: list[tuple[int, int]] = []
    examined = 0
    for first, last in ranges:
        for low in range(first, last, SLICE):
            if examined > SLICE:
                examined = 0
                await session.channel.drain()
            high = min(low + SLICE, last)
            examined += high - low
            found += view.changed_since(since, low, high)
    return found


async def highest_of(scope: SearchScope, numbers: Sequence[int], *, uids: bool) -> ModSeq | None:
    """The highest modseq of these messages (sequence numbers, or UIDs); None if none of them is left."""
    view, newest = scope.view, 0
    for start in range(0, len(numbers), SLICE):
        if start:
            await scope.channel.drain()
        part = numbers[start : start + SLICE]
        wanted = array("I", sorted(part if uids else [view.uids[number - 1] for number in part]))
        columns = view.columns
        places = find_all(columns.uids, wanted)
        if isinstance(places, range):
            newest = max(newest, max(columns.modseqs[places.start : places.stop], default=0))
        else:
            newest = max(newest, max((columns.modseqs[at] for at in places if at >= 0), default=0))
    return ModSeq(newest) if newest else None


CONDSTORE = Capability("CONDSTORE", "RFC 7162", __name__, "condstore", enable=enable)
