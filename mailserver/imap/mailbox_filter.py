"""The mailboxes that NOTIFY and ESEARCH name: filter-mailboxes (RFC 5465 6, RFC 7377 2.2)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable
from typing import Final, Generic, TypeVar

from attrs import frozen

from mailserver.errors import BadMailboxName, MailError, NoSuchMailbox
from mailserver.imap.wire.mailbox_names import Namespace
from mailserver.imap.wire.reader import Reader

T = TypeVar("T")

MOST_NAMES: Final = 1000
"""Of mailboxes, in all filters of a command together."""


class Filter(enum.Enum):
    """A way to choose mailboxes; INBOXES and PERSONAL are the same, as mail can be delivered to any mailbox (RFC 5465 6.3)."""

    SELECTED = "SELECTED"
    SELECTED_DELAYED = "SELECTED-DELAYED"
    INBOXES = "INBOXES"
    PERSONAL = "PERSONAL"
    SUBSCRIBED = "SUBSCRIBED"
    SUBTREE = "SUBTREE"
    SUBTREE_ONE = "SUBTREE-ONE"
    MAILBOXES = "MAILBOXES"


OF_SELECTED: Final = frozenset({Filter.SELECTED, Filter.SELECTED_DELAYED})
WITH_NAMES: Final = frozenset({Filter.SUBTREE, Filter.SUBTREE_ONE, Filter.MAILBOXES})


@frozen
class MailboxFilter:
    """One filter, with its names."""

    filter: Filter
    names: frozenset[str]
    """Of WITH_NAMES, as clients write them."""


class FilterTable(Generic[T]):
    """What many filters stand for, united for each mailbox. A look-up takes the time of the name's levels, however many filters there are."""

    def __init__(self, filters: Iterable[tuple[MailboxFilter, frozenset[T]]], namespace: Namespace) -> None:
        """`filters`: each with what it stands for. Those of the selected mailbox match nothing here."""
        self._namespace = namespace
        self._of_all: frozenset[T] = frozenset()
        self._of_subscribed: frozenset[T] = frozenset()
        self._named: dict[str, frozenset[T]] = {}
        self._children: dict[str, frozenset[T]] = {}
        """By the name of the level above."""
        self._below: dict[str, frozenset[T]] = {}
        """By the name of any level above."""
        for each, meaning in filters:
            self._add(each, meaning)

    def _add(self, each: MailboxFilter, meaning: frozenset[T]) -> None:
        if each.filter is Filter.SUBSCRIBED:
            self._of_subscribed |= meaning
        elif each.filter not in WITH_NAMES:
            if each.filter not in OF_SELECTED:
                self._of_all |= meaning
        else:
            tables = [self._named]
            if each.filter is not Filter.MAILBOXES:
                tables.append(self._below if each.filter is Filter.SUBTREE else self._children)
            for table in tables:
                for name in each.names:
                    table[name] = table.get(name, meaning) | meaning

    def of(self, name: str, subscribed: Collection[str]) -> frozenset[T]:
        """Return what the filters that match a mailbox of the store stand for, selected or not."""
        found = self._of_all
        if self._of_subscribed and name in subscribed:
            found |= self._of_subscribed
        if not self._named:
            return found
        written = self._namespace.to_client(name)
        found |= self._named.get(written, found)
        at = written.rfind(self._namespace.separator)
        if at > 0:
            found |= self._children.get(written[:at], found)
        while at > 0:
            found |= self._below.get(written[:at], found)
            at = written.rfind(self._namespace.separator, 0, at)
        return found


class NameReader:
    """Reads the names of all filters of a command."""

    def __init__(self, reader: Reader, namespace: Namespace, too_many: Callable[[], MailError]) -> None:
        """`too_many` makes the refusal of more than MOST_NAMES."""
        self._reader = reader
        self._namespace = namespace
        self._too_many = too_many
        self._count = 0

    def read(self) -> frozenset[str]:
        """one-or-more-mailbox (RFC 5465 8). Raises: BadSyntax, and what `too_many` makes."""
        reader = self._reader
        if not reader.skip(b"("):
            return frozenset((self._read_name(),))
        names = {self._read_name()}
        while reader.skip(b" "):
            names.add(self._read_name())
        reader.take(b")")
        return frozenset(names)

    def _read_name(self) -> str:
        """A name as `Namespace.to_client` writes it; one that no mailbox can have is as good as any other (RFC 5465 3.1)."""
        self._count += 1
        if self._count > MOST_NAMES:
            raise self._too_many()
        try:
            name = self._reader.read_mailbox()
        except BadMailboxName:
            return ""
        try:
            return self._namespace.to_client(self._namespace.to_store(name))
        except (BadMailboxName, NoSuchMailbox):
            return name
