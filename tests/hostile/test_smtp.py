"""Hostile clients of submission and LMTP: smuggling, sizes, recipients, lines (RFC 5321, RFC 3030, RFC 2033)."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from tests.hostile.conftest import GROUP, LARGEST
from tests.hostile.wire import Client, log_in
from tests.server import Server

HUGE = [2**31, 2**32, 2**63, 2**64 - 1, 10**19]
USER = "anna@example.test"


@pytest.fixture(params=["submissions", "lmtp"])
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    with log_in(server, request.param, USER) as client:
        yield client


@pytest.fixture
def mailbox(server: Server) -> Iterator[Mailbox]:
    mailbox = Mailbox(server, "david@example.org")
    client = mailbox.client
    client.command(b"SELECT INBOX")
    client.command(b"UID STORE 1:* FLAGS.SILENT (\\Deleted)")
    client.command(b"CLOSE")
    yield mailbox
    client.close()


class Mailbox:
    """Where the recipient sees what came."""

    def __init__(self, server: Server, user: str) -> None:
        self.user = user
        self.client = log_in(server, "imaps", user)

    def subjects(self) -> list[bytes]:
        self.client.command(b"EXAMINE INBOX")
        answers = self.client.command(b"UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[:-1]
        return [answer.partition(b"Subject: ")[2].partition(b"\r\n")[0] for answer in answers]


def begin(client: Client, *recipients: str) -> None:
    assert client.ask(f"MAIL FROM:<{USER}>".encode()).startswith(b"250")
    for recipient in recipients:
        assert client.ask(f"RCPT TO:<{recipient}>".encode()).startswith(b"250")


def head(subject: bytes) -> bytes:
    return b"From: <%b>\r\nSubject: %b\r\n\r\n" % (USER.encode(), subject)


ENDS = [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r\n\0.\r\n", b"\r\r\n.\n", b"\r\n.\r\r\n",
        b"\n\n.\n\n", b"\r\n.\0\r\n", b"\x85.\x85", b"\xe2\x80\xa8.\xe2\x80\xa8", b"\x0b.\x0b", b"\x1a\r\n.\n"]  # fmt: skip


@pytest.mark.parametrize("end", ENDS, ids=repr)
@pytest.mark.parametrize("chunked", [False, True], ids=["DATA", "BDAT"])
def test_smuggling(client: Client, mailbox: Mailbox, end: bytes, chunked: bool) -> None:
    """Nothing but CRLF . CRLF ends a message: what follows another end is part of it, or the whole is refused."""
    smuggled = b"MAIL FROM:<%b>\r\nRCPT TO:<%b>\r\nDATA\r\n" % (USER.encode(), mailbox.user.encode()) + head(
        b"smuggled"
    )
    message = head(b"outer") + b"text" + end + smuggled + b"end\r\n"
    begin(client, mailbox.user)
    if chunked:
        client.send(b"BDAT %d LAST\r\n" % len(message) + message)
    else:
        assert client.ask(b"DATA").startswith(b"354")
        client.send(message + b".\r\n")
    answer = client.reply()
    clean = not set(end.replace(b"\r\n", b"")) & set(b"\r\n\0")
    assert answer.startswith(b"250 2.0.0" if clean else b"550 5.6.0"), answer
    client.in_step()
    assert mailbox.subjects() == ([b"outer"] if clean else [])


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 1000])
def test_dots_in_any_cut(client: Client, mailbox: Mailbox, piece: int) -> None:
    text = b"".join(b"." * (number % 5) + b"x" * (number % 3) + b"\r\n" for number in range(60))
    begin(client, mailbox.user)
    assert client.ask(b"DATA").startswith(b"354")
    wire = (
        head(b"dots") + b"".join(b"." + line if line[:1] == b"." else line for line in text.splitlines(True)) + b".\r\n"
    )
    for at in range(0, len(wire), piece):
        client.send(wire[at : at + piece])
    assert client.reply().startswith(b"250")
    client.in_step()
    mailbox.client.command(b"EXAMINE INBOX")
    stored = mailbox.client.command(b"FETCH 1 BODY.PEEK[TEXT]")[0]
    assert stored.endswith(b"}\r\n" + text + b")")


def test_a_data_line_over_16_kib_stays_data(client: Client, mailbox: Mailbox) -> None:
    long = b"a" * 40_000 + b"\r\nRSET\r\nMAIL FROM:<>\r\nQUIT\r\n" + b"b" * 2_000_000
    begin(client, mailbox.user)
    assert client.ask(b"DATA").startswith(b"354")
    client.send(head(b"long") + long + b"\r\n.\r\n")
    assert client.reply().startswith(b"250")
    client.in_step()
    mailbox.client.command(b"EXAMINE INBOX")
    stored = mailbox.client.command(b"FETCH 1 BODY.PEEK[TEXT]")[0]
    assert stored.endswith(b"}\r\n" + long + b"\r\n)")


def test_a_message_over_the_limit(client: Client, mailbox: Mailbox) -> None:
    assert client.ask(f"MAIL FROM:<{USER}> SIZE={LARGEST + 1}".encode()).startswith(b"552 5.3.4")
    begin(client, mailbox.user)
    assert client.ask(b"DATA").startswith(b"354")
    client.send(head(b"large") + (b"a" * 998 + b"\r\n") * (LARGEST // 1000 + 10) + b"NOOP\r\n.\r\n")
    assert client.reply().startswith(b"552 5.3.4")
    client.in_step()
    begin(client, mailbox.user)
    chunk = b"NOOP\r\n" * 1000
    client.send(b"BDAT %d LAST\r\n" % (LARGEST + 6000) + b"x" * LARGEST + chunk)
    assert client.reply().startswith(b"552 5.3.4")
    client.in_step()
    assert mailbox.subjects() == []


def test_many_chunks_over_the_limit(client: Client, mailbox: Mailbox) -> None:
    begin(client, mailbox.user)
    chunk = head(b"chunks") + b"NOOP\r\n" * 200_000
    refused = 0
    for _ in range(20):
        client.send(b"BDAT %d\r\n" % len(chunk) + chunk)
        answer = client.reply()
        assert answer.startswith((b"250", b"552 5.3.4", b"503")), answer
        refused += not answer.startswith(b"250")
    assert refused
    client.send(b"BDAT 5 LAST\r\nNOOP\n")
    assert client.reply().startswith((b"552 5.3.4", b"503"))
    client.in_step()
    assert mailbox.subjects() == []


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize("opened", [False, True])
def test_huge_sizes(server: Server, client: Client, size: int, opened: bool) -> None:
    assert client.ask(f"MAIL FROM:<{USER}> SIZE={size}".encode()).startswith((b"552 5.3.4", b"501"))
    if opened:
        begin(client, USER)
    client.send(b"BDAT %d LAST\r\n" % size)
    client.send_cut(b"NOOP\r\nRSET\r\n" * 100)
    answer = client.to_the_end()
    assert answer.startswith(b"552 5.3.4")
    assert b"250" not in answer


@pytest.mark.parametrize(
    "size",
    [
        b"-1",
        b"1_0",
        b"+5",
        b"0x5",
        b"5 5",
        b"",
        b"LAST",
        b"5 LATS",
        b"\xd9\xa5",
        b"9" * 400,
        b"5\0",
        b"5\tLAST",
        b"5.0",
    ],
)
def test_chunks_without_a_size_are_never_commands(client: Client, size: bytes) -> None:
    begin(client, USER)
    client.send(b"BDAT " + size + b"\r\n")
    client.send_cut(b"VRFY x\r\nRSET\r\n")
    answer = client.to_the_end() if not set(size) & set(b"\0\t") else b"501"
    assert answer.startswith((b"501", b"500", b"552"))
    assert b"252" not in answer


@pytest.mark.parametrize("protocol", ["submission", "submissions", "lmtp"])
def test_refused_chunks_are_consumed(server: Server, protocol: str) -> None:
    """Without TLS, login or recipients the octets are still no commands."""
    with Client(server, protocol) as client:
        client.send(b"BDAT 24 LAST\r\nVRFY x\r\nVRFY y\r\nVRFY z\r\n")
        assert client.reply().startswith((b"530", b"503"))
        client.in_step()


def test_five_thousand_recipients(client: Client, mailbox: Mailbox) -> None:
    begin(client)
    command = b"RCPT TO:<%b>\r\n" % mailbox.user.encode()
    client.send_while_reading(command * 5000)
    answers = [client.reply() for _ in range(5000)]
    assert all(answer.startswith(b"250") for answer in answers[:100])  # RFC 5321 4.5.3.1.8
    assert all(answer.startswith(b"452 4.5.3") for answer in answers[1000:])
    client.in_step()
    client.send(b"RSET\r\n")
    assert client.reply().startswith(b"250")
    client.in_step()


@pytest.mark.parametrize("detail", ["", "+%d"], ids=["the-same", "details"])
def test_a_group_of_a_thousand_in_every_recipient(client: Client, detail: str) -> None:
    begin(client)
    commands = [
        f"RCPT TO:<{GROUP.replace('@', (detail % number if detail else '') + '@')}>\r\n" for number in range(200)
    ]
    client.send_while_reading("".join(commands).encode())
    answers = [client.reply() for _ in commands]
    assert answers[0].startswith(b"250"), answers[0]
    assert answers[-1].startswith((b"452 4.5.3", b"250") if not detail else b"452 4.5.3"), answers[-1]
    client.in_step()
    client.send(b"RSET\r\n")
    assert client.reply().startswith(b"250")


def test_recipients_that_do_not_exist(client: Client) -> None:
    begin(client)
    for number in range(300):
        answer = client.ask(b"RCPT TO:<nobody%d@example.test>" % number)
        assert answer.startswith((b"550 5.1.1", b"452", b"421")), answer
    client.in_step()


@pytest.mark.parametrize(
    "address",
    [b"a\0b@example.test", b"a b@example.test", b"../../x@example.test", b"a@example.test/../x", b"@", b"", b"a@", b"@example.test",
     b"<a@example.test>", b"\xff\xfe@example.test", b"\xc3\xa4@example.test", b"a" * 300 + b"@example.test", b"a@" + b"x." * 200 + b"test",
     b'"a\\', b'"a\nb"@example.test', b'"\\\r"@example.test', b"anna@example.test> SIZE=1", b"anna@[127.0.0.1", b"a@b@c", b"anna+" + b"../" * 20 +
     b"@example.test", b"@a,@b:anna@example.test", b"anna@example.test\r", b"%s%n@example.test", b"anna+\xff@example.test"],
    ids=repr,
)  # fmt: skip
def test_addresses(server: Server, client: Client, address: bytes) -> None:
    """A refusal, or a recipient of ours; then the stream is in step."""
    begin(client)
    client.send(b"RCPT TO:<" + address + b">\r\n")
    count = 1 + address.count(b"\n")
    answers = [client.reply() for _ in range(count)]
    assert (
        all(answer[:1] in b"45" for answer in answers) or address.endswith(b"anna@example.test") or b"anna+" in address
    ), answers
    client.send(b"RSET\r\n")
    assert client.reply().startswith(b"250")
    client.send(b"MAIL FROM:<" + address + b">\r\n")
    assert {client.reply()[:1] for _ in range(count)} <= {b"2", b"5"}
    client.in_step()
    assert sorted(path.name for path in (server.dir / "mail" / "example.test").iterdir()) == sorted(
        {
            path.name
            for path in (server.dir / "mail" / "example.test").iterdir()
            if f"{path.name}@example.test" in server.accounts
        }
    )


@pytest.mark.parametrize(
    "line",
    [b"NOOP " + b"a" * 20_000 + b"\r\n", b"NOOP " + b"a" * 2_000_000 + b"\r\n", b"MAIL FROM:<" + b"a" * 60_000 + b">\r\n",
     b"NO\0OP\r\n", b"NO\rOP\r\n", b"NOOP\n", b"\xff\xfe\r\n", b"\r\n", b" \r\n", b"XYZZY\r\n", b"DATA x\r\n", b"VRFY\r\n", b"EHLO\r\n",
     b"EHLO \xff\r\n", b"MAIL FROM:<a@b> X=\xff\r\n", b"RCPT TO:<anna@example.test>\r\n", b"DATA\r\n", b"AUTH PLAIN\0\r\n", b"HELO \r\n",
     b"BURL imap://x LAST\r\n", b"TURN\r\n", b"ETRN x\r\n", b"STARTTLS x\r\n"],
    ids=lambda line: repr(line[:20]),
)  # fmt: skip
def test_refused_lines(client: Client, line: bytes) -> None:
    client.send(line)
    assert client.reply().startswith(b"5")
    client.in_step()


def test_an_endless_line_takes_no_memory(client: Client) -> None:
    for _ in range(400):
        client.send(b"a" * 65536)
    client.send(b"\r\n")
    assert client.reply().startswith(b"500 5.5.2")
    client.in_step()


def test_a_hundred_thousand_pipelined_noops(client: Client) -> None:
    client.send_while_reading(b"NOOP\r\n" * 100_000)
    for _ in range(100_000):
        assert client.line() == b"250 2.0.0 nothing done"
    client.in_step()


def test_two_hundred_pipelined_messages(client: Client, mailbox: Mailbox) -> None:
    count = 200
    one = (
        b"MAIL FROM:<%b>\r\nRCPT TO:<%b>\r\nDATA\r\n" % (USER.encode(), mailbox.user.encode())
        + head(b"many")
        + b".\r\n"
    )
    client.send_while_reading(one * count)
    for _ in range(count):
        assert [client.reply()[:3] for _ in range(4)] == [b"250", b"250", b"354", b"250"]
    client.in_step()
    assert mailbox.subjects() == [b"many"] * count


def test_a_broken_off_message_is_not_there(server: Server, client: Client, mailbox: Mailbox) -> None:
    begin(client, mailbox.user)
    assert client.ask(b"DATA").startswith(b"354")
    client.send(head(b"broken") + b"a" * 500_000 + b"\r\n.")
    client.close()
    assert mailbox.subjects() == []
    with log_in(server, "lmtp", USER) as second:
        begin(second, mailbox.user)
        second.send(b"BDAT 100000\r\n" + head(b"broken") + b"a" * 1000)
    assert mailbox.subjects() == []


def test_secrets_and_controls_never_reach_the_log(server: Server) -> None:
    since = len(server.log)
    with Client(server, "submissions") as client:
        client.ask(b"EHLO x")
        evil = b"evil\r\nforged session=1 login user=admin"
        assert client.ask(b"AUTH PLAIN " + base64.b64encode(b"\0" + evil + b"\0geheim-13")).startswith(b"535 ")
        client.in_step()
    log = server.wait_for(r"login-failed .*", since=since).string
    # The attempt stands there, in one line; of the name, which may be a password, only its length.
    assert 'user="(39 characters)" method=PLAIN' in log
    assert not any(line.startswith("forged") for line in log.splitlines())
    assert "geheim-13" not in log
