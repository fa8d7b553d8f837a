"""REPLACE (RFC 8508): what is refused before the octets are asked for, what is left of a refused one, and its bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.imap.session import Session
from mailserver.message.render import summarise
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.types import Quota
from tests.fakes import Client, info
from tests.imap.sessions import logged_in, put, selected, services
from tests.imap.test_append_several import LARGE, SMALL, files, open_messages


@pytest.fixture
def client(tmp_path: Path) -> Client:
    service = services(store=MaildirStore(str(tmp_path), summarise, location="{root}/{local}/Maildir"))
    client = Client(lambda channel: Session(channel, service), info())
    client.send(b"l LOGIN anna@example.test secret\r\ns SELECT INBOX\r\n")
    assert b"s OK" in client.take()
    put(client, message=SMALL, flags="(\\Draft)")
    return client


def test_a_large_message_is_streamed(client: Client, tmp_path: Path) -> None:
    client.send(b"a REPLACE 1 INBOX (\\Draft) {%d+}\r\n" % len(LARGE))
    for at in range(0, len(LARGE), 60_000):
        client.send(LARGE[at : at + 60_000])
    assert len(files(tmp_path, "tmp")) == 1
    assert len(files(tmp_path, "cur")) == 1
    client.send(b"\r\n")
    answer = client.take()
    assert b"[APPENDUID " in answer
    assert answer.index(b"[APPENDUID ") < answer.index(b"* 1 EXPUNGE\r\n") < answer.index(b"a OK ")
    assert len(files(tmp_path, "cur", "new")) == 1
    assert files(tmp_path, "tmp") == []
    assert open_messages(tmp_path) == []


@pytest.mark.parametrize("end", [b" {5+}\r\nabcde\r\n", b" x\r\n", b" (\r\n", b" {99999999999}\r\n", None])
def test_nothing_changes_by_what_is_refused(client: Client, tmp_path: Path, end: bytes | None) -> None:
    before = files(tmp_path, "cur", "new")
    client.send(b"a UID REPLACE 1 INBOX {%d+}\r\n" % len(LARGE) + LARGE)
    if end is None:
        client.hang_up()
    else:
        client.send(end + b"\r\n\r\nz NOOP\r\n")
        answer = client.take()
        assert b"a BAD" in answer
        assert b"EXPUNGE" not in answer
    assert files(tmp_path, "cur", "new") == before
    assert files(tmp_path, "tmp") == []
    assert open_messages(tmp_path) == []


def test_what_cannot_be_done_is_refused_before_the_octets_are_asked_for() -> None:
    client = selected(services(mail={"max_message_size": 1000}), messages=2)
    client = logged_in(client.session.services)
    assert client.ask(b"a REPLACE 1 INBOX {10}\r\n").startswith(b"a BAD ")
    client = selected(client.session.services)
    assert client.ask(b"a REPLACE 3 INBOX {10}\r\n").startswith(b"a BAD ")
    assert client.ask(b"a UID REPLACE 99 INBOX {10}\r\n").startswith(b"a NO [EXPUNGEISSUED] ")
    assert client.ask(b"a REPLACE 1 nowhere {10}\r\n").startswith(b"a NO [TRYCREATE] ")
    assert client.ask(b"a REPLACE 1 INBOX {1001}\r\n").startswith(b"a NO [TOOBIG] ")
    assert client.ask(b"a REPLACE 1 INBOX {0}\r\n").startswith(b"a NO ")
    other = selected(client.session.services)
    other.send(b"a STORE 2 +FLAGS.SILENT (\\Deleted)\r\nb EXPUNGE\r\n")
    answer = client.ask(b"a REPLACE 2 INBOX {10}\r\n")
    assert b"a NO [EXPUNGEISSUED] " in answer
    assert b"* 2 EXPUNGE\r\n" in answer
    client.send(b"e EXAMINE INBOX\r\n")
    client.take()
    assert client.ask(b"a REPLACE 1 INBOX {10}\r\n").startswith(b"a NO ")


def test_the_quota_counts_what_the_message_adds() -> None:
    client = selected(services(), messages=0)
    put(client, message=b"x: " + b"a" * 97)
    put(client, message=b"x: " + b"a" * 97)
    client.send(b"s SELECT INBOX\r\n")
    client.take()
    account = client.session.account
    assert account is not None
    account.quota_as_of = client.session.channel.now()
    account.quota = Quota(storage=200, messages=2)
    assert client.ask(b"a REPLACE 1 INBOX {101}\r\n").startswith(b"a NO [OVERQUOTA] ")
    assert client.ask(b"a APPEND INBOX {1}\r\n").startswith(b"a NO [OVERQUOTA] ")
    assert client.ask(b"a REPLACE 1 INBOX {100}\r\n") == b"+ OK\r\n"
    client.send(b"x: " + b"b" * 97 + b"\r\n")
    assert b"a OK" in client.take()
    # Without being asked, too; and by parts.
    assert client.ask(b"a REPLACE 1 INBOX {101+}\r\nx: " + b"b" * 98 + b"\r\n").startswith(b"a NO [OVERQUOTA] ")
    twice = b'(URL ";UID=3" TEXT {1+}\r\nx)'
    assert client.ask(b"a REPLACE 1 INBOX CATENATE " + twice + b"\r\n").startswith(b"a NO [OVERQUOTA] ")
    assert b"b OK" in client.ask(b'b REPLACE 1 INBOX CATENATE (URL ";UID=3/;PARTIAL=0.50")\r\n')


def test_a_client_with_utf8_may_send_its_message_so() -> None:
    client = logged_in(services())
    put(client)
    client.send(b"e ENABLE UTF8=ACCEPT\r\ns SELECT INBOX\r\n")
    client.take()
    data = "Subject: ü\r\n\r\n".encode()
    answer = client.ask(b"a REPLACE 1 INBOX (\\Draft) UTF8 (~{%d+}\r\n%b)\r\n" % (len(data), data))
    assert b"* 1 EXPUNGE\r\n" in answer
    assert b"a OK" in answer
    assert data in client.ask(b"f FETCH 1 BODY[]\r\n")


def test_each_octet_that_is_missing_or_wrong() -> None:
    """Cut at each octet, then a line's end; and each octet replaced or left out. The session answers in step, or says BYE."""
    lines = (
        b'a REPLACE 1 {5+}\r\nINBOX (\\Seen) " 7-Feb-1994 22:43:04 -0800" {4+}\r\nabcd\r\n',
        b'a UID REPLACE * INBOX CATENATE (TEXT {4+}\r\nabcd URL "/INBOX/;UID=1" TEXT ~{2+}\r\ne\0)\r\n',
    )
    for line in lines:
        for at in range(len(line)):
            for data in (line[:at], line[:at] + b"(" + line[at + 1 :], line[:at] + line[at + 1 :]):
                client = selected(services(), messages=1)
                client.send(data)
                client.send(b"\r\n" + b"x" * 10 + b"\r\n\r\n")
                client.take()
                assert client.done or client.ask(b"z NOOP\r\n").endswith(b"z OK NOOP completed\r\n"), data
