"""ENVELOPE alone is told from what the index keeps; what it does not keep, or not yet, is read."""

from __future__ import annotations

from typing import Any

import pytest

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
