"""A session with some messages, and what FETCH answers in it."""

from __future__ import annotations

import re

import pytest

from mailserver.store.live import LiveMailbox
from mailserver.store.memory import MemoryMessage
from mailserver.store.receiving import NewMessage
from tests.corpus import crlf
from tests.fakes import Client
from tests.imap.sessions import logged_in, put, services

NESTED = crlf(
    b"From: anna@example.test\nSubject: outer\nX-Other: one\n two\n"
    b"Content-Type: multipart/mixed; boundary=a\n\npreamble\n"
    b"--a\nContent-Type: text/plain\n\nfirst\n"
    b"--a\nContent-Type: message/rfc822\n\n"
    b"Subject: inner\nTo: bert@example.test\nContent-Type: multipart/alternative; boundary=b\n\n"
    b"--b\n\ninner one\n--b\nContent-Type: text/html\n\n<p>\n--b--\n"
    b"--a\nContent-Type: message/rfc822\n\nSubject: plain\n\nplain body\n"
    b"--a--\n"
)


def ask(client: Client, command: bytes) -> bytes:
    """Untagged answers; the command must succeed."""
    answer = client.ask(b"t %b\r\n" % command)
    untagged, found, tagged = answer.rpartition(b"t OK ")
    assert found, answer
    assert tagged.endswith(b"completed\r\n"), answer
    return untagged


def opened(*messages: bytes, examine: bool = False) -> Client:
    client = logged_in(services())
    for message in messages:
        put(client, message=message)
    assert b"s OK" in client.ask(b"s %b INBOX\r\n" % (b"EXAMINE" if examine else b"SELECT"))
    return client


def put_foreign(client: Client, message: bytes) -> None:
    """Into the INBOX, which is open, as other programs do, that have limits of their own."""
    account = client.session.account.account
    staged = account.stage()
    staged.write(message)
    account.append("INBOX", [NewMessage(staged)])
    client.session.mailbox.live.poked()
    client.ask(b"n NOOP\r\n")


def live_mailbox(client: Client) -> LiveMailbox:
    return client.session.mailbox.live


LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * (1 << 17)


def section(client: Client, text: bytes) -> bytes:
    """The octets of one BODY.PEEK[...] of message 1."""
    answer = ask(client, b"FETCH 1 BODY.PEEK" + text)
    match = re.match(rb"\* 1 FETCH \(BODY\[[^\r\n]*?(?:<\d+>)? \{(\d+)\}\r\n", answer)
    assert match, answer
    end = match.end() + int(match[1])
    assert answer[end:] == b")\r\n", answer
    return answer[match.end() : end]


def sizes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many octets each reading of a message gives from now on."""
    sizes: list[int] = []
    read = MemoryMessage.read

    def recorded(self: MemoryMessage, offset: int = 0, count: int | None = None) -> bytes:
        data = read(self, offset, count)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(MemoryMessage, "read", recorded)
    return sizes
