"""One key many times in a search: `$`, \\Recent and identifiers may stand for very many ranges, which are found once."""

from __future__ import annotations

from array import array

import pytest

from mailserver.imap.search import columns, keys, objects
from tests.imap.sessions import put, selected, services

MESSAGES = 9


@pytest.mark.parametrize(
    ("search", "found"),
    [
        (b"$ " * 50, b"1 3 5 7"),
        (b"NOT $ " * 50, b"2 4 6 8 9"),
        (b"OR $ UID $ " * 20, b"1 3 5 7"),
        (b"NOT $ OR $ 4 " * 20, b"4"),
    ],
)
def test_the_saved_result_is_divided_into_ranges_once(
    monkeypatch: pytest.MonkeyPatch, search: bytes, found: bytes
) -> None:
    client = selected(services(), messages=MESSAGES)
    client.session.saved_result = array("I", [1, 3, 5, 7])
    divided: list[object] = []
    placed: list[object] = []
    runs, positions = keys.runs, columns._positions
    monkeypatch.setattr(keys, "runs", lambda uids: divided.append(uids) or runs(uids))
    monkeypatch.setattr(columns, "_positions", lambda view, pairs: placed.append(pairs) or positions(view, pairs))
    assert client.ask(b"a SEARCH " + search.rstrip() + b"\r\n").startswith(b"* SEARCH " + found + b"\r\n")
    assert len(divided) == 1
    assert len(placed) <= 1


def test_recent_messages_and_their_complement_are_two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services())
    put(client)
    placed: list[object] = []
    positions = columns._positions
    monkeypatch.setattr(columns, "_positions", lambda view, pairs: placed.append(pairs) or positions(view, pairs))
    assert client.ask(b"a SEARCH RECENT NEW RECENT\r\n").startswith(b"* SEARCH 1\r\n")
    assert client.ask(b"a SEARCH OLD RECENT\r\n").startswith(b"* SEARCH\r\n")
    assert len(placed) == 3


def test_an_identifier_is_divided_into_ranges_once(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=MESSAGES)
    name = client.ask(b"a FETCH 4 EMAILID\r\n").partition(b"EMAILID (")[2].partition(b")")[0]
    divided: list[object] = []
    ranges = objects._ranges
    monkeypatch.setattr(objects, "_ranges", lambda uids: divided.append(uids) or ranges(uids))
    answer = client.ask(b"a SEARCH OR EMAILID %b NOT EMAILID %b EMAILID %b\r\n" % (name, name, name))
    assert answer.startswith(b"* SEARCH 4\r\n")
    assert len(divided) == 1


def test_several_mailboxes_have_each_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=MESSAGES)
    client.ask(b"a CREATE other\r\n")
    client.session.saved_result = array("I", [1, 3, 5, 7])
    divided: list[object] = []
    runs = keys.runs
    monkeypatch.setattr(keys, "runs", lambda uids: divided.append(uids) or runs(uids))
    answer = client.ask(b"a ESEARCH IN (selected personal) RETURN (COUNT) $ $ NOT 3 $\r\n")
    assert answer.count(b"* ESEARCH ") == 1
    assert b" COUNT 3\r\n" in answer
    assert len(divided) == 1
