"""The values that SORT and THREAD compare: from the index, else made of the header and kept there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mailserver.message.sort_keys import ALL_GROUPS, groups_of, picked
from mailserver.store.index.records import MailboxState
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.mailbox.summary_reader import SummaryReader
from mailserver.types import UID


def kept_sort_keys(
    home: Home, state: MailboxState, reader: SummaryReader, uids: Sequence[UID], names: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Do `Mailbox.sort_keys` for these messages (rising)."""
    groups = groups_of(names)
    found = home.read(lambda index: index.sort_keys.get(state.key, uids, names))
    rows = [(row[0], *row[2:]) for row in found if row[1] & groups == groups]
    if len(rows) < len(uids):
        known = {row[0] for row in rows}
        # Mail that is ordered by other values as well is ordered often.
        made = reader.sort_keys([uid for uid in uids if uid not in known], ALL_GROUPS if found else groups)
        rows += [(uid, *picked(keys, names)) for uid, keys in made]
    return rows
