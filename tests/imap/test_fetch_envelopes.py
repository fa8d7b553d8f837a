"""ENVELOPE alone is told from what the index keeps; what it does not keep, or not yet, is read."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from mailserver.store.memory import MemoryMailbox
from mailserver.types import UNKNOWN_DATE, UNKNOWN_SIZE
from tests.fakes import Client
from tests.imap.sessions import put, selected, services

ASKED = b"f FETCH 1:4 (UID FLAGS ENVELOPE RFC822.SIZE INTERNALDATE)\r\n"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """Four messages are too many to be remembered."""
    monkeypatch.setattr("mailserver.imap.fetch.response._REMEMBERED", 3)
    made = selected(services())
    for number in range(4):
        put(made, message=b"Subject: number %d\r\n\r\n%b" % (number, b"x" * number))
    made.ask(b"n NOOP\r\n")
    return made


def test_messages_whose_envelopes_are_not_kept_are_read(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    known = client.ask(ASKED)
    assert known.count(b"number ") == 4
    envelopes = MemoryMailbox.envelopes
    asked: list[int] = []

    def partly(self: MemoryMailbox, uids: Any, **_how: Any) -> Any:
        asked.extend(uids)
        return {uid: text for uid, text in envelopes(self, uids).items() if uid != 3}

    monkeypatch.setattr(MemoryMailbox, "envelopes", partly)
    assert client.ask(ASKED) == known
    assert asked == [1, 2, 3, 4]


def test_sizes_and_dates_that_are_not_known_are_found_out(client: Client) -> None:
    known = client.ask(ASKED)
    columns = client.session.mailbox.live.columns
    columns.sizes[1], columns.dates[2] = UNKNOWN_SIZE, UNKNOWN_DATE
    assert client.ask(ASKED) == known


def test_one_that_has_gone_meanwhile_is_left_out(client: Client) -> None:
    account = client.session.account.account
    account.mailbox("INBOX").expunge([2], only_deleted=False)
    answer = client.ask(b"f FETCH 1:4 (ENVELOPE)\r\n")
    assert [b"number %d" % number in answer for number in range(4)] == [True, False, True, True]
    assert b"f NO [EXPUNGEISSUED]" in answer


LINES = b"f FETCH 1:4 (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT TO)] RFC822.SIZE BODY.PEEK[HEADER.FIELDS (DATE)]<0.9>)\r\n"


def test_header_fields_alone_are_answered_from_kept_lines(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    put(client, message=b"To: a\1b\r\nDate: 1 Jan 2024 00:00:00 +0000\r\nSUBJECT : x\r\n y\r\n\r\n")
    client.ask(b"n NOOP\r\n")
    # Another program may have delivered a NUL.
    messages = client.session.account.account.mailbox("INBOX")._messages
    messages[5] = evolve(messages[5], data=messages[5].data.replace(b"\1", b"\0"))
    command = LINES.replace(b"1:4", b"1:5")
    monkeypatch.setattr(MemoryMailbox, "kept_lines", lambda *_arguments, **_how: {})
    one_by_one = client.ask(command)
    monkeypatch.undo()
    monkeypatch.setattr("mailserver.imap.fetch.response._REMEMBERED", 3)
    monkeypatch.setattr(MemoryMailbox, "summaries", lambda *_, **__: pytest.fail("the lines are kept"))
    assert client.ask(command) == one_by_one
    assert b"{28}\r\nTo: a\x80b\r\nSUBJECT : x\r\n y\r\n\r\n RFC822.SIZE" in one_by_one
    assert b"(DATE)]<0> {9}\r\nDate: 1 J)\r\n" in one_by_one


def test_lines_that_are_not_kept_are_read(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    known = client.ask(LINES)
    kept_lines = MemoryMailbox.kept_lines

    def partly(self: MemoryMailbox, uids: Any, **_how: Any) -> Any:
        return {uid: b"*" if uid == 3 else text for uid, text in kept_lines(self, uids).items()}

    monkeypatch.setattr(MemoryMailbox, "kept_lines", partly)
    assert client.ask(LINES) == known
    assert known.count(b"number ") == 4
