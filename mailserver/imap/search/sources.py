"""The mailboxes that ESEARCH searches: its source options (RFC 7377 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mailserver.errors import BadSyntax, LimitReached, WrongState
from mailserver.imap.mailbox_filter import OF_SELECTED, WITH_NAMES, Filter, FilterTable, MailboxFilter, NameReader
from mailserver.imap.session import Session
from mailserver.imap.wire.mailbox_names import Namespace
from mailserver.imap.wire.reader import Reader

MOST_FILTERS: Final = 100
_FILTERS: Final = {each.value: each for each in Filter if each is not Filter.SELECTED_DELAYED}
_AT_ONCE: Final = 64
"""Names that are matched before other clients have their turn."""

SELECTED: Final = frozenset({MailboxFilter(Filter.SELECTED, frozenset())})
"""The source options where there are none."""

Sources = frozenset[MailboxFilter]


def read_sources(reader: Reader, namespace: Namespace) -> Sources:
    """The list in parentheses behind IN. Raises: BadSyntax, LimitReached."""
    names = NameReader(reader, namespace, _too_many)
    reader.take(b"(")
    filters = {_read_filter(reader, names)}
    count = 1
    while reader.skip(b" "):
        if reader.peek(b"("):
            raise BadSyntax("unknown scope option")
        filters.add(_read_filter(reader, names))
        count += 1
        if count > MOST_FILTERS:
            raise _too_many()
    reader.take(b")")
    return frozenset(filters)


def _too_many() -> LimitReached:
    return LimitReached("too many mailboxes are named")


def _read_filter(reader: Reader, names: NameReader) -> MailboxFilter:
    which = _FILTERS.get(reader.read_word())
    if which is None:
        raise BadSyntax("unknown mailboxes")
    if which not in WITH_NAMES:
        return MailboxFilter(which, frozenset())
    reader.read_sp()
    return MailboxFilter(which, names.read())


def check_state(session: Session, sources: Sources) -> None:
    """Refuse the selected mailbox where none is selected. Raises: WrongState."""
    if session.selected is None and any(each.filter in OF_SELECTED for each in sources):
        raise WrongState("no mailbox is selected")


async def names_of(session: Session, sources: Sources) -> Sequence[str]:
    """The mailboxes of the store, each once, in the order of LIST. Those that do not exist are left out."""
    selected = session.mailbox_name if sources >= SELECTED else None
    others = sources - SELECTED
    if not others:
        return [] if selected is None else [selected]
    account = session.account
    assert account is not None
    listed = await account.mailbox_list()
    table = FilterTable(((each, frozenset((each.filter,))) for each in others), session.services.namespace)
    found: list[str] = []
    for start in range(0, len(listed.infos), _AT_ONCE):
        if start:
            await session.channel.drain()
        found += [
            info.name
            for info in listed.infos[start : start + _AT_ONCE]
            if info.name == selected or (info.selectable and table.of(info.name, listed.subscribed))
        ]
    if selected is not None and selected not in found:
        found.insert(0, selected)
    return found
