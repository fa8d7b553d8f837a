"""FETCH items of UPDATE (RFC 5465 7): each new message of a result has one FETCH response, with all items that are wanted."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mailserver.imap.commands.fetch import MAX_ITEMS
from tests.fakes import Client
from tests.imap.sessions import logged_in, put, selected, services

FETCH = re.compile(rb"\* (\d+) FETCH \((.*)\)")
ITEMS = (b"UID", b"FLAGS", b"RFC822.SIZE", b"INTERNALDATE")


def news(client: Client) -> list[bytes]:
    """What the client is sent by NOOP, without the tagged answer and RECENT."""
    lines = client.ask(b"n NOOP\r\n").splitlines()
    return [line for line in lines[:-1] if not line.endswith(b"RECENT")]


def test_fetch_comes_between_exists_and_addto() -> None:
    service = services()
    client, other = selected(service), logged_in(service)
    client.ask(b"s SORT RETURN (UPDATE (UID)) (REVERSE SIZE) UTF-8 ALL\r\n")
    client.ask(b"q UID SEARCH RETURN (UPDATE (FLAGS)) SEEN\r\n")
    put(other)
    put(other, flags="(\\Seen)")
    assert news(client) == [
        b"* 2 EXISTS",
        b"* 1 FETCH (UID 1)",
        b"* 2 FETCH (UID 2 FLAGS (\\Seen \\Recent))",
        b'* ESEARCH (TAG "s") ADDTO (1 1:2)',
        b'* ESEARCH (TAG "q") UID ADDTO (0 2)',
    ]


def test_uidonly_and_modseq() -> None:
    service = services()
    client, other = selected(service), logged_in(service)
    client.ask(b"e ENABLE UIDONLY\r\n")
    client.ask(b"q UID SEARCH RETURN (UPDATE (FLAGS MODSEQ)) ALL\r\n")
    put(other)
    assert news(client)[1:] == [
        b"* 1 UIDFETCH (FLAGS (\\Recent) MODSEQ (2))",
        b'* ESEARCH (TAG "q") UID ADDTO (0 1)',
    ]
    assert b"HIGHESTMODSEQ" in client.ask(b"n STATUS INBOX (HIGHESTMODSEQ)\r\n")


def test_too_many_items_are_refused() -> None:
    client = selected(services())
    items = b" ".join(b"BODY.PEEK[%d]" % number for number in range(1, MAX_ITEMS + 2))
    assert client.ask(b"q SEARCH RETURN (UPDATE (%b)) ALL\r\n" % items).startswith(b"q NO [LIMIT] ")
    assert client.ask(b'c CANCELUPDATE "q"\r\n').startswith(b"c NO ")


def test_without_context_there_is_no_fetch() -> None:
    service = services()
    client, other = selected(service), logged_in(service)
    client.ask(b"q SEARCH RETURN (UPDATE (UID)) ALL\r\n")
    client.ask(b'c CANCELUPDATE "q"\r\n')
    put(other)
    assert news(client) == [b"* 1 EXISTS"]


CONTEXTS = st.lists(st.tuples(st.sampled_from(["ALL", "SEEN", "UNSEEN"]), st.sets(st.sampled_from(ITEMS))), max_size=4)
MESSAGES = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=6)
"""Appended by the client itself, \\Seen, followed by NOOP."""


@given(CONTEXTS, st.sets(st.sampled_from(ITEMS)), MESSAGES)
def test_each_new_message_has_one_response_with_all_items_that_are_wanted(
    contexts: list[tuple[str, set[bytes]]], of_notify: set[bytes], messages: list[tuple[bool, bool, bool]]
) -> None:
    service = services()
    client, other = selected(service), logged_in(service)
    for number, (key, items) in enumerate(contexts):
        wanted = b" (%b)" % b" ".join(sorted(items)) if items else b""
        answer = client.ask(b"c%d SEARCH RETURN (UPDATE%b) %b\r\n" % (number, wanted, key.encode("ascii")))
        assert b"OK" in answer
    if of_notify:
        wanted = b" ".join(sorted(of_notify))
        client.ask(b"n NOTIFY SET (selected (MessageNew (%b) MessageExpunge FlagChange))\r\n" % wanted)
    expected: dict[int, set[bytes]] = {}
    sent = b""
    for number, (own, seen, then_noop) in enumerate(messages, 1):
        sent += put(client if own else other, flags="(\\Seen)" if seen else "")
        matching = [items for key, items in contexts if key in ("ALL", "SEEN" if seen else "UNSEEN")]
        items = set().union(of_notify, *matching)
        if items and not own:
            expected[number] = items
        if then_noop:
            sent += client.ask(b"n NOOP\r\n")
    client.settle()
    sent += client.take() + client.ask(b"n NOOP\r\n")
    fetched = [found for line in sent.splitlines() if (found := FETCH.fullmatch(line))]
    assert sorted(int(found[1]) for found in fetched) == sorted(expected)
    for found in fetched:
        assert {item for item in ITEMS if re.search(rb"(?:^| )%b " % item, found[2])} == expected[int(found[1])]
