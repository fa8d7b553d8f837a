"""The statuses of many mailboxes of an account for little more than three stats of each.

Mailboxes whose directories are as the index has them are answered from one read of their rows and one statement for their
counts. Only the others are read from disk, under one lock. A mailbox in which no session has seen the new messages has
\\Recent ones, which are counted apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mailserver.errors import MailError
from mailserver.store.index.records import MailboxState
from mailserver.store.interfaces import ScanTooLarge, Status
from mailserver.store.maildir.home import intent
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.mailbox.mailbox import MaildirMailbox
from mailserver.store.time_slice import TimeSlice

_AT_ONCE = 50
"""Mailboxes that are counted by one statement."""


def statuses(
    home: Home, names: Sequence[str], open_mailbox: Callable[[str], MaildirMailbox], time_slice: TimeSlice
) -> Mapping[str, Status | MailError | ScanTooLarge]:  # fmt: skip
    """Do `Account.statuses`. `open_mailbox` opens a mailbox by name; it raises MailErrors."""
    found: dict[str, Status | MailError | ScanTooLarge] = {}
    settled = not home.something_due and not intent.any_due(home.root, home.unsettled)
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        current = _current(home, some) if settled else {}
        found.update(_count(home, current))
        others = [name for name in some if name not in current]
        if others:
            try:
                with home.locked():
                    for name in others:
                        found[name] = _read(open_mailbox, name)
                        if time_slice.take(1):
                            break
            except MailError as error:
                # The lock could not be acquired.
                found.update((name, error) for name in others if name not in found)
        if time_slice.take(1):
            break
    return found


def _current(home: Home, names: Sequence[str]) -> Mapping[str, MailboxState]:
    """Return the states of those mailboxes of which nothing on disk has changed since it was read."""
    found = {}
    for state in home.read(lambda index: index.mailboxes.by_names(names)):
        try:
            if MaildirMailbox(home, state).is_as_read(state):
                found[state.name] = state
        except MailError:
            # It is read by itself, and that error belongs to it.
            continue
    return found


def _count(home: Home, states: Mapping[str, MailboxState]) -> Mapping[str, Status]:
    uncounted = [state for state in states.values() if home.counts.get(state.guid, (0,))[0] != state.modseq]
    if uncounted:
        counts = home.read(lambda index: index.messages.counts_of([state.key for state in uncounted]))
        for state in uncounted:
            home.counts[state.guid] = state.modseq, counts[state.key]
    sums = home.read(lambda index: index.sums.of_several([state.key for state in states.values()]))
    return {name: MaildirMailbox(home, state).status_of(state, sums.get(state.key)) for name, state in states.items()}


def _read(open_mailbox: Callable[[str], MaildirMailbox], name: str) -> Status | MailError | ScanTooLarge:
    try:
        mailbox = open_mailbox(name)
        mailbox.refresh()
        return mailbox.status()
    except (MailError, ScanTooLarge) as error:
        return error
