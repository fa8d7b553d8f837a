"""APPEND of several messages (RFC 3502): what is kept meanwhile, and where, and what is left when it is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.imap.append import incoming
from mailserver.imap.session import Session
from mailserver.message.render import summarise
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.types import Quota
from tests.fakes import Client, info
from tests.imap.sessions import logged_in, selected, services

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcde\n" * (incoming.PIECE // 10)
SMALL = b"Subject: small\r\n\r\nx\r\n"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    service = services(store=MaildirStore(str(tmp_path), summarise, location="{root}/{local}/Maildir"))
    client = Client(lambda channel: Session(channel, service), info())
    client.send(b"l LOGIN anna@example.test secret\r\ns SELECT INBOX\r\n")
    assert b"s OK" in client.take()
    return client


def files(root: Path, *places: str) -> list[str]:
    return [name for place in places for name in os.listdir(root / "anna" / "Maildir" / place)]


def open_messages(root: Path) -> list[str]:
    """The files below tmp/ that this process has open."""
    paths = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    names = [os.readlink(path) for path in paths if os.path.lexists(path)]
    return [name for name in names if name.startswith(str(root / "anna" / "Maildir" / "tmp"))]


def send(client: Client, *messages: bytes) -> None:
    client.send(b"a APPEND INBOX")
    for message in messages:
        client.send(b" {%d+}\r\n" % len(message))
        for at in range(0, len(message), 60_000):
            client.send(message[at : at + 60_000])


def test_large_and_small_messages_keep_their_order(client: Client, tmp_path: Path) -> None:
    messages = [SMALL, LARGE, SMALL + b"2", LARGE + b"2", SMALL + b"3"]
    send(client, *messages)
    client.send(b"\r\n")
    assert b"a OK [APPENDUID " in (answer := client.take())
    assert b"1:5] appended" in answer
    for uid, message in enumerate(messages, 1):
        text = message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        assert b"{%d}\r\n%b" % (len(text), text) in client.ask(b"f UID FETCH %d BODY.PEEK[]\r\n" % uid)
    assert files(tmp_path, "tmp") == []


def test_memory_and_open_files_are_bounded_while_they_come(client: Client, tmp_path: Path) -> None:
    send(client, *[LARGE] * 8, LARGE[:100_000])
    assert len(files(tmp_path, "tmp")) == 8
    assert len(open_messages(tmp_path)) <= 1
    client.send(b"\r\n")
    assert b"1:9] appended" in client.take()
    assert open_messages(tmp_path) == []


@pytest.mark.parametrize(
    "end", [b" {0+}\r\n", b" (\\Wrong) {5+}\r\n", b"{5+}\r\n", b" {99999999999}\r\n", b" more\r\n", None]
)
def test_nothing_is_kept_of_what_is_refused(client: Client, tmp_path: Path, end: bytes | None) -> None:
    send(client, SMALL, LARGE, SMALL)
    if end is None:
        client.hang_up()
    else:
        client.send(end)
        client.send(b"xxxxx\r\n\r\nz NOOP\r\n")
        assert b"a OK" not in (answer := client.take())
        assert b"z OK" in answer
    assert files(tmp_path, "tmp", "new", "cur") == []
    assert open_messages(tmp_path) == []


def test_there_are_bounds_of_messages_and_octets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "MOST_MESSAGES", 3)
    monkeypatch.setattr(incoming, "MOST_OCTETS", 3000)
    client = selected(services(mail={"max_message_size": 2000}))
    assert b"a OK" in client.ask(b"a APPEND INBOX" + b" {5+}\r\nabcde" * 3 + b"\r\n")
    assert client.ask(b"a APPEND INBOX" + b" {5+}\r\nabcde" * 4 + b"\r\n").startswith(b"a NO [LIMIT] ")
    # The last one is refused before it is asked for.
    text = b" {1200+}\r\n" + b"x" * 1200
    assert client.ask(b"a APPEND INBOX" + text * 2 + b" {600}\r\n").endswith(b"+ OK\r\n")
    client.send(b"x" * 600 + b"\r\n")
    assert b"a OK" in client.take()
    assert client.ask(b"a APPEND INBOX" + text * 2 + b" {601}\r\n").startswith(b"a NO [TOOBIG] ")
    assert client.ask(b"z STATUS INBOX (MESSAGES)\r\n").startswith(b"* STATUS INBOX (MESSAGES 6)")


def test_a_message_beyond_the_quota_is_taken_to_its_end_and_not_kept(client: Client, tmp_path: Path) -> None:
    """The client was asked for it: to stop within it would cost the connection."""
    account = client.session.account
    assert account is not None
    account.quota_as_of = client.session.channel.now()
    account.quota = Quota(storage=2 * len(LARGE))
    huge = SMALL + b"0123456789abcde\n" * 200_000
    client.send(b"a APPEND INBOX {%d+}\r\n" % len(SMALL) + SMALL + b" {%d}\r\n" % len(huge))
    assert client.take() == b"+ OK\r\n"
    for at in range(0, len(huge), 60_000):
        client.send(huge[at : at + 60_000])
        assert sum((tmp_path / "anna" / "Maildir" / "tmp" / name).stat().st_size for name in files(tmp_path, "tmp")) < (
            3 * len(LARGE)
        )
    client.send(b"\r\nz NOOP\r\n")
    answer = client.take()
    assert b"a NO [OVERQUOTA] " in answer
    assert b"z OK" in answer
    assert files(tmp_path, "tmp", "new", "cur") == []
    assert open_messages(tmp_path) == []


def test_the_mailbox_is_looked_up_before_the_first_octet_is_asked_for() -> None:
    client = logged_in(services())
    assert client.ask(b"a APPEND nowhere {10}\r\n").startswith(b"a NO [TRYCREATE] ")
    assert client.ask(b"a APPEND INBOX {10}\r\n") == b"+ OK\r\n"


def test_each_octet_that_is_missing_or_wrong() -> None:
    """Cut at each octet, then a line's end; and each octet replaced. The session answers in step, or has said BYE."""
    line = b'a APPEND INBOX (\\Seen) " 7-Feb-1994 22:43:04 -0800" {4+}\r\nabcd (k) {2+}\r\nef\r\n'
    for at in range(len(line)):
        for data in (line[:at], line[:at] + b"(" + line[at + 1 :], line[:at] + line[at + 1 :]):
            client = logged_in(services())
            client.send(data)
            client.send(b"\r\n" + b"x" * 10 + b"\r\n\r\n")
            client.take()
            assert client.done or client.ask(b"z NOOP\r\n").endswith(b"z OK NOOP completed\r\n"), data


# --- binary content (RFC 3516 4.4)

BINARY = (
    b"Subject: binary\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    + bytes(range(256)) * 2000
)


def test_binary_content_comes_back(client: Client, tmp_path: Path) -> None:
    client.send(b"a APPEND INBOX ~{%d+}\r\n" % len(BINARY))
    for at in range(0, len(BINARY), 60_000):
        client.send(BINARY[at : at + 60_000])
    client.send(b" ~{%d+}\r\n%b {%d+}\r\n%b\r\n" % (len(SMALL), SMALL, len(SMALL), SMALL))
    assert b"1:3] appended" in client.take()
    content = BINARY.partition(b"\r\n\r\n")[2]
    assert b"~{%d}\r\n%b)" % (len(content), content) in client.ask(b"f UID FETCH 1 (UID BINARY.PEEK[1])\r\n")
    assert SMALL in client.ask(b"f UID FETCH 2 BODY.PEEK[]\r\n")
    assert files(tmp_path, "tmp") == []


@pytest.mark.parametrize("large", [False, True])
def test_nul_in_a_header_is_refused_and_nothing_is_kept(client: Client, tmp_path: Path, large: bool) -> None:
    message = b"Subject: \0\r\n\r\n" + b"x" * (2 * incoming.PIECE if large else 10)
    client.send(b"a APPEND INBOX {%d+}\r\n%b ~{%d+}\r\n" % (len(SMALL), SMALL, len(message)))
    for at in range(0, len(message), 60_000):
        client.send(message[at : at + 60_000])
    client.send(b"\r\nz NOOP\r\n")
    assert client.take().startswith(b"a NO [UNKNOWN-CTE] ")
    assert files(tmp_path, "tmp", "new", "cur") == []
    assert open_messages(tmp_path) == []


def test_a_mailbox_is_no_binary_literal() -> None:
    client = logged_in(services())
    assert client.ask(b"a APPEND ~{5+}\r\nINBOX {2+}\r\n\r\n\r\n").startswith(b"a BAD ")
    assert client.ask(b"z NOOP\r\n").endswith(b"z OK NOOP completed\r\n")
