"""SEARCH EMAILID (RFC 8474 6): the key becomes UID ranges."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Final

from mailserver.imap.selected_mailbox import SearchScope
from mailserver.store.interfaces import Mailbox
from mailserver.store.query import InUIDs, Query, WithEmailId, leaves, substituted
from mailserver.types import UID

_PART: Final = 10_000
"""Messages whose identifiers are compared in one turn of the account's thread."""


def email_ids_of(query: Query) -> set[str]:
    """The identifiers that the query asks for."""
    return {key.email_id for key in leaves(query) if isinstance(key, WithEmailId)}


async def resolve_email_ids(scope: SearchScope, query: Query, wanted: Collection[str]) -> Query:
    """The same query for the session's view, in which no key asks for identifiers. Raises: StoreUnavailable, MailboxChanged."""
    live, view = scope.searched, scope.view
    found: dict[str, list[UID]] = {email_id: [] for email_id in wanted}
    for start in range(0, view.count, _PART):
        if start:
            await scope.channel.drain()
        uids = [UID(uid) for uid in view.uids[start : min(start + _PART, view.count)]]
        for uid, email_id in (await live.run(partial(_having, wanted, uids))).items():
            found[email_id].append(uid)
    sets = {email_id: InUIDs(_ranges(uids)) for email_id, uids in found.items()}
    return substituted(query, lambda key: sets[key.email_id] if isinstance(key, WithEmailId) else key)


def _having(wanted: Collection[str], uids: list[UID], mailbox: Mailbox) -> Mapping[UID, str]:
    return {uid: email_id for uid, email_id in mailbox.email_ids(uids).items() if email_id in wanted}


def _ranges(uids: list[UID]) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    for uid in uids:
        if ranges and ranges[-1][1] + 1 == uid:
            ranges[-1] = ranges[-1][0], uid
        else:
            ranges.append((uid, uid))
    return tuple(ranges)
