"""ESEARCH (RFC 7377) against SELECT and UID SEARCH of each mailbox."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import StoreUnavailable
from mailserver.imap.mailbox_filter import MOST_NAMES
from mailserver.imap.search import sources
from mailserver.store.live import unselected
from mailserver.store.memory import MemoryMailbox
from tests.fakes import Client
from tests.imap.sessions import logged_in, put, services

NAMES = ("INBOX", "Sent", "Trash", "a", "a/b", "a/b/c", "d e", "empty")


def account() -> Client:
    """A client with INBOX selected, and messages in several mailboxes."""
    client = logged_in(services())
    for name in NAMES[3:]:
        assert b"OK" in client.ask(b'c CREATE "%b"\r\n' % name.encode())
    flags = ("", "(\\Seen)", "(\\Flagged work)", "(\\Seen \\Deleted)")
    for number, name in enumerate(NAMES[:-1]):
        for at in range(number + 1):
            put(
                client,
                f'"{name}"',
                b"Subject: %d\r\n\r\n%b\r\n" % (at, b"x" * (100 * number)),
                flags[(at + number) % 4],
            )
    for name in ("a", "gone"):
        client.ask(b"u SUBSCRIBE %b\r\n" % name.encode())
    client.ask(b"s SELECT INBOX\r\n")
    return client


@pytest.fixture(scope="module")
def client() -> Client:
    return account()


def found(answer: bytes) -> dict[str, tuple[str, str]]:
    """(UIDVALIDITY, ALL) by mailbox."""
    pattern = rb'\* ESEARCH \(TAG "\w+" MAILBOX "?([^"]+?)"? UIDVALIDITY (\d+)\) UID ALL ([0-9:,]+)\r\n'
    results = {
        name.decode(): (validity.decode(), uids.decode()) for name, validity, uids in re.findall(pattern, answer)
    }
    assert answer.count(b"* ESEARCH") == len(results)
    return results


KEYS = st.recursive(
    st.sampled_from(
        "ALL SEEN UNSEEN FLAGGED RECENT OLD|NEW|1|2:3|*|1:*|UID 1:2|UID *|UID 3:*|SUBJECT 1|TEXT x|LARGER 150"
        "|SMALLER 300|KEYWORD work|UNKEYWORD work|SINCE 1-Jan-2000|SENTSINCE 1-Jan-2000|OLDER 10|YOUNGER 1000000|$"
        "|SAVEDSINCE 1-Jan-2000|DELETED|BODY xx".replace(
            "ALL SEEN UNSEEN FLAGGED RECENT OLD", "ALL|SEEN|UNSEEN|FLAGGED"
        ).split("|")
    ),
    lambda keys: st.one_of(
        st.builds("NOT {}".format, keys),
        st.builds("OR {} {}".format, keys, keys),
        st.builds("({} {})".format, keys, keys),
    ),
    max_leaves=5,
)
CHOICES = {
    "personal": set(NAMES),
    "inboxes": set(NAMES),
    "selected": {"INBOX"},
    "subscribed": {"a"},
    "subtree a": {"a", "a/b", "a/b/c"},
    "subtree-one a": {"a", "a/b"},
    "subtree-one a/b": {"a/b", "a/b/c"},
    'mailboxes ("d e" gone Inbox)': {"d e", "INBOX"},
    "mailboxes empty": {"empty"},
    "subtree (Sent nowhere)": {"Sent"},
}


@given(chosen=st.sets(st.sampled_from(sorted(CHOICES)), min_size=1, max_size=3), query=KEYS)
@settings(deadline=None)
def test_each_mailbox_has_what_a_search_in_it_finds(client: Client, chosen: set[str], query: str) -> None:
    client.ask(b"s EXAMINE INBOX\r\n")
    answer = client.ask(f"t ESEARCH IN ({' '.join(sorted(chosen))}) {query}\r\n".encode())
    assert b"t OK" in answer
    expected = {}
    for name in NAMES:
        if any(name in CHOICES[each] for each in chosen):
            opened = client.ask(b'e EXAMINE "%b"\r\n' % name.encode())
            validity = re.search(rb"UIDVALIDITY (\d+)", opened)
            result = re.search(
                rb"\* ESEARCH[^\r]* UID ALL ([0-9:,]+)", client.ask(f"f UID SEARCH RETURN (ALL) {query}\r\n".encode())
            )
            if validity and result:
                expected[name] = validity[1].decode(), result[1].decode()
    assert found(answer) == expected


def test_bounds_on_filters_and_names(client: Client) -> None:
    client.ask(b"s SELECT INBOX\r\n")
    many = b" ".join([b"personal"] * sources.MOST_FILTERS)
    assert b"t OK" in client.ask(b"t ESEARCH IN (%b) ALL\r\n" % many)
    assert b"t NO [LIMIT]" in client.ask(b"t ESEARCH IN (%b personal) ALL\r\n" % many)
    names = b" ".join(b"n%d" % number for number in range(MOST_NAMES))
    assert b"t OK" in client.ask(b"t ESEARCH IN (mailboxes (%b)) ALL\r\n" % names)
    assert b"t NO [LIMIT]" in client.ask(b"t ESEARCH IN (mailboxes (%b) mailboxes n) ALL\r\n" % names)


def test_one_mailbox_that_cannot_be_read_is_reported_after_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    client = account()
    start = MemoryMailbox.start_search

    def failing(mailbox: MemoryMailbox, *arguments: object) -> object:
        if mailbox.name == "a/b":
            raise StoreUnavailable("damaged")
        return start(mailbox, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(MemoryMailbox, "start_search", failing)
    answer = client.ask(b"t ESEARCH IN (personal) NOT BODY nothing\r\n")
    assert set(re.findall(rb"MAILBOX \"?([^\" ]+)", answer)) == {b"INBOX", b"Sent", b"Trash", b"a", b"a/b/c", b"d"}
    assert b"t NO [UNAVAILABLE]" in answer


def test_a_mailbox_deleted_meanwhile_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    client = account()
    load = MemoryMailbox.load

    def deleted_first(mailbox: MemoryMailbox) -> object:
        if mailbox.name == "a/b/c":
            account = client.session.account
            assert account is not None
            account.account.delete("a/b/c")
        return load(mailbox)

    monkeypatch.setattr(MemoryMailbox, "load", deleted_first)
    answer = client.ask(b"t ESEARCH IN (subtree a) RETURN (COUNT) ALL\r\n")
    assert re.findall(rb'MAILBOX "(\S+)"', answer) == [b"a", b"a/b"]
    assert b"t OK" in answer


def test_mailboxes_are_loaded_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    client = account()
    before = client.ask(b"t ESEARCH IN (personal) ALL\r\n")
    monkeypatch.setattr(unselected, "LOADED", 1)
    assert client.ask(b"t ESEARCH IN (personal) ALL\r\n") == before


def test_nothing_stays_open(client: Client) -> None:
    client.ask(b"s SELECT INBOX\r\n")
    account = client.session.account
    assert account is not None
    names = set(account._names)
    client.ask(b"t ESEARCH IN (personal) TEXT x\r\n")
    assert set(account._names) == names


def test_updates_name_the_mailbox_as_it_is_called_now() -> None:
    service = services()
    client = logged_in(service)
    client.ask(b"c CREATE old\r\n")
    client.ask(b"s SELECT old\r\n")
    assert b"t OK" in client.ask(b"t ESEARCH RETURN (UPDATE ALL) SEEN\r\n")
    assert b"r OK" in client.ask(b"r RENAME old new\r\n")
    assert b'* ESEARCH (TAG "t" MAILBOX "new" UIDVALIDITY' in put(client, "new", flags="(\\Seen)")
