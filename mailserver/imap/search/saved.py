"""SEARCH by save date (RFC 8514 4.3): the keys become UID ranges, from dates that the worker keeps in memory."""

from __future__ import annotations

from functools import partial
from typing import Final

from mailserver.imap.selected_mailbox import SearchScope
from mailserver.store.query import InUIDs, Query, Saved, leaves, substituted

_PART: Final = 10_000
"""Messages whose dates are read, or compared, before others get their turn."""
_DAY: Final = 86400
_EVER: Final = 1 << 62


def asks_save_dates(query: Query) -> bool:
    """Is there a key that needs them?"""
    return any(isinstance(key, Saved) for key in leaves(query))


async def resolve_save_dates(scope: SearchScope, query: Query) -> Query:
    """The same query for the session's view, in which no key needs save dates. Raises: StoreUnavailable, MailboxChanged."""
    live, view = scope.searched, scope.view
    dates = live.save_dates
    while missing := dates.missing(view.uids[: view.count], _PART):
        dates.add(missing, await live.run(partial(lambda uids, mailbox: mailbox.save_dates(uids), missing)))
        await scope.channel.drain()
    dates.forget(view.uids)
    resolved: dict[Query, InUIDs] = {}
    for key in leaves(query):
        if isinstance(key, Saved) and key not in resolved:
            resolved[key] = InUIDs(await _ranges(scope, key))
    return substituted(query, lambda key: resolved[key] if isinstance(key, Saved) else key)


async def _ranges(scope: SearchScope, key: Saved) -> tuple[tuple[int, int], ...]:
    """The UIDs of messages saved in that time: ranges that may also hold UIDs without a message."""
    dates = scope.searched.save_dates
    first = -_EVER if key.first is None else key.first * _DAY
    end = _EVER if key.end is None else key.end * _DAY
    uids, times = dates.uids, dates.dates
    ranges: list[tuple[int, int]] = []
    start = 0
    for low in range(0, len(uids), _PART):
        if low:
            await scope.channel.drain()
        for at in range(low, min(low + _PART, len(uids))):
            if first <= times[at] < end:
                if not start:
                    start = uids[at]
            elif start:
                ranges.append((start, uids[at] - 1))
                start = 0
    if start:
        ranges.append((start, uids[-1]))
    return tuple(ranges)
