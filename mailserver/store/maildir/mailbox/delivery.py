"""Writing messages to disk: APPEND, LMTP, submission's local copies.

Order, each step surviving a power cut before the next one begins:

1.  the file in tmp/, synced (before the lock is taken)
2.  both locks; the keyword file, where a new keyword is used
3.  an intent, for more than one message: all of them become visible, or none
4.  the lines of the uidlist: a line without a file is a burnt UID; a file without a line was never acknowledged
5.  the rename of each file into new/, or cur/ with flags; the directories synced
6.  the index; it may be lost, and is then made anew from the files
7.  the intent cleared

The message is not read again: its sizes were counted as it came, and its envelope and structure are rendered when they are
requested. Much mail is never listed (copies of what was sent, what a filter puts aside), and a list renders many at once.

Prepared messages stop after step 3 and leave the lock: `publish` is the rest. If the process dies between, or cannot do
it, the next holder of the lock publishes them (`recovery`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve

from mailserver.errors import BadMailboxName, MailError, NoSuchMailbox, OverQuota
from mailserver.store.maildir.home import folders, intent
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.mailbox.publication import (
    Arrival,
    existing_paths,
    name_files,
    publish,
    sync_messages,
    write_intent,
)
from mailserver.store.maildir.sync.reconcile import sync_uidlist
from mailserver.store.maildir.sync.usage import Addition, read_before_refusal
from mailserver.store.receiving import Appended, Delivery, NewMessage
from mailserver.types import MailboxId


def append(
    home: Home,
    name: str,
    messages: Sequence[NewMessage],
    seen_by: Callable[[MailboxId], bool] = lambda _mailbox: False,
    *,
    beyond_quota: bool = False,
) -> Appended:
    """Publish messages, all or none. `seen_by` tells whether a session that claims \\Recent messages is there.

    Raises: NoSuchMailbox, LimitReached, OverQuota, InUse, NoSpace, StoreUnavailable.
    """
    arrivals = sync_messages(messages)
    with home.changing(), home.dotlocked([existing_paths(home, name).directory]):
        state = sync_uidlist(home, name)
        home.check_messages(state, len(arrivals))
        addition = Addition(home)
        if not beyond_quota:
            addition.check(sum(arrival.size for arrival in arrivals), len(arrivals))
        # If older messages wait in new/, the session claims them all together.
        claimed = state.recent_from >= state.uid_next and seen_by(state.guid)
        name_files(home, state, arrivals, claimed=claimed)
        pending = write_intent(home, state, arrivals) if len(arrivals) > 1 else None
        try:
            appended = publish(home, state, arrivals, claimed=claimed)
        finally:
            if pending is not None:
                # All are published, or none is there: settling it once more does no harm.
                intent.forget(home.root, pending)
        addition.done()
    return appended


Outcomes = dict[int, Appended | Exception]
"""Outcomes of deliveries, by their position in the request."""


def deliver(
    home: Home, deliveries: Sequence[Delivery], seen_by: Callable[[MailboxId], bool]
) -> list[Appended | Exception]:  # fmt: skip
    """Do `append` for each, independent of the others. Those of one message each are published together.

    Such a group has one lock, and for each mailbox one append to the uidlist, one sync of each directory and one
    transaction. It needs no intent: each message is complete by itself, and none is acknowledged before all are synced.
    """
    outcomes: Outcomes = {}
    groups: dict[str, list[tuple[int, Arrival]]] = {}
    for at, delivery in enumerate(deliveries):
        try:
            # Before anything is written. Under the locks it is checked again.
            _check_exists(home, delivery.name)
            if len(deliveries) == 1 or len(delivery.messages) != 1:
                outcomes[at] = _append(home, delivery, seen_by)
            else:
                [arrival] = sync_messages(delivery.messages)
                arrival.beyond_quota = delivery.beyond_quota
                groups.setdefault(delivery.name, []).append((at, arrival))
        except Exception as error:
            outcomes[at] = error
    if groups:
        try:
            with home.changing():
                for name, members in groups.items():
                    _deliver_into(home, name, members, seen_by, outcomes)
        except Exception as error:
            for at in range(len(deliveries)):
                outcomes.setdefault(at, error)
    over = [at for at, outcome in outcomes.items() if isinstance(outcome, OverQuota)]
    if over and read_before_refusal(home):
        for at in over:
            try:
                outcomes[at] = _append(home, deliveries[at], seen_by)
            except Exception as error:
                outcomes[at] = error
    return [outcomes[at] for at in range(len(deliveries))]


def _append(home: Home, delivery: Delivery, seen_by: Callable[[MailboxId], bool]) -> Appended:
    return append(home, delivery.name, delivery.messages, seen_by, beyond_quota=delivery.beyond_quota)


def _check_exists(home: Home, name: str) -> None:
    """Raise NoSuchMailbox unless it exists, also for an invalid name."""
    try:
        exists = home.layout.exists(name)
    except BadMailboxName as error:
        raise NoSuchMailbox from error
    if not exists:
        raise folders.missing(name)


def _deliver_into(
    home: Home,
    name: str,
    members: Sequence[tuple[int, Arrival]],
    seen_by: Callable[[MailboxId], bool],
    outcomes: Outcomes,
) -> None:
    """Do steps 2 to 6 for several independent messages of one mailbox."""
    try:
        with home.dotlocked([existing_paths(home, name).directory]):
            state = sync_uidlist(home, name)
            claimed = state.recent_from >= state.uid_next and seen_by(state.guid)
            ready: list[tuple[int, Arrival]] = []
            addition = Addition(home)
            for at, arrival in members:
                try:
                    home.check_messages(state, len(ready) + 1)
                    if not arrival.beyond_quota:
                        addition.check(arrival.size)
                    name_files(home, state, [arrival], claimed=claimed)
                except MailError as error:
                    outcomes[at] = error
                else:
                    ready.append((at, arrival))
            try:
                together = publish(home, state, [arrival for _, arrival in ready], claimed=claimed)
            except (MailError, OSError):
                # An error of one message need not affect the others.
                for at, arrival in ready:
                    outcomes[at] = _publish_alone(home, name, arrival, claimed=claimed)
            else:
                for (at, _), uid in zip(ready, together.uids, strict=True):
                    outcomes[at] = evolve(together, uids=[uid])
            addition.done()
    except Exception as error:
        for at, _ in members:
            outcomes.setdefault(at, error)


def _publish_alone(home: Home, name: str, arrival: Arrival, *, claimed: bool) -> Appended | Exception:
    try:
        state = sync_uidlist(home, name)
        name_files(home, state, [arrival], claimed=claimed)
        return publish(home, state, [arrival], claimed=claimed)
    except Exception as error:
        return error
