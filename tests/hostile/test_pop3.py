"""Hostile POP3 clients: numbers, lines, dots, pipelines (RFC 1939, RFC 2449)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.wire import Client, deliver, log_in
from tests.live.client import eventually
from tests.server import Server

USER = "u010@example.test"
NUMBERS = [b"0", b"-1", b"+1", b"01 ", b"4", b"2147483648", b"4294967296", b"18446744073709551616", b"9" * 200, b"1_0", b"0x1", b"1.0",
           b"1 1 1", b"", b" ", b"1:2", b"*", b"\xd9\xa1", b"one"]  # fmt: skip


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """Logged in, three messages."""
    with log_in(server, "pop3s", USER) as client:
        if client.ask(b"STAT").startswith(b"+OK 0 "):
            client.ask(b"QUIT")
            for number in range(3):
                deliver(server, USER, b"Subject: %d\r\n\r\n.\r\n..\r\n.x\r\ntext\r\n" % number)
    with log_in(server, "pop3s", USER) as client:
        assert client.ask(b"STAT").startswith(b"+OK 3 ")
        yield client
        client.in_step()
        assert client.ask(b"STAT").startswith(b"+OK 3 ")


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_numbers(client: Client, number: bytes) -> None:
    for word in (b"RETR", b"DELE", b"TOP", b"LIST", b"UIDL"):
        if word in (b"LIST", b"UIDL") and not number.strip():
            continue
        answer = client.ask(word + b" " + number + (b" 0" if word == b"TOP" else b""))
        assert answer.startswith(b"-ERR"), (word, answer)
    client.in_step()


@pytest.mark.parametrize("count", [b"-1", b"+1", b"", b"1_0", b"9" * 300, b"x", b"0 0", b"0x1", b"\xd9\xa1"], ids=repr)
def test_top_counts(client: Client, count: bytes) -> None:
    assert client.ask(b"TOP 1 " + count).startswith(b"-ERR")
    client.in_step()


def test_top_of_more_lines_than_there_are(client: Client) -> None:
    for count in (4, 2**31, 2**32, 2**63):
        answer = client.ask(b"TOP 1 %d" % count)
        if answer.startswith(b"+OK"):
            assert client.text().endswith(b"\r\n\r\n.\r\n..\r\n.x\r\ntext\r\n")
        else:
            assert count > 2**32
    client.in_step()


@pytest.mark.parametrize(
    "line",
    [b"NOOP " + b"a" * 500, b"NOOP " + b"a" * 20_000, b"NOOP " + b"a" * 2_000_000, b"NO\0OP", b"NO\rOP", b"NOOP\n", b"\xff\xfe", b"",
     b" ", b"XYZZY", b"USER anna", b"PASS x", b"STLS", b"AUTH PLAIN", b"NOOP x", b"STAT 1", b"QUIT now", b"RSET x", b"LIST\x001"],
    ids=lambda line: repr(line[:20]),
)  # fmt: skip
def test_refused_lines(client: Client, line: bytes) -> None:
    client.send(line + b"\r\n")
    answer = client.reply()
    assert answer.startswith(b"-ERR"), answer
    if line == b"NOOP\n":
        assert client.reply().startswith(b"-ERR")
    client.in_step()


def test_before_login(server: Server) -> None:
    with Client(server, "pop3s") as client:
        for line in (
            b"STAT",
            b"LIST",
            b"RETR 1",
            b"DELE 1",
            b"UIDL",
            b"TOP 1 0",
            b"RSET",
            b"PASS x",
            b"USER",
            b"APOP a b",
            b"\xff",
        ):
            assert client.ask(line).startswith(b"-ERR"), line
        client.in_step()
    name, secret = USER.encode(), server.accounts[USER].encode()
    for user, password in ((name + b"\0", secret), (name, secret + b"\0"), (name + b"\rx", secret)):
        with Client(server, "pop3s") as client:
            client.send(b"USER " + user + b"\r\nPASS " + password + b"\r\n")
            client.reply()
            assert client.reply().startswith(b"-ERR")
            client.in_step()


def test_an_endless_line_takes_no_memory(client: Client) -> None:
    for _ in range(400):
        client.send(b"a" * 65536)
    client.send(b"\r\n")
    assert client.reply().startswith(b"-ERR")
    client.in_step()


def test_a_hundred_thousand_pipelined_noops(client: Client) -> None:
    client.send_while_reading(b"NOOP\r\n" * 100_000)
    assert {client.line() for _ in range(100_000)} == {b"+OK nothing done"}


def test_pipelined_answers_keep_their_order(client: Client) -> None:
    client.send(b"NOOP\r\nSTAT\r\nRETR 1\r\nNOOP\r\nDELE 0\r\nTOP 2 0\r\nSTAT\r\nRETR 3\r\n" * 15)
    for _ in range(15):
        assert client.line() == b"+OK nothing done"
        assert client.line().startswith(b"+OK 3 ")
        assert client.line().startswith(b"+OK")
        assert b"Subject: 0\r\n" in client.text()
        assert client.line() == b"+OK nothing done"
        assert client.line().startswith(b"-ERR")
        assert client.line().startswith(b"+OK")
        assert b"Subject: 1\r\n" in client.text()
        assert client.line().startswith(b"+OK 3 ")
        assert client.line().startswith(b"+OK")
        assert b"Subject: 2\r\n" in client.text()


def test_dot_stuffing_at_every_chunk_edge(server: Server, mail_user: str) -> None:
    """Lines of dots moved by one octet at a time over every edge that a reader or writer may cut at."""
    edges = (4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144)
    text = b"Subject: dots\r\n\r\n"
    for edge in edges:
        text += b"a" * (edge - len(text) - 40) + b"\r\n"
        text += b".\r\n..\r\n" * 12
    sent = []
    with log_in(server, "imaps", mail_user) as imap:
        for shift in range(12):
            moved = b"X: " + b"y" * shift + b"\r\n" + text
            sent.append(moved)
            assert imap.command(b"APPEND INBOX {}", moved)[-1].startswith(b"OK")
    with log_in(server, "pop3s", mail_user) as client:
        for number, moved in enumerate(sent, 1):
            assert client.ask(b"RETR %d" % number).startswith(b"+OK")
            assert client.text() == moved
        client.in_step()


def test_deletions_without_quit_are_none(server: Server, client: Client) -> None:
    with log_in(server, "pop3s", USER) as other:
        for number in (1, 2, 3):
            assert other.ask(b"DELE %d" % number).startswith(b"+OK")
            assert other.ask(b"DELE %d" % number).startswith(b"-ERR")
            assert other.ask(b"RETR %d" % number).startswith(b"-ERR")
    client.in_step()


def test_quit_deletes_though_the_client_goes_at_once(server: Server, mail_user: str) -> None:
    """RFC 1939 6: QUIT was sent, so this is no session that terminates for some other reason."""
    for _ in range(3):
        deliver(server, mail_user, b"Subject: away\r\n\r\ntext\r\n")
    with log_in(server, "pop3s", mail_user) as client:
        for number in (1, 2, 3):
            assert client.ask(b"DELE %d" % number).startswith(b"+OK")
        client.send(b"QUIT\r\n")

    def is_empty() -> bool:
        with log_in(server, "imaps", mail_user) as client:
            return client.command(b"STATUS INBOX (MESSAGES)")[0] == b"* STATUS INBOX (MESSAGES 0)"

    eventually(is_empty)
