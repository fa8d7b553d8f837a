"""FETCH responses for new messages, whose items a client has named before (RFC 5465 5.2, 7)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Sequence
from typing import Final

from mailserver.imap import condstore
from mailserver.imap.fetch.plan import FetchPlan, Item, Need
from mailserver.imap.fetch.response import FetchResponse
from mailserver.imap.fetch.section import Range
from mailserver.imap.selected_mailbox import SelectedMailbox, WantedItems
from mailserver.imap.session import Session

_UID: Final = Item(b"UID", Need.COLUMN)
_MODSEQ: Final = Item(b"MODSEQ", Need.COLUMN)


def enable_condstore(session: Session, items: Sequence[Item]) -> None:
    """MODSEQ among the items is a CONDSTORE enabling command (RFC 7162 3.1)."""
    if any(item.label == b"MODSEQ" for item in items):
        condstore.enable(session)


async def fetch_new_messages(
    session: Session, selected: SelectedMailbox, wanted: Sequence[WantedItems], own: Container[int]
) -> None:  # fmt: skip
    """Send one FETCH response for each message, with all items that are wanted of it; none for those in `own`.

    Messages that are gone are left out. Raises: MailboxChanged, ConnectionLost.
    """
    view = selected.view
    plans: dict[tuple[bool, ...], FetchPlan] = {}
    runs: list[tuple[FetchPlan, list[Range]]] = []
    for uid in sorted({uid for each in wanted for uid in each.uids if uid not in own}):
        at = bisect_left(view.uids, uid, 0, view.count)
        if at == view.count or view.uids[at] != uid:
            continue
        meant = tuple(_has(each.uids, uid) for each in wanted)
        plan = plans.get(meant)
        if plan is None:
            plan = plans[meant] = _plan(
                session, [each.items for each, is_meant in zip(wanted, meant, strict=True) if is_meant]
            )
        if not runs or runs[-1][0] is not plan:
            runs.append((plan, []))
        ranges = runs[-1][1]
        if ranges and ranges[-1][1] == at:
            ranges[-1] = ranges[-1][0], at + 1
        else:
            ranges.append((at, at + 1))
    for plan, ranges in runs:
        await FetchResponse(session, selected, plan, frozenset()).write(ranges)


def _has(uids: Sequence[int], uid: int) -> bool:
    at = bisect_left(uids, uid)
    return at < len(uids) and uids[at] == uid


def _plan(session: Session, lists: Sequence[tuple[Item, ...]]) -> FetchPlan:
    items = {item.label: item for each in lists for item in each}
    if b"FLAGS" in items and "CONDSTORE" in session.enabled:
        # RFC 7162 3.2.4.
        first = {} if "UIDONLY" in session.enabled else {b"UID": _UID}
        items = first | items | {b"MODSEQ": _MODSEQ}
    return FetchPlan(tuple(items.values()))
