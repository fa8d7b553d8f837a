"""The mailboxes that NOTIFY and ESEARCH name (RFC 5465 6, RFC 7377 2.2): the table of many filters finds what each of them would."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.imap.mailbox_filter import OF_SELECTED, WITH_NAMES, Filter, FilterTable, MailboxFilter
from mailserver.imap.wire.mailbox_names import Namespace

NAMES = ("INBOX", "a", "a/b", "a/b/c", "a/bc", "ab", "b", "b/a/b")


def matches(each: MailboxFilter, name: str, subscribed: Collection[str], separator: str) -> bool:
    """One filter, as the RFCs say it."""
    above = [name[:at] for at, character in enumerate(name) if character == separator]
    match each.filter:
        case Filter.SELECTED | Filter.SELECTED_DELAYED:
            return False
        case Filter.INBOXES | Filter.PERSONAL:
            return True
        case Filter.SUBSCRIBED:
            return name in subscribed
        case Filter.MAILBOXES:
            return name in each.names
        case Filter.SUBTREE:
            return name in each.names or not each.names.isdisjoint(above)
        case Filter.SUBTREE_ONE:
            return name in each.names or bool(above and above[-1] in each.names)


def some_filter(which: Filter, names: frozenset[str]) -> MailboxFilter:
    return MailboxFilter(which, names if which in WITH_NAMES else frozenset())


filters = st.lists(
    st.builds(some_filter, st.sampled_from(Filter), st.frozensets(st.sampled_from(NAMES), min_size=1)), max_size=6
)


@given(filters, st.frozensets(st.sampled_from(NAMES)))
def test_a_table_finds_what_each_filter_would(each: list[MailboxFilter], subscribed: frozenset[str]) -> None:
    table = FilterTable([(one, frozenset((number,))) for number, one in enumerate(each)], Namespace.make("/", ""))
    for name in NAMES:
        expected = {number for number, one in enumerate(each) if matches(one, name, subscribed, "/")}
        assert table.of(name, subscribed) == expected


@pytest.mark.parametrize("which", sorted(OF_SELECTED, key=str))
def test_filters_of_the_selected_mailbox_match_none(which: Filter) -> None:
    table = FilterTable([(MailboxFilter(which, frozenset()), frozenset((1,)))], Namespace.make("/", ""))
    assert not table.of("INBOX", NAMES)


def test_names_are_those_that_clients_write() -> None:
    namespace = Namespace.make(".", "INBOX.")
    table = FilterTable([(MailboxFilter(Filter.SUBTREE, frozenset({"INBOX.a"})), frozenset((1,)))], namespace)
    assert table.of("a", ())
    assert table.of("a/b", ())
    assert not table.of("ab", ())


def test_a_look_up_does_not_grow_with_the_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    namespace = Namespace.make("/", "")
    monkeypatch.setattr(Namespace, "to_client", lambda _self, name: written.append(name) or name)
    many = [
        (MailboxFilter(Filter.SUBTREE, frozenset(f"{kind}{number}" for kind in "xyz")), frozenset((number,)))
        for number in range(100)
    ]
    assert FilterTable(many, namespace).of("a/b/x7", ()) == frozenset()
    assert written == ["a/b/x7"]
