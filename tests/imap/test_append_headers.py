"""APPEND of messages with headers that are too large: NO [TOOBIG], nothing kept, and the session goes on in step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.imap.session import Session
from mailserver.message.limits import MAX_HEADER
from mailserver.message.render import summarise
from mailserver.store.maildir.account.store import MaildirStore
from tests.fakes import Client, info
from tests.imap.sessions import services

LINE = b"X-Line: " + b"y" * 62 + b"\r\n"
COUNT = MAX_HEADER // len(LINE) + 1
PART = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
LARGE = {
    "its own": LINE * COUNT + b"\r\nx\r\n",
    "its own, and much behind it": LINE * COUNT + b"\r\n" + b"x" * 3_000_000,
    "without end": b"y" * (MAX_HEADER + 1),
    "of a part": PART + LINE * COUNT + b"\r\nx\r\n",
    "of a message": b"Content-Type: message/rfc822\r\n\r\n" + LINE * COUNT + b"\r\n",
    "with Unix line ends": b"a:b\n" * 60_000 + b"\n",
}


@pytest.fixture
def client(tmp_path: Path) -> Client:
    service = services(store=MaildirStore(str(tmp_path), summarise, location="{root}/{local}/Maildir"))
    client = Client(lambda channel: Session(channel, service), info())
    client.send(b"l LOGIN anna@example.test secret\r\ns SELECT INBOX\r\n")
    assert b"s OK" in client.take()
    return client


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("name", LARGE)
def test_it_is_refused(client: Client, tmp_path: Path, name: str, waits: bool) -> None:
    message = LARGE[name]
    if waits:
        assert client.ask(b"a APPEND INBOX {%d}\r\n" % len(message)) == b"+ OK\r\n"
    else:
        client.send(b"a APPEND INBOX {%d+}\r\n" % len(message))
    for at in range(0, len(message), 60_000):
        client.send(message[at : at + 60_000])
    client.send(b"\r\nb NOOP\r\n")
    refused, done, end = client.take().split(b"\r\n")
    assert refused.startswith(b"a NO [TOOBIG]")
    assert (done, end) == (b"b OK NOOP completed", b"")
    root = tmp_path / "anna" / "Maildir"
    assert [name for place in ("tmp", "new", "cur") for name in os.listdir(root / place)] == []


def test_the_largest_is_kept(client: Client) -> None:
    message = LINE * (COUNT - 2) + b"\r\nx\r\n"
    assert b"a OK" in client.ask(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(message), message))
