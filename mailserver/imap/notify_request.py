"""The arguments of NOTIFY (RFC 5465 8)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from typing import Final

from attrs import frozen

from mailserver.errors import BadSyntax, MailError
from mailserver.imap.fetch.plan import Item
from mailserver.imap.mailbox_filter import (
    OF_SELECTED,
    WITH_NAMES,
    Filter,
    MailboxFilter,
    NameReader,
)
from mailserver.imap.wire.mailbox_names import Namespace
from mailserver.imap.wire.reader import Reader

MOST_GROUPS: Final = 100


class Event(enum.Enum):
    """The events that are supported, by the name that a client writes."""

    MESSAGE_NEW = "MessageNew"
    MESSAGE_EXPUNGE = "MessageExpunge"
    FLAG_CHANGE = "FlagChange"
    MAILBOX_NAME = "MailboxName"
    SUBSCRIPTION_CHANGE = "SubscriptionChange"
    MAILBOX_METADATA_CHANGE = "MailboxMetadataChange"
    SERVER_METADATA_CHANGE = "ServerMetadataChange"


_EVENTS: Final = {event.value.upper(): event for event in Event}
_FILTERS: Final = {each.value: each for each in Filter if each is not Filter.SUBTREE_ONE}
_OF_MESSAGES: Final = frozenset({Event.MESSAGE_NEW, Event.MESSAGE_EXPUNGE, Event.FLAG_CHANGE})
_UNSUPPORTED_OF_MESSAGES: Final = "ANNOTATIONCHANGE"


class UnsupportedEvent(MailError):
    """An event that this server does not report (RFC 5465 3.1)."""

    imap_code = f"BADEVENT ({' '.join(event.value for event in Event)})"
    text = "that event is not supported"


class TooMuch(MailError):
    """More groups or names than are compared with each change (RFC 5465 3.1)."""

    imap_code = "NOTIFICATIONOVERFLOW"
    text = "too many groups or mailbox names"


@frozen
class Group(MailboxFilter):
    """One event group."""

    events: frozenset[Event]
    items: tuple[Item, ...] = ()
    """What MessageNew asks to be fetched."""


@frozen
class NotifyRequest:
    """NOTIFY SET."""

    status: bool
    """The statuses of the mailboxes are to be sent."""
    selected: Group | None
    others: Sequence[Group]


ReadItems = Callable[[Reader], tuple[Item, ...]]
"""Reads FETCH items in parentheses."""


def read_notify(reader: Reader, namespace: Namespace, read_items: ReadItems) -> NotifyRequest | None:
    """Parse what follows NOTIFY, to its end; None is NOTIFY NONE. Raises: BadSyntax, UnsupportedEvent, TooMuch."""
    reader.read_sp()
    word = reader.read_word()
    if word == "NONE":
        reader.read_end()
        return None
    if word != "SET":
        raise BadSyntax("expected SET or NONE")
    reader.read_sp()
    status = not reader.peek(b"(")
    if status:
        if reader.read_word() != "STATUS":
            raise BadSyntax("expected STATUS or an event group")
        reader.read_sp()
    parser = _GroupParser(reader, namespace, read_items)
    groups = [parser.read()]
    while reader.skip(b" "):
        groups.append(parser.read())
        if len(groups) > MOST_GROUPS:
            raise TooMuch
    reader.read_end()
    selected = [group for group in groups if group.filter in OF_SELECTED]
    if len(selected) > 1:
        raise BadSyntax("SELECTED or SELECTED-DELAYED may stand there once")
    if parser.unsupported:
        raise UnsupportedEvent
    others = tuple(group for group in groups if group.filter not in OF_SELECTED)
    return NotifyRequest(status, selected[0] if selected else None, others)


class _GroupParser:
    def __init__(self, reader: Reader, namespace: Namespace, read_items: ReadItems) -> None:
        self._reader = reader
        self._read_items = read_items
        self._names = NameReader(reader, namespace, TooMuch)
        self.unsupported = False
        """An event was unknown."""

    def read(self) -> Group:
        reader = self._reader
        reader.take(b"(")
        word = reader.read_word()
        which = _FILTERS.get(word)
        if which is None:
            raise BadSyntax("unknown mailboxes of an event group")
        reader.read_sp()
        names: frozenset[str] = frozenset()
        if which in WITH_NAMES:
            names = self._names.read()
            reader.read_sp()
        if not reader.skip(b"("):
            if reader.read_word() != "NONE":
                raise BadSyntax("expected a list of events, or NONE")
            reader.take(b")")
            return Group(which, names, frozenset())
        events: set[Event] = set()
        items: tuple[Item, ...] = ()
        of_messages_alone = True
        while True:
            name = reader.read_word()
            event = _EVENTS.get(name)
            if event is None:
                self.unsupported = True
                of_messages_alone = of_messages_alone and name == _UNSUPPORTED_OF_MESSAGES
            else:
                events.add(event)
            at_end = reader.skip(b")")
            if not at_end:
                reader.read_sp()
                if event is Event.MESSAGE_NEW and reader.peek(b"("):
                    if which not in OF_SELECTED:
                        raise BadSyntax("FETCH items are for the selected mailbox alone")
                    items = self._read_items(reader)
                    at_end = reader.skip(b")")
                    if not at_end:
                        reader.read_sp()
            if at_end:
                break
        reader.take(b")")
        _check(which, events, of_messages_alone=of_messages_alone)
        return Group(which, names, frozenset(events), items)


def _check(which: Filter, events: Collection[Event], *, of_messages_alone: bool) -> None:
    """Raise BadSyntax for events that cannot stand together (RFC 5465 5, 6.1)."""
    if (Event.MESSAGE_NEW in events) != (Event.MESSAGE_EXPUNGE in events):
        raise BadSyntax("MessageNew and MessageExpunge stand together")
    if Event.FLAG_CHANGE in events and Event.MESSAGE_NEW not in events:
        raise BadSyntax("FlagChange needs MessageNew and MessageExpunge")
    if which in OF_SELECTED and not (of_messages_alone and _OF_MESSAGES.issuperset(events)):
        raise BadSyntax("the selected mailbox has events of messages alone")
