"""Hostile messages: read over IMAP and POP3 in bounded time and memory, with well-formed answers."""

from __future__ import annotations

import socket
import termios
import threading
import time

import pytest

from mailserver.message.headers import header_end
from mailserver.message.limits import MAX_HEADER
from tests.hostile.conftest import LARGEST
from tests.hostile.wire import deliver, log_in, put_foreign, until_stalled
from tests.server import Server
from tests.sweeps import choose

LIGATURES = choose(400_000, whole=1_200_000)
ITEMS = (
    b"BODYSTRUCTURE", b"BODY", b"ENVELOPE", b"RFC822.SIZE", b"BODY.PEEK[HEADER]", b"BODY.PEEK[HEADER.FIELDS (SUBJECT X-Y FROM)]",
    b"BODY.PEEK[HEADER.FIELDS.NOT (SUBJECT)]<0.1000>", b"BODY.PEEK[1]<0.10>", b"BODY.PEEK[1.MIME]", b"BODY.PEEK[1.1.1.1]<0.10>",
    b"BODY.PEEK[" + b".".join([b"1"] * 5000) + b"]<0.10>", b"BODY.PEEK[99999]<0.10>", b"BODY.PEEK[4294967295]",
    b"BODY.PEEK[TEXT]<0.10>", b"BODY.PEEK[]<0.10>", b"BODY.PEEK[]<4294967290.10>", b"BODY.PEEK[1.TEXT]<0.1>", b"FAST", b"ALL", b"FULL",
)  # fmt: skip


def nested(levels: int) -> bytes:
    lines = [b"Subject: nested\r\nMIME-Version: 1.0\r\n"]
    lines += [
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(levels)
    ]
    lines.append(b"Content-Type: text/plain\r\n\r\ninnermost\r\n")
    lines += [b"--b%d--\r\n" % level for level in reversed(range(levels))]
    return b"".join(lines)


def prefixes(levels: int) -> bytes:
    """Boundaries that each begin with the last one."""
    lines = [b"Subject: prefixes\r\n"]
    for level in range(levels):
        name = b"b" * (level + 1)
        lines.append(b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n" % (name, name))
    return b"".join(lines) + b"\r\n" + b"--" + b"b" * levels + b"x\r\n" * 20_000


MESSAGES = {
    "deep": nested(10_000),
    "deep-messages": b"Subject: x\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * 10_000 + b"\r\ninnermost\r\n",
    "parts": b"Subject: parts\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 100_000 + b"--b--\r\n",
    "open-parts": b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * 100_000,
    "same-boundary": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" * 5000,
    "prefixes": prefixes(60),
    "headers": b"".join(b"X-%d: %d\r\n" % (number, number) for number in range(100_000)) + b"\r\nbody\r\n",
    "same-headers": b"Subject: x\r\n" * 100_000 + b"\r\nbody\r\n",
    "one-header": b"Subject: " + b"a" * 4_000_000 + b"\r\n\r\nbody\r\n",
    "ligatures": b"Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + "\ufdfa".encode() * LIGATURES,
    "folded-header": b"Subject: " + b"a\r\n " * 800_000 + b"\r\n\r\nbody\r\n",
    "addresses": b"To: " + b"<a@example.test>, " * 100_000 + b"b@example.test\r\n\r\nbody\r\n",
    "open-group": b"To: " + b"group: " * 100_000 + b"\r\n\r\nbody\r\n",
    "comments": b"From: " + b"(" * 300_000 + b"\r\nDate: " + b"(" * 300_000 + b"\r\n\r\nbody\r\n",
    "quotes": b'From: "' + b'\\"' * 300_000 + b"\r\nTo: " + b'"' * 300_001 + b"\r\n\r\nbody\r\n",
    "encoded-words": b"Subject: " + b"=?utf-8?q?=41?= " * 100_000 + b"\r\n\r\nbody\r\n",
    "open-words": b"Subject: " + b"=?" * 300_000 + b"\r\n\r\nbody\r\n",
    "parameters": b"Content-Type: text/plain" + b"".join(b"; a*%d=x" % number for number in range(50_000)) + b"\r\n\r\nbody\r\n",
    "references": b"References: " + b"<a@b> " * 300_000 + b"\r\nMessage-ID: " + b"<" * 100_000 + b"\r\n\r\nbody\r\n",
    "no-header": b"\r\n" * 100_000,
    "no-body": b"a" * 1_000_000,
    "colons": b":" * 1_000_000 + b"\r\n\r\n",
    "octets": bytes(octet for octet in range(1, 256) if octet not in b"\r\n") * 2000,
    "base64": b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=" * 1_000_000 + b"QQ==" * 100_000,
    "qp": b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=" * 500_000 + b"<" * 500_000,
    "empty": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_reading(server: Server, mail_user_of_all: str, name: str) -> None:
    message = MESSAGES[name]
    with log_in(server, "imaps", mail_user_of_all) as client:
        client.command(b"SELECT INBOX")
        client.command(b"UID STORE 1:* FLAGS.SILENT (\\Deleted)")
        client.command(b"EXPUNGE")
        appended = client.command(b"APPEND INBOX {}", message)[-1]
        if not message:
            assert appended.startswith((b"NO", b"BAD", b"OK"))
            client.in_step()
            return
        if header_end(message) > MAX_HEADER:
            assert appended.startswith(b"NO [TOOBIG]"), appended
            client.in_step()
            put_foreign(server, mail_user_of_all, message)
        else:
            assert appended.startswith(b"OK"), appended
        while not client.command(b"SEARCH ALL")[0].endswith(b"1"):
            client.command(b"NOOP")
        for item in ITEMS:
            begun = time.monotonic()
            answer = client.command(b"FETCH 1 " + item)
            assert answer[-1].startswith((b"OK", b"BAD", b"NO [LIMIT]")), (item, answer[-1])
            assert time.monotonic() - begun < 20, item
            for told in answer[:-1]:
                balanced(told)
        for keys in (
            b"TEXT innermost",
            b"SUBJECT zzz",
            b"FROM a",
            b"HEADER X-99999 99",
            b"BODY body",
            b"SENTSINCE 1-Jan-2020",
        ):
            begun = time.monotonic()
            assert client.command(b"SEARCH CHARSET UTF-8 " + keys)[-1].startswith(b"OK")
            assert time.monotonic() - begun < 20, keys
        whole = client.command(b"FETCH 1 BODY.PEEK[]")[0]
        assert whole.endswith(b"}\r\n" + message + b")")
        client.in_step()
    with log_in(server, "pop3s", mail_user_of_all) as pop3:
        assert pop3.ask(b"TOP 1 0").startswith(b"+OK")
        pop3.text()
        assert pop3.ask(b"RETR 1").startswith(b"+OK")
        assert pop3.text() in (message, message + b"\r\n")
        pop3.in_step()


def balanced(answer: bytes) -> None:
    """Strings and literals left out, its parentheses are closed and never go below zero (a bound is no excuse)."""
    depth, at = 0, 0
    while at < len(answer):
        octet = answer[at : at + 1]
        if octet == b"(":
            depth += 1
        elif octet == b")":
            depth -= 1
            assert depth >= 0
        elif octet == b'"':
            at += 1
            while answer[at : at + 1] != b'"':
                assert 0x20 <= answer[at] < 0x7F, answer[at - 20 : at + 20]
                at += 2 if answer[at : at + 1] == b"\\" else 1
        elif octet == b"{":
            end = answer.index(b"}\r\n", at)
            at = end + 2 + int(answer[at + 1 : end])
        at += 1
    assert depth == 0


@pytest.fixture(scope="module")
def mail_user_of_all(fresh_users: list[str]) -> str:
    return fresh_users.pop()


@pytest.mark.parametrize("name", ["headers", "one-header", "addresses", "no-body"])
def test_refused_delivery(server: Server, mail_user_of_all: str, name: str) -> None:
    """Of a header that is too large; one that another program has delivered is read all the same (`test_reading`)."""
    with log_in(server, "lmtp", mail_user_of_all) as client:
        assert client.ask(b"MAIL FROM:<>").startswith(b"250")
        assert client.ask(f"RCPT TO:<{mail_user_of_all}>".encode()).startswith(b"250")
        assert client.ask(b"DATA").startswith(b"354")
        client.send(MESSAGES[name].removesuffix(b"\r\n") + b"\r\n.\r\n")
        assert client.reply().startswith(b"552 5.3.4")
        client.in_step()


@pytest.mark.parametrize("name", ["deep", "parts", "same-boundary", "prefixes", "no-header"])
def test_delivery(server: Server, mail_user_of_all: str, name: str) -> None:
    """LMTP takes it; a session that idles in the mailbox hears of it."""
    with log_in(server, "imaps", mail_user_of_all) as client:
        client.command(b"SELECT INBOX")
        client.send(b"i IDLE\r\n")
        assert client.reply().startswith(b"+")
        deliver(server, mail_user_of_all, MESSAGES[name])
        assert client.reply().endswith(b" EXISTS")
        assert client.reply().endswith(b" RECENT")
        client.send(b"DONE\r\n")
        assert client.reply().startswith(b"i OK")
        client.in_step()


# --- Clients that do not read


def test_an_imap_client_that_stops_reading(server: Server, mail_user_of_all: str) -> None:
    text = b"Subject: large\r\n\r\n" + (b"a" * 98 + b"\r\n") * (LARGEST // 100 - 10)
    with log_in(server, "imaps", mail_user_of_all, receive_buffer=4096) as client:
        assert client.command(b"APPEND INBOX {}", text)[-1].startswith(b"OK")
        client.command(b"SELECT INBOX")
        clients = [client] + [log_in(server, "imaps", mail_user_of_all, receive_buffer=4096) for _ in range(7)]
        for deaf in clients:
            deaf.command(b"SELECT INBOX")
            deaf.send(b"".join(b"f%d FETCH * BODY.PEEK[]\r\n" % number for number in range(50)))
        for deaf in clients:
            until_stalled(deaf.socket, termios.FIONREAD)
        # and now one reads on: all is there, in order
        for number in range(2):
            assert text in client.reply()
            assert client.reply().startswith(b"f%d OK" % number)
        for deaf in clients:
            deaf.close()


def test_a_pop3_client_that_stops_reading(server: Server, mail_user_of_all: str) -> None:
    clients = [log_in(server, "pop3s", mail_user_of_all, receive_buffer=4096) for _ in range(5)]
    last = clients[0].ask(b"STAT").split()[1]
    for deaf in clients:
        deaf.send((b"RETR " + last + b"\r\n") * 50)
    for deaf in clients:
        until_stalled(deaf.socket, termios.FIONREAD)
    assert clients[0].reply().startswith(b"+OK")
    assert clients[0].text().startswith(b"Subject: large")
    for deaf in clients:
        deaf.close()


@pytest.mark.parametrize("protocol", ["imaps", "pop3s", "submissions", "lmtp"])
def test_a_client_that_sends_commands_and_never_reads(server: Server, protocol: str) -> None:
    deaf = log_in(server, protocol, "anna@example.test", receive_buffer=4096)
    command = {"imaps": b'a LIST "" *\r\n', "pop3s": b"CAPA\r\n", "submissions": b"EHLO x\r\n", "lmtp": b"LHLO x\r\n"}[
        protocol
    ]
    sender = threading.Thread(target=deaf.send_cut, args=(command * (64_000_000 // len(command)),), daemon=True)
    sender.start()
    until_stalled(deaf.socket, termios.TIOCOUTQ)
    assert sender.is_alive(), "the server has read everything of a client that reads nothing"
    deaf.socket.shutdown(socket.SHUT_RDWR)
    sender.join(30)
    deaf.close()
