"""What has happened to the names of an account between two lists of its mailboxes."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence

from attrs import frozen

from mailserver.types import MailboxId


class NameEvent(enum.Enum):
    """The kind of a change (RFC 5423 4.4)."""

    CREATED = "created"
    DELETED = "deleted"
    RENAMED = "renamed"
    SUBSCRIPTION = "subscription"
    """Subscribed or unsubscribed."""
    CHILDREN = "children"
    """A mailbox directly below it was created or deleted (RFC 5465 5.4)."""


@frozen
class NameChange:
    """One change. What the name is now is in the list of mailboxes."""

    event: NameEvent
    name: str
    old_name: str | None = None
    """Of RENAMED."""


@frozen
class Names:
    """The names of an account at one moment."""

    every: frozenset[str]
    """Levels that are only parents included."""
    selectable: frozenset[str]
    subscribed: frozenset[str]
    ids: Mapping[str, MailboxId]
    """Of mailboxes whose id is known."""


def compare(before: Names, after: Names) -> tuple[Sequence[NameChange], Mapping[str, str]]:
    """Return the changes, and the new name of each mailbox that was renamed, by its old one. Linear in the names.

    A mailbox is renamed if its id has another name; its children are renamed with it, and not named (RFC 5465 5.4).
    """
    gone = before.selectable - after.selectable
    new = after.selectable - before.selectable
    old_names = {before.ids[name]: name for name in gone if name in before.ids}
    renamed: dict[str, str] = {}
    for name in new:
        old = old_names.get(after.ids[name]) if name in after.ids else None
        if old is not None:
            renamed[old] = name
    changes: dict[str, NameChange] = {}
    for old, name in sorted(renamed.items()):
        top_old, top_new = _top(old, name, before, after)
        changes.setdefault(top_new, NameChange(NameEvent.RENAMED, top_new, top_old))
    created = sorted(new.difference(renamed.values()))
    deleted = sorted(gone.difference(renamed))
    for names, event in ((deleted, NameEvent.DELETED), (created, NameEvent.CREATED)):
        for name in names:
            changes.setdefault(name, NameChange(event, name))
    for name in (*deleted, *created):
        parent = name.rpartition("/")[0]
        if parent:
            changes.setdefault(parent, NameChange(NameEvent.CHILDREN, parent))
    subscriptions = [NameChange(NameEvent.SUBSCRIPTION, name) for name in sorted(before.subscribed ^ after.subscribed)]
    return (*changes.values(), *subscriptions), renamed


def _top(old: str, new: str, before: Names, after: Names) -> tuple[str, str]:
    """Return the names of the highest level that was renamed with this one: a level may be no mailbox itself."""
    while True:
        old_parent, _, old_last = old.rpartition("/")
        new_parent, _, new_last = new.rpartition("/")
        if not old_parent or not new_parent or old_last != new_last:
            return old, new
        if old_parent in after.every or new_parent in before.every:
            return old, new
        old, new = old_parent, new_parent


def merge(pending: dict[tuple[str, bool], NameChange], change: NameChange) -> None:
    """Add a change to those that a client has not been sent, so that what it is sent holds together.

    `pending` is by name and whether it is a change of subscription.
    """
    if change.event is NameEvent.SUBSCRIPTION:
        pending[change.name, True] = change
        return
    if change.event is NameEvent.CHILDREN:
        pending.setdefault((change.name, False), change)
        return
    source = change.old_name if change.event is NameEvent.RENAMED else change.name
    earlier = pending.get((source, False)) if source is not None else None
    if earlier is not None and earlier.event is NameEvent.RENAMED:
        del pending[earlier.name, False]
        if change.event is NameEvent.DELETED:
            assert earlier.old_name is not None
            pending[earlier.old_name, False] = NameChange(NameEvent.DELETED, earlier.old_name)
            return
        if change.event is NameEvent.RENAMED:
            change = NameChange(NameEvent.RENAMED, change.name, earlier.old_name)
    elif earlier is not None and earlier.event is NameEvent.CREATED and change.event is NameEvent.RENAMED:
        del pending[earlier.name, False]
        change = NameChange(NameEvent.CREATED, change.name)
    if change.event is NameEvent.RENAMED and change.name == change.old_name:
        return
    pending.pop((change.name, False), None)
    pending[change.name, False] = change


def affected(changes: Collection[NameChange]) -> set[str]:
    """Return all names in those changes."""
    return {name for change in changes for name in (change.name, change.old_name) if name is not None}
