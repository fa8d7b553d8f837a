"""Corners of single commands that no transcript reaches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import AuthorizationFailed, InUse, NoSuchMailbox
from mailserver.store.live import LiveMailbox
from tests.fakes import FakeAuthenticator
from tests.imap.sessions import connect, logged_in, put, selected, services


def test_a_mailbox_that_vanishes_during_append(monkeypatch: pytest.MonkeyPatch) -> None:
    client = logged_in(services())
    client.ask(b"a CREATE x\r\n")
    client.send(b"a APPEND x {6}\r\nA: ")
    client.session.account.account.delete("x")
    assert client.ask(b"b\r\n\r\n").endswith(b"a NO [TRYCREATE] no such mailbox\r\n")
    monkeypatch.undo()


@pytest.mark.parametrize(
    "date", ["13-Dec-1901 20:45:52 +0000", "10-May-2446 22:38:55 +0000", "31-Dec-2261 23:59:59 +0000"]
)
def test_an_internal_date_is_kept_as_given(date: str) -> None:
    client = selected(services())
    assert b"a OK" in client.ask(b'a APPEND INBOX "%b" {6+}\r\nA: b\r\n\r\n' % date.encode())
    assert b'INTERNALDATE "%b"' % date.encode() in client.ask(b"b FETCH 1 INTERNALDATE\r\n")


@pytest.mark.parametrize(
    "date", ["13-Dec-1901 20:45:51 +0000", "10-May-2446 22:38:56 +0000", "31-Dec-9999 23:59:59 +0000"]
)
def test_an_internal_date_that_no_file_can_keep_is_refused(date: str) -> None:
    """RFC 3501 6.3.11: "NO - append error: ... error in flags or date/time"."""
    client = selected(services())
    assert client.ask(b'a APPEND INBOX "%b" {6}\r\n' % date.encode()).startswith(b"a NO [CANNOT] ")
    assert client.ask(b'b APPEND INBOX "%b" {6+}\r\nA: b\r\n\r\n' % date.encode()).startswith(b"b NO [CANNOT] ")
    assert b"0 EXISTS" not in client.ask(b"c NOOP\r\n")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("ab:{}+ é", max_size=30), max_size=20), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_a_message_arrives_as_it_was_sent(lines: list[str], sizes: list[int]) -> None:
    message = b"Subject: x\r\n\r\n" + "".join(f"{line}\r\n" for line in lines).encode()
    client = selected(services())
    data = b"a APPEND INBOX {%d+}\r\n%b\r\nb NOOP\r\n" % (len(message), message)
    at = number = 0
    while at < len(data):
        size = sizes[number % len(sizes)]
        client.send(data[at : at + size])
        at, number = at + size, number + 1
    assert b"b OK" in client.take()
    assert b"{%d}\r\n%b)\r\n" % (len(message), message) in client.ask(b"f FETCH 1 BODY.PEEK[]\r\n")


def test_select_gives_back_what_it_cannot_open(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services()
    client = selected(service)
    live = client.session.selected.live

    def busy(*_arguments: object) -> None:
        raise InUse

    monkeypatch.setattr(live.mailbox, "claim_recent", busy)
    assert client.ask(b"a SELECT INBOX\r\n").endswith(
        b"a NO [INUSE] another program is using the mailbox, try again\r\n"
    )
    assert live.users == 0
    assert client.session.selected is None
    assert client.ask(b"a EXAMINE INBOX\r\n").endswith(b"a OK [READ-ONLY] opened read-only\r\n")


def test_close_leaves_the_mailbox_even_when_it_cannot_expunge(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=1)
    client.ask(b"a STORE 1 +FLAGS (\\Deleted)\r\n")
    live = client.session.selected.live

    def busy(*_arguments: object, **_options: object) -> None:
        raise InUse

    monkeypatch.setattr(live.mailbox, "expunge", busy)
    assert client.ask(b"a CLOSE\r\n").startswith(b"a NO [INUSE] ")
    assert client.session.selected is None
    assert live.users == 0


def test_store_of_many_messages_waits_for_the_client_between_chunks() -> None:
    client = selected(services())
    account = client.session.account.account
    for _ in range(2100):
        account.mailbox("INBOX").add([(b"A: b\r\n\r\n", (), 0)])
    client.send(b"a NOOP\r\n")
    client.session.selected.live.poked()
    client.send(b"a NOOP\r\n")
    assert b"* 2100 EXISTS" in client.take()
    before = client.channel.drains
    answer = client.ask(b"a STORE 1:* +FLAGS (\\Seen)\r\n")
    assert answer.count(b" FETCH ") == 2100
    assert client.channel.drains - before >= 2


@pytest.mark.parametrize(
    "arguments",
    [b"(FOO (\\Sent))", b"(USE)", b"USE (\\Sent)", b"(USE (\\Sent \\Trash)", b"(USE (\\Sent\\Trash))", b"(USE (Sent))"],
)
def test_create_parameters(arguments: bytes) -> None:
    client = logged_in(services())
    assert client.ask(b"a CREATE x " + arguments + b"\r\n").startswith((b"a BAD ", b"a NO [USEATTR] "))
    assert client.ask(b'a LIST "" x\r\n') == b"a OK LIST completed\r\n"


def test_create_with_two_uses() -> None:
    client = logged_in(services())
    assert client.ask(b"a CREATE x (USE (\\Archive \\junk))\r\n").startswith(b"a OK")
    assert b'(\\HasNoChildren \\Archive \\Junk) "/" "x"' in client.ask(b'a LIST "" x\r\n')


@pytest.mark.parametrize(
    "pairs",
    [
        b'("name" "%b")' % (b"x" * 1025),
        b'("%b" "x")' % (b"n" * 31),
        b"(" + b" ".join(b'"n%d" NIL' % number for number in range(31)) + b")",
    ],
)
def test_id_is_bounded(pairs: bytes) -> None:
    """RFC 2971 3.3."""
    client = connect(services())
    client.take()
    assert client.ask(b"a ID " + pairs + b"\r\n").startswith(b"a BAD ")


def test_id_is_logged_but_not_at_length() -> None:
    client = connect(services())
    client.send(b'a ID ("name" "%b" "x" "y")\r\n' % (b"x" * 1000))
    ((event, fields),) = client.channel.logged
    assert event == "client"
    assert len(str(fields["id"])) <= 256


def test_only_the_first_id_is_logged() -> None:
    """Anybody can send any number of them, and each line costs room on the disk."""
    client = connect(services())
    for number in range(3):
        client.send(b'a ID NIL\r\na ID ("name" "%d")\r\n' % number)
    assert [fields["id"] for _event, fields in client.channel.logged] == ["name=0"]
    assert client.take().count(b"a OK ") == 6


def test_authorization_for_somebody_else() -> None:
    """RFC 4616 2: the name to act for comes first."""
    client = connect(services(authenticator=FakeAuthenticator()))
    client.take()
    answer = client.ask(b"a AUTHENTICATE PLAIN YmVydEBleGFtcGxlLm9yZwBhbm5hQGV4YW1wbGUudGVzdABzZWNyZXQ=\r\n")
    assert answer.startswith(f"a NO [{AuthorizationFailed.imap_code}] ".encode())


def test_delete_of_the_selected_mailbox_leaves_none() -> None:
    client = selected(services())
    client.ask(b"a CREATE x\r\n")
    client.ask(b"a SELECT x\r\n")
    assert (
        client.ask(b"a DELETE x\r\n") == b"* OK [CLOSED] the selected mailbox is deleted\r\na OK DELETE completed\r\n"
    )
    assert client.ask(b"a SELECT INBOX\r\n").endswith(b"a OK [READ-WRITE] opened\r\n")


def test_rename_of_the_selected_mailbox_keeps_it_open() -> None:
    client = selected(services())
    client.ask(b"a CREATE x\r\n")
    put(client, "x")
    client.ask(b"a SELECT x\r\n")
    assert client.ask(b"a RENAME x y\r\n") == b"a OK RENAME completed\r\n"
    assert b"* 1 FETCH" in client.ask(b"a FETCH 1 FLAGS\r\n")
    with pytest.raises(NoSuchMailbox):
        client.session.account.account.mailbox("x")


@pytest.mark.parametrize("line", [b"a X\r\n", b"DONE {5}\r\n", b"DONE {5+}\r\nabcde\r\n", b"\r\n"])
def test_idle_ends_with_done_only(line: bytes) -> None:
    client = logged_in(services())
    client.ask(b"a IDLE\r\n")
    assert client.ask(line).startswith(b"a BAD ")
    assert client.ask(b"b NOOP\r\n").endswith(b"b OK NOOP completed\r\n")


@pytest.mark.parametrize("line", [b"{5}\r\n", b"\xff\r\n", b"QUJ\r\n", b"QU JD\r\n", b"QUJD=\r\n"])
def test_authenticate_takes_base64_only(line: bytes) -> None:
    client = connect(services())
    client.take()
    client.ask(b"a AUTHENTICATE PLAIN\r\n")
    assert client.ask(line).startswith(b"a BAD ")
    assert client.ask(b"b NOOP\r\n") == b"b OK NOOP completed\r\n"


def test_a_change_says_how_many_messages_it_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a mailbox is not watched while many of its messages are changed from here."""
    said: list[int] = []
    change = LiveMailbox.change

    async def recorded(self: LiveMailbox, operation: Any, messages: int = 1) -> Any:
        said.append(messages)
        return await change(self, operation, messages)

    monkeypatch.setattr(LiveMailbox, "change", recorded)
    client = selected(services(), messages=9)
    client.ask(b"c CREATE x\r\n")
    client.ask(b"f FETCH 1:8 BODY[]\r\n")
    client.ask(b"s STORE 1:7 +FLAGS (\\Deleted)\r\n")
    client.ask(b"m MOVE 1:2 x\r\n")
    client.ask(b"e UID EXPUNGE 3:5\r\n")
    assert b"c OK" in client.ask(b"c CLOSE\r\n")
    assert said == [8, 7, 2, 3, 2]


def test_others_have_their_turn_while_names_are_matched() -> None:
    """A pattern may have a thousand wildcards, and an account ten thousand mailboxes."""
    client = logged_in(services())
    for number in range(200):
        client.ask(b"c CREATE box%d\r\nd SUBSCRIBE box%d\r\n" % (number, number))
    drains = []
    for command in (b'LIST "" *', b'LSUB "" *', b'LIST "" nothing'):
        before = client.channel.drains
        answer = client.ask(b"l %b\r\n" % command)
        assert answer.count(b"box") == (0 if b"nothing" in command else 200)
        drains.append(client.channel.drains - before)
    assert min(drains) >= 3
