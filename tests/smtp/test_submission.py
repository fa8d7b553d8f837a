from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mailserver.auth.interfaces import User
from mailserver.errors import AuthUnavailable, InUse, LimitReached, NoSpace
from mailserver.smtp.authentication import MAX_LOGIN_FAILURES
from mailserver.smtp.session import MAX_ERRORS
from mailserver.store.memory import MemoryPrepared
from tests.fakes import info
from tests.pop3.dialogs import play
from tests.smtp.world import DATE, GREETING, PLAIN, FakeHop, World

HOW = ["whole", "bytewise", "1", "2"]

RECEIVED = (
    b"Received: from client.example.net ([192.0.2.7])\r\n\tby mail.example.test with ESMTPSA id test1.1%s;\r\n\t"
    + DATE
    + b"\r\n"
)
HEADER = b"From: Anna <anna@example.test>\r\nDate: " + DATE + b"\r\nMessage-ID: <1@example.test>\r\n"


def trace(recipient: bytes, *, alone: bool = True) -> bytes:
    clause = b"\r\n\tfor <" + recipient + b">" if alone else b""
    return b"Return-Path: <anna@example.test>\r\nDelivered-To: " + recipient + b"\r\n" + RECEIVED % clause


DIALOGS = {
    "a message": """
        C: EHLO client.example.net
        S: 250-mail.example.test
        S: 250-PIPELINING
        S: 250-SIZE 300000
        S: 250-8BITMIME
        S: 250-CHUNKING
        S: 250-ENHANCEDSTATUSCODES
        S: 250 AUTH PLAIN LOGIN
        C: MAIL FROM:<anna@example.test>
        C: AUTH LOGIN
        S: 530 5.7.0 log in first
        S: 334 VXNlcm5hbWU6
        C: YW5uYUBleGFtcGxlLnRlc3Q=
        S: 334 UGFzc3dvcmQ6
        C: c2VjcmV0
        S: 235 2.7.0 logged in
        C: EHLO client.example.net
        S: 250-mail.example.test
        S: 250-PIPELINING
        S: 250-SIZE 300000
        S: 250-8BITMIME
        S: 250-CHUNKING
        S: 250 ENHANCEDSTATUSCODES
        C: MAIL FROM:<anna@example.test> AUTH=anna+40example.test
        C: RCPT TO:<bert@example.org>
        C: DATA
        S: 250 2.1.0 sender accepted
        S: 250 2.1.5 recipient accepted
        S: 354 send the message, end it with a single dot
        C: From: Anna <anna@example.test>
        C: Date: Tue, 14 Nov 2023 22:13:20 +0000
        C: Message-ID: <1@example.test>
        C:
        C: Hello
        C: .
        C: QUIT
        S: 250 2.0.0 accepted as test1.1
        S: 221 2.0.0 goodbye
    """,
    "everything pipelined, with chunks": """
        C: EHLO client.example.net
        S: 250-mail.example.test
        S: 250-PIPELINING
        S: 250-SIZE 300000
        S: 250-8BITMIME
        S: 250-CHUNKING
        S: 250-ENHANCEDSTATUSCODES
        S: 250 AUTH PLAIN LOGIN
        C: AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHNlY3JldA==
        C: MAIL FROM:<anna@example.test> BODY=8BITMIME
        C: RCPT TO:<bert@example.org>
        C: BDAT 32
        C: From: Anna <anna@example.test>
        C: BDAT 78 LAST
        C: Date: Tue, 14 Nov 2023 22:13:20 +0000
        C: Message-ID: <1@example.test>
        C:
        C: Hello
        C: QUIT
        S: 235 2.7.0 logged in
        S: 250 2.1.0 sender accepted
        S: 250 2.1.5 recipient accepted
        S: 250 2.0.0 32 octets received
        S: 250 2.0.0 accepted as test1.1
        S: 221 2.0.0 goodbye
    """,
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", DIALOGS)
def test_dialog(name: str, how: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    play(client, DIALOGS[name], how, GREETING)
    assert world.kept("bert@example.org") == [trace(b"bert@example.org") + HEADER + b"\r\nHello\r\n"]
    assert [event for event, _ in client.channel.logged] == ["login", "submission", "logout"]
    assert client.channel.user == "anna@example.test"
    assert world.left_behind() == []


REFUSALS = """
    C: LHLO client.example.net
    C: AUTH PLAIN
    C: MAIL FROM:<anna@example.test>
    C: HELO client.example.net
    C: AUTH PLAIN
    C: MAIL FROM:<anna@example.test> SIZE=1
    C: RCPT TO:<anna@example.test>
    C: EXPN list
    C: EHLO client.example.net
    S: 500 5.5.1 unknown command
    S: 503 5.5.1 say EHLO first
    S: 503 5.5.1 say hello first
    S: 250 mail.example.test
    S: 503 5.5.1 say EHLO first
    S: 530 5.7.0 log in first
    S: 503 5.5.1 MAIL must come first, RCPT before the data
    S: 500 5.5.1 unknown command
    S: 250-mail.example.test
    S: 250-PIPELINING
    S: 250-SIZE 300000
    S: 250-8BITMIME
    S: 250-CHUNKING
    S: 250-ENHANCEDSTATUSCODES
    S: 250 AUTH PLAIN LOGIN
    C: AUTH
    C: AUTH CRAM-MD5
    C: AUTH PLAIN !!!
    C: AUTH PLAIN AGEAYg== x
    C: AUTH PLAIN
    S: 501 5.5.4 AUTH needs a mechanism, and at most an initial response
    S: 504 5.5.4 no such mechanism
    S: 501 5.5.2 that is not base64
    S: 501 5.5.4 AUTH needs a mechanism, and at most an initial response
    S! b"334 \\r\\n"
    C: *
    C: AUTH PLAIN
    S: 501 5.7.0 authentication was cancelled
    S! b"334 \\r\\n"
    C: not base64
    C: AUTH PLAIN =
    C: AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHdyb25n
    C: AUTH PLAIN AG5vYm9keUBleGFtcGxlLnRlc3QAd3Jvbmc=
    C: AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHNlY3JldA==
    C: AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHNlY3JldA==
    S: 501 5.5.2 that is not base64
    S: 535 5.7.8 wrong user name or password
    S: 535 5.7.8 wrong user name or password
    S: 535 5.7.8 wrong user name or password
    S: 235 2.7.0 logged in
    S: 503 5.5.1 you are logged in
    C: STARTTLS
    C: MAIL FROM:<bert@example.org>
    C: MAIL FROM:<anna@example.org>
    C: MAIL FROM:<x@elsewhere.test>
    C: MAIL FROM:<anna@example.test> AUTH=a+3d
    C: MAIL FROM:<Anna@Example.Test>
    C: AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHNlY3JldA==
    C: RCPT TO:<nobody@example.test>
    C: RCPT TO:<x@elsewhere.test>
    C: RCPT TO:<>
    C: DATA
    S: 503 5.5.1 TLS has been started already
    S: 550 5.7.1 this sender address does not belong to your login
    S: 550 5.7.1 this sender address does not belong to your login
    S: 550 5.7.1 this sender address does not belong to your login
    S: 501 5.5.4 AUTH is xtext or <>
    S: 250 2.1.0 sender accepted
    S: 503 5.5.1 you are logged in
    S: 550 5.1.1 no such user here
    S: 550 5.7.1 relaying is not configured
    S: 501 5.1.3 that is no recipient address
    S: 503 5.5.1 MAIL and an accepted RCPT must come first
"""


@pytest.mark.parametrize("how", HOW)
def test_refusals(how: str, tmp_path: Path) -> None:
    play(World(tmp_path).connect(), REFUSALS, how, GREETING)


BEFORE_TLS = """
    C: EHLO client.example.net
    S: 250-mail.example.test
    S: 250-PIPELINING
    S: 250-SIZE 300000
    S: 250-8BITMIME
    S: 250-CHUNKING
    S: 250-STARTTLS
    S: 250 ENHANCEDSTATUSCODES
    C: AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHNlY3JldA==
    C: AUTH PLAIN
    C: AUTH NONSENSE
    C: HELO client.example.net
    C: MAIL FROM:<anna@example.test>
    C: RCPT TO:<anna@example.test>
    C: DATA
    C: RSET
    C: VRFY anna
    C: HELP
    C: XYZZY
    C! b"NO\\0OP\\r\\n"
    C: NOOP
    C: STARTTLS now
    S: 530 5.7.0 start TLS first: nothing else is done in clear text here
    S: 530 5.7.0 start TLS first: nothing else is done in clear text here
    S: 530 5.7.0 start TLS first: nothing else is done in clear text here
    S: 530 5.7.0 start TLS first: nothing else is done in clear text here
    S: 530 5.7.0 start TLS first: nothing else is done in clear text here
    S: 530 5.7.0 start TLS first: nothing else is done in clear text here
    S: 530 5.7.0 start TLS first: nothing else is done in clear text here
    S: 530 5.7.0 start TLS first: nothing else is done in clear text here
    S: 530 5.7.0 start TLS first: nothing else is done in clear text here
    S: 530 5.7.0 start TLS first: nothing else is done in clear text here
    S: 530 5.7.0 start TLS first: nothing else is done in clear text here
    S: 530 5.7.0 start TLS first: nothing else is done in clear text here
    S: 250 2.0.0 nothing done
    S: 501 5.5.4 STARTTLS takes no argument
    C: STARTTLS
    S: 220 2.0.0 begin TLS
    C: AUTH PLAIN
    S: 503 5.5.1 say EHLO first
    C: EHLO client.example.net
    S: 250-mail.example.test
    S: 250-PIPELINING
    S: 250-SIZE 300000
    S: 250-8BITMIME
    S: 250-CHUNKING
    S: 250-ENHANCEDSTATUSCODES
    S: 250 AUTH PLAIN LOGIN
"""


@pytest.mark.parametrize("how", HOW)
def test_before_tls(how: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    play(world.connect(info("submission")), BEFORE_TLS, how, GREETING)
    assert world.authenticator.contexts == []


@pytest.mark.parametrize("behind", [b"N", b"EHLO x\r\n", b"\r\n", b"MAIL FROM:<anna@example.test>\r\n"])
def test_bytes_behind_starttls_end_the_connection(behind: bytes, tmp_path: Path) -> None:
    client = World(tmp_path).connect(info("submission"))
    answer = client.ask(b"STARTTLS\r\n" + behind)
    assert answer == GREETING + b"501 5.5.2 nothing may follow STARTTLS before the handshake\r\n"
    assert client.channel.closed
    assert client.channel.info.tls is None
    assert client.channel.logged == [("plaintext-behind-starttls", {})]


def test_a_chosen_listener_takes_passwords_and_forgets_them_at_starttls(tmp_path: Path) -> None:
    client = World(tmp_path).connect(info("submission", cleartext=True))
    client.take()
    answer = client.ask(b"EHLO a\r\n")
    assert answer.endswith(b"250-STARTTLS\r\n250-ENHANCEDSTATUSCODES\r\n250 AUTH PLAIN LOGIN\r\n")
    assert client.ask(b"AUTH PLAIN " + PLAIN + b"\r\n") == b"235 2.7.0 logged in\r\n"
    assert client.ask(b"MAIL FROM:<anna@example.test>\r\n").startswith(b"250")
    client.ask(b"STARTTLS\r\n")
    assert client.ask(b"RCPT TO:<anna@example.test>\r\n").startswith(b"503")
    client.ask(b"EHLO a\r\n")
    assert client.ask(b"MAIL FROM:<anna@example.test>\r\n") == b"530 5.7.0 log in first\r\n"


def test_an_http_request_gets_no_answer(tmp_path: Path) -> None:
    client = World(tmp_path).connect()
    client.take()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nEHLO a\r\nNOOP\r\n")
    assert client.take() == b""
    assert client.done


@pytest.mark.parametrize("line", [b"POST /" + b"x" * 20_000 + b" HTTP/1.1", b"x"])
def test_what_follows_a_request_is_never_a_command(line: bytes, tmp_path: Path) -> None:
    client = World(tmp_path).connect()
    client.take()
    client.send(line + b"\r\nHost: mail.example.test\r\n\r\nEHLO a\r\n")
    assert b"PIPELINING" not in client.take()
    assert client.done


def test_a_sloppy_hello_is_served_and_not_repeated(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    client.ask(b"EHLO (evil);x\r\nAUTH PLAIN " + PLAIN + b"\r\n")
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<anna@example.test>\r\n")
    assert client.ask(b"DATA\r\n" + HEADER + b".\r\n").endswith(b"250 2.0.0 accepted as test1.1\r\n")
    assert b"Received: from unknown ([192.0.2.7])\r\n" in world.kept()[0]
    for line in (b"EHLO", b"EHLO a b", b"EHLO " + b"x" * 256, "EHLO ä".encode()):
        assert client.ask(line + b"\r\n").startswith(b"501 5.5.4 ")


def test_failed_logins_are_bounded(tmp_path: Path) -> None:
    client = World(tmp_path).connect()
    client.ask(b"EHLO a\r\n")
    wrong = base64.b64encode(b"\0anna@example.test\0wrong")
    for _ in range(MAX_LOGIN_FAILURES - 1):
        assert client.ask(b"AUTH PLAIN " + wrong + b"\r\n") == b"535 5.7.8 wrong user name or password\r\n"
    assert client.ask(b"AUTH PLAIN " + wrong + b"\r\n").endswith(
        b"421 4.7.0 too many failed logins, closing the connection\r\n"
    )
    assert client.done
    assert wrong.decode() not in str(client.channel.logged)


def test_errors_are_bounded(tmp_path: Path) -> None:
    client = World(tmp_path).connect()
    client.take()
    for _ in range(MAX_ERRORS):
        assert not client.done
        client.send(b"XYZZY\r\n")
    assert client.take().endswith(b"421 4.7.0 too many errors, closing the connection\r\n")
    assert client.done


def test_many_commands_in_one_piece_keep_pace_with_the_client(tmp_path: Path) -> None:
    client = World(tmp_path).log_in()
    drains = client.channel.drains
    client.send(b"NOOP\r\n" * 1000)
    assert client.channel.drains - drains >= 15
    assert client.take().count(b"250 2.0.0") == 1000


def test_limits_and_back_ends_at_login(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    client.ask(b"EHLO a\r\n")
    world.authenticator.error = AuthUnavailable()
    assert client.ask(b"AUTH PLAIN " + PLAIN + b"\r\n").startswith(b"454 4.7.0 ")
    world.authenticator.error = None
    client.channel.login_error = LimitReached("too many sessions")
    assert client.ask(b"AUTH PLAIN " + PLAIN + b"\r\n") == b"454 4.7.0 too many sessions\r\n"
    assert client.ask(b"MAIL FROM:<anna@example.test>\r\n").startswith(b"530 5.7.0")


@pytest.mark.parametrize("length", [12288, 13000, 100_000])
def test_long_responses(length: int, tmp_path: Path) -> None:
    client = World(tmp_path).connect()
    client.ask(b"EHLO a\r\n")
    client.ask(b"AUTH PLAIN\r\n")
    expected = b"535 5.7.8" if length == 12288 else b"500 5.5.6"
    response = b"A" * length + b"\r\n"
    client.send_bytewise(response[:50])
    assert client.ask(response[50:] + b"NOOP\r\n").split(b"\r\n")[0].startswith(expected)
    assert client.ask(b"NOOP\r\n") == b"250 2.0.0 nothing done\r\n"


def test_times(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.connect()
    for _ in range(4):
        client.wait(50)
        client.send(b"NOOP\r\n")
    assert client.take().endswith(b"421 4.4.2 mail.example.test timeout, closing the connection\r\n")
    assert client.done
    client = world.log_in()
    client.wait(299)
    assert client.ask(b"NOOP\r\n").startswith(b"250")
    client.wait(301)
    assert client.take().startswith(b"421 4.4.2")


def submit(world: World, message: bytes, *recipients: bytes, sender: bytes = b"anna@example.test") -> bytes:
    """The reply to the message."""
    client = world.log_in()
    client.ask(b"MAIL FROM:<" + sender + b">\r\n")
    for recipient in recipients or (b"bert@example.org",):
        answer = client.ask(b"RCPT TO:<" + recipient + b">\r\n")
        assert answer.startswith(b"250"), answer
    assert client.ask(b"DATA\r\n").startswith(b"354")
    return client.ask(message + b".\r\n")


def test_what_lacks_is_added(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert submit(world, b"Subject: x\r\n\r\nBody\r\n").startswith(b"250")
    (text,) = world.kept("bert@example.org")
    assert re.fullmatch(
        re.escape(trace(b"bert@example.org") + b"From: <anna@example.test>\r\nDate: " + DATE + b"\r\nMessage-ID: ")
        + rb"<[0-9a-f]+\.[0-9a-f]{16}@mail\.example\.test>\r\nSubject: x\r\n\r\nBody\r\n",
        text,
    )


def test_a_message_without_any_header(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert submit(world, b"\r\nBody\r\n").startswith(b"250")
    assert world.kept("bert@example.org")[0].endswith(b"@mail.example.test>\r\n\r\nBody\r\n")


GOOD_FROM = {
    "bare": b"From: anna@example.test\r\n",
    "quoted name": b'From: "Anna, \\"A\\" <x@y.test>" <anna@example.test>\r\n',
    "encoded name": b"From: =?utf-8?q?=C3=84nna?= <ANNA@Example.Test>\r\n",
    "raw name": "From: Änna <anna@example.test>\r\n".encode(),
    "comments": b"From: (a (b) \\) c) Anna (x) <anna(y)@example.test> (<z@y.test>)\r\n",
    "folded": b"From:\r\n Anna\r\n\t<anna@example.test>\r\n",
    "old syntax": b"From : anna@example.test\r\n",
    "dot in name": b"From: Anna B. <anna@example.test>\r\n",
    "quoted local part": b'From: "anna"@example.test\r\n',
    "own Sender": b"From: anna@example.test\r\nSender: anna@example.test\r\n",
    "several with Sender": b"From: bert@example.org, Anna <anna@example.test>\r\nSender: anna@example.test\r\n",
}


@pytest.mark.parametrize("name", GOOD_FROM)
def test_good_senders(name: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    assert submit(world, GOOD_FROM[name] + b"Subject: x\r\n\r\n") == b"250 2.0.0 accepted as test1.1\r\n"
    assert GOOD_FROM[name] in world.kept("bert@example.org")[0]


BAD_FROM = {
    "another's": (b"From: bert@example.org\r\n", b"550 5.7.1"),
    "another's address, own name": (b'From: "anna@example.test" <bert@example.org>\r\n', b"550 5.7.1"),
    "from elsewhere": (b"From: anna@elsewhere.test\r\n", b"550 5.7.1"),
    "address literal": (b"From: anna@[192.0.2.1]\r\n", b"550 5.7.1"),
    "two fields": (b"From: anna@example.test\r\nfrom: anna@example.test\r\n", b"550 5.6.0"),
    "two fields, one old": (b"From: anna@example.test\r\nFrom : bert@example.org\r\n", b"550 5.6.0"),
    "several others with Sender": (
        b"From: bert@example.org, boss@example.net\r\nSender: anna@example.test\r\n",
        b"550 5.7.1",
    ),
    "several without Sender": (b"From: anna@example.test, bert@example.org\r\n", b"550 5.6.0"),
    "several with another's Sender": (
        b"From: anna@example.test, bert@example.org\r\nSender: bert@example.org\r\n",
        b"550 5.7.1",
    ),
    "another's Sender": (b"From: anna@example.test\r\nSender: bert@example.org\r\n", b"550 5.7.1"),
    "two Senders": (b"From: anna@example.test\r\nSender: anna@example.test, anna@example.test\r\n", b"550 5.6.0"),
    "two Sender fields": (b"From: anna@example.test\r\n" + b"Sender: anna@example.test\r\n" * 2, b"550 5.6.0"),
    "empty": (b"From: \r\n", b"550 5.6.0"),
    "no address": (b"From: Anna\r\n", b"550 5.6.0"),
    "unclosed": (b"From: Anna <anna@example.test\r\n", b"550 5.6.0"),
    "unclosed, text behind": (b"From: <anna@example.test x\r\n", b"550 5.6.0"),
    "two angles": (b"From: <anna@example.test> <bert@example.org>\r\n", b"550 5.6.0"),
    "text behind": (b"From: <anna@example.test> bert@example.org\r\n", b"550 5.6.0"),
    "address before": (b"From: bert@example.org <anna@example.test>\r\n", b"550 5.6.0"),
    "group": (b"From: us: anna@example.test;\r\n", b"550 5.6.0"),
    "route": (b"From: <@x.test:anna@example.test>\r\n", b"550 5.6.0"),
    "trailing comma": (b"From: anna@example.test,\r\n", b"550 5.6.0"),
    "unclosed quote": (b'From: "Anna <anna@example.test>\r\n', b"550 5.6.0"),
    "unclosed comment": (b"From: (Anna anna@example.test\r\n", b"550 5.6.0"),
    "deep comment": (b"From: " + b"(" * 50000 + b" anna@example.test\r\n", b"550 5.6.0"),
    "backslash at the end": (b"From: anna@example.test (\\\r\n", b"550 5.6.0"),
    "eight-bit address": ("From: änna@example.test\r\n".encode(), b"550 5.6.0"),
    "no field": (b"From: anna@example.test\r\nthis is no field\r\n", b"550 5.6.0"),
    "fold at the start": (b" From: anna@example.test\r\n", b"550 5.6.0"),
    "mbox line": (b"From anna@example.test Mon\r\nFrom: anna@example.test\r\n", b"550 5.6.0"),
    "eight-bit field name": ("Frömm: x\r\nFrom: anna@example.test\r\n".encode(), b"550 5.6.0"),
    "endless header": (b"From: anna@example.test\r\n" + b"X: y\r\n" * 45000, b"552 5.3.4"),
    "endless field": (b"From: anna@example.test\r\nX: " + b"y" * 270_000 + b"\r\n", b"552 5.3.4"),
}


@pytest.mark.parametrize("name", BAD_FROM)
def test_bad_senders(name: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    header, reply = BAD_FROM[name]
    assert submit(world, header + b"\r\nBody\r\n").startswith(reply)
    assert world.kept("bert@example.org") == []
    assert world.left_behind() == []


def test_a_long_body_with_a_bad_header_is_no_long_header(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert submit(world, b"no field\r\n\r\n" + b"x" * 280_000 + b"\r\n").startswith(b"550 5.6.0")


def test_a_large_header_within_the_limit(tmp_path: Path) -> None:
    world = World(tmp_path)
    header = b"From: anna@example.test\r\n" + b"X: y\r\n" * 43000
    assert submit(world, header + b"\r\n" + b"x" * 30000 + b"\r\n").startswith(b"250")


def test_the_null_sender_is_for_reports(tmp_path: Path) -> None:
    world = World(tmp_path)
    header = b"From: anna@example.test\r\nContent-Type: "
    report = header + b'Multipart/Report; report-type=disposition-notification;\r\n boundary="x"\r\n\r\n'
    assert submit(world, report, sender=b"").startswith(b"250")
    assert world.kept("bert@example.org")[0].startswith(b"Return-Path: <>\r\n")
    for other in (b"text/plain\r\n\r\n", b"multipart/reportx\r\n\r\n", b"text/plain (multipart/report)\r\n\r\n"):
        assert submit(world, header + other, sender=b"").startswith(b"550 5.7.1")
    assert submit(world, b"From: anna@example.test\r\n\r\n", sender=b"").startswith(b"550 5.7.1")
    assert submit(world, report.replace(b"anna", b"bert"), sender=b"").startswith(b"550 5.7.1")


def test_further_addresses_of_a_login(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def login(*_: object) -> User:
        return User("anna@example.test", addresses=frozenset(["sales@example.org"]))

    async def find(address: str) -> User | None:
        return User({"alias@example.test": "anna@example.test"}.get(address, address))

    world.authenticator.login = login  # type: ignore[method-assign, assignment]
    world.authenticator.find = find  # type: ignore[method-assign]
    for address in (b"Sales@example.org", b"alias@example.test"):
        message = b"From: " + address + b"\r\n\r\n"
        assert submit(world, message, b"anna@example.test", sender=address).startswith(b"250")


def test_the_address_of_a_login_without_domain(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def login(*_: object) -> User:
        return User("anna", addresses=frozenset(["anna@example.org"]))

    world.authenticator.login = login  # type: ignore[method-assign, assignment]
    assert submit(world, b"Subject: x\r\n\r\n", sender=b"anna@example.org").startswith(b"250")
    assert b"\r\nFrom: <anna@example.org>\r\n" in world.kept("bert@example.org")[0]


def test_local_copies_are_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)

    def fail(*_: object) -> None:
        raise NoSpace

    monkeypatch.setattr(world.store.account("bert@example.org"), "prepare", fail)
    message = HEADER + b"\r\n" + b"x\r\n" * 60000
    assert submit(world, message, b"anna@example.test", b"bert@example.org").startswith(b"452 4.3.1")
    assert world.kept() == world.kept("bert@example.org") == []
    monkeypatch.undo()
    assert submit(world, message, b"anna@example.test", b"bert@example.org", b"BERT@example.org").startswith(b"250")
    assert world.kept() == [trace(b"anna@example.test", alone=False) + message]
    assert world.kept("bert@example.org") == [trace(b"bert@example.org", alone=False) + message]
    assert world.left_behind() == []


def test_over_the_recipient_limit(tmp_path: Path) -> None:
    client = World(tmp_path, submission={"max_recipients": 2}).log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\n")
    assert client.ask(b"RCPT TO:<anna@example.test>\r\n" * 3).endswith(b"452 4.5.3 too many recipients\r\n")


def test_a_dripping_client_is_cut(tmp_path: Path) -> None:
    client = World(tmp_path).log_in()
    for _ in range(200):
        client.send(b"N")
        client.wait(1)
    assert client.take() == b"421 4.4.2 mail.example.test timeout, closing the connection\r\n"
    assert client.done


# --- The next hop.


def relay(world: World, message: bytes, *recipients: bytes) -> list[bytes]:
    """The replies to each RCPT and to the message."""
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\n")
    replies = [client.ask(b"RCPT TO:<" + recipient + b">\r\n") for recipient in recipients]
    if client.ask(b"DATA\r\n").startswith(b"354"):
        replies.append(client.ask(message + b".\r\n"))
    client.hang_up()
    assert world.left_behind() == []
    assert world.hop is None or world.hop.connections == world.hop.closed
    return replies


MESSAGE = HEADER + b"\r\n..line\r\n...\r\nend\r\n"
AS_SENT = HEADER + b"\r\n.line\r\n..\r\nend\r\n"


def test_a_message_for_both_kinds(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    assert world.hop is not None
    kept_at_the_end: list[list[bytes]] = []
    world.hop.on_end = lambda: kept_at_the_end.append(world.kept("bert@example.org"))
    assert relay(world, MESSAGE, b"bert@example.org", b"x@elsewhere.test", b"y@elsewhere.test") == [
        b"250 2.1.5 recipient accepted\r\n",
        b"250 2.1.0 hop says yes\r\n",
        b"250 2.1.0 hop says yes\r\n",
        b"250 2.0.0 hop has it\r\n",
    ]
    assert world.hop.lines == [
        b"EHLO mail.example.test",
        b"MAIL FROM:<anna@example.test> BODY=8BITMIME",
        b"RCPT TO:<x@elsewhere.test>",
        b"RCPT TO:<y@elsewhere.test>",
        b"DATA",
        b"QUIT",
    ]
    assert world.hop.messages == [RECEIVED % b"" + AS_SENT]
    assert kept_at_the_end == [[]]
    assert world.kept("bert@example.org") == [trace(b"bert@example.org", alone=False) + AS_SENT]


def test_the_hop_is_not_dialled_for_local_mail(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    assert relay(world, MESSAGE, b"bert@example.org")[-1].startswith(b"250")
    assert world.hop is not None
    assert world.hop.connections == 0


def test_a_large_message_streams_through(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    body = b"".join(b".%d\r\n" % number for number in range(30000))
    stuffed = body.replace(b"\r\n.", b"\r\n..")
    assert relay(world, HEADER + b"\r\n." + stuffed, b"x@elsewhere.test")[-1].startswith(b"250")
    assert world.hop is not None
    assert world.hop.messages == [RECEIVED % b"" + HEADER + b"\r\n" + body]


REFUSING = {
    "the hop's own replies": (
        {b"RCPT": b"550-5.1.1 no\r\n550 5.1.1 really\r\n"},
        [b"550-5.1.1 no\r\n550 5.1.1 really\r\n"],
    ),
    "without enhanced status": ({b"RCPT": b"553 no\r\n"}, [b"553 5.0.0 no\r\n"]),
    "at MAIL": ({b"MAIL": b"550 5.7.1 not you\r\n"}, [b"550 5.7.1 not you\r\n"]),
    "421 is not passed on": ({b"RCPT": b"421 4.3.2 going\r\n"}, [b"451 4.3.2 going\r\n"]),
    "temporary, at the end": (
        {b".": b"451 4.2.0 later\r\n"},
        [b"250 2.1.0 hop says yes\r\n", b"451 4.2.0 later\r\n"],
    ),
    "for good, at the end": ({b".": b"554 5.6.0 spam\r\n"}, [b"250 2.1.0 hop says yes\r\n", b"554 5.6.0 spam\r\n"]),
    "at DATA": ({b"DATA": b"450 wait\r\n"}, [b"250 2.1.0 hop says yes\r\n", b"450 4.0.0 wait\r\n"]),
    "lost at the end": ({b".": b""}, [b"250 2.1.0 hop says yes\r\n", b"451 4.4.1 "]),
    "lost at DATA": ({b"DATA": b""}, [b"250 2.1.0 hop says yes\r\n", b"451 4.4.1 "]),
    "lost at RCPT": ({b"RCPT": b""}, [b"451 4.4.1 "]),
    "no greeting": ({b"greeting": b"554 go away\r\n"}, [b"451 4.4.1 "]),
    "no SMTP": ({b"greeting": b"HTTP/1.1 400 Bad Request\r\n"}, [b"451 4.4.1 "]),
    "no EHLO": ({b"EHLO": b"502 no\r\n"}, [b"451 4.4.1 "]),
    "an endless reply": ({b"RCPT": b"250-x\r\n" * 1000}, [b"451 4.4.1 "]),
    "an endless line": ({b"RCPT": b"250 " + b"x" * 100_000}, [b"451 4.4.1 "]),
    "two codes in one reply": ({b"RCPT": b"250-x\r\n550 y\r\n"}, [b"451 4.4.1 "]),
    "control characters": ({b"RCPT": b"550 5.1.1 a\x00b\rc\xff\r\n"}, [b"550 5.1.1 a?b?c?\r\n"]),
}


@pytest.mark.parametrize("name", REFUSING)
def test_a_hop_that_refuses(name: str, tmp_path: Path) -> None:
    replies, expected = REFUSING[name]
    world = World(tmp_path, FakeHop(replies=replies))
    message_reply = len(expected) == 2
    got = relay(world, MESSAGE, *([b"bert@example.org"] if message_reply else []), b"x@elsewhere.test")
    got = got[1:] if message_reply else got
    assert len(got) == len(expected)
    assert all(one.startswith(other) for one, other in zip(got, expected, strict=True)), got
    assert world.kept("bert@example.org") == []


def test_a_refused_remote_recipient_does_not_hinder_local_ones(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop(replies={b"RCPT": b"550 5.1.1 no\r\n"}))
    replies = relay(world, MESSAGE, b"x@elsewhere.test", b"bert@example.org")
    assert replies[0].startswith(b"550")
    assert replies[2].startswith(b"250")
    assert len(world.kept("bert@example.org")) == 1
    assert world.hop is not None
    assert b"DATA" not in world.hop.lines


def test_a_hop_that_is_down_is_dialled_once(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    assert world.hop is not None
    world.hop.down = True
    replies = relay(world, MESSAGE, b"x@elsewhere.test", b"y@elsewhere.test")
    assert replies == [b"451 4.4.1 the next hop cannot be reached, try again later\r\n"] * 2


def test_a_hop_without_8bitmime(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop(extensions=(b"SIZE",)))
    assert world.hop is not None
    assert relay(world, MESSAGE, b"x@elsewhere.test")[-1].startswith(b"250")
    assert world.hop.lines[1] == b"MAIL FROM:<anna@example.test>"
    message = MESSAGE + "ä\r\n".encode() + b"ascii again\r\n" * 20000
    replies = relay(world, message, b"bert@example.org", b"x@elsewhere.test")
    assert replies[-1] == b"554 5.6.3 the next hop does not take messages with 8-bit text\r\n"
    assert len(world.hop.messages) == 1
    assert world.kept("bert@example.org") == []


def test_a_hop_that_takes_only_small_messages(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop(extensions=(b"SIZE 100",)))
    assert world.hop is not None
    assert relay(world, MESSAGE, b"x@elsewhere.test")[-1].startswith(b"552 5.3.4 ")
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test> SIZE=101\r\n")
    assert (
        client.ask(b"RCPT TO:<x@elsewhere.test>\r\n")
        == b"552 5.3.4 the next hop takes messages of at most 100 octets\r\n"
    )
    client.ask(b"RSET\r\nMAIL FROM:<anna@example.test> SIZE=99\r\n")
    assert client.ask(b"RCPT TO:<x@elsewhere.test>\r\n").startswith(b"250")
    assert world.hop.lines[-2:] == [b"MAIL FROM:<anna@example.test> SIZE=99", b"RCPT TO:<x@elsewhere.test>"]
    assert world.hop.messages == []


def test_a_full_disk_before_the_final_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, FakeHop())
    assert world.hop is not None

    def fail(*_: object) -> None:
        raise NoSpace

    monkeypatch.setattr(world.store.account("bert@example.org"), "prepare", fail)
    replies = relay(world, MESSAGE, b"bert@example.org", b"x@elsewhere.test")
    assert replies[-1].startswith(b"452 4.3.1")
    assert world.hop.messages == []
    # Within the message no QUIT may stand: it would be text.
    assert world.hop._data is not None
    assert b"QUIT" not in world.hop._data


@pytest.mark.parametrize("end", [b"RSET\r\n", b"EHLO a\r\n", b"QUIT\r\n"])
def test_the_hop_is_left_when_the_transaction_ends(end: bytes, tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    assert world.hop is not None
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<x@elsewhere.test>\r\n")
    client.send(end)
    assert world.hop.lines[-1] == b"QUIT"
    assert world.hop.closed == 1


def two_messages(world: World, between: Callable[[FakeHop], None] = lambda hop: None) -> list[bytes]:
    """The replies to both messages of one session; `between` happens to the hop behind the first."""
    assert world.hop is not None
    client = world.log_in()
    replies = []
    for number in (1, 2):
        client.ask(b"MAIL FROM:<anna@example.test>\r\n")
        assert client.ask(b"RCPT TO:<x@elsewhere.test>\r\n").startswith(b"250")
        client.ask(b"DATA\r\n")
        replies.append(client.ask(MESSAGE + b".\r\n"))
        if number == 1:
            between(world.hop)
    client.hang_up()
    assert world.left_behind() == []
    assert world.hop.connections == world.hop.closed
    assert world.hop.messages == [RECEIVED % b"" + AS_SENT, (RECEIVED % b"" + AS_SENT).replace(b".1;", b".2;")]
    return replies


ONE_MESSAGE = [
    b"MAIL FROM:<anna@example.test> BODY=8BITMIME",
    b"RCPT TO:<x@elsewhere.test>",
    b"DATA",
]


def test_the_hop_is_kept_for_the_next_message(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    assert two_messages(world) == [b"250 2.0.0 hop has it\r\n"] * 2
    assert world.hop is not None
    assert world.hop.lines == [b"EHLO mail.example.test", *ONE_MESSAGE, *ONE_MESSAGE, b"QUIT"]
    assert world.hop.rests == 2


def test_a_hop_that_went_away_is_dialled_again(tmp_path: Path) -> None:
    def lose(hop: FakeHop) -> None:
        hop._lost = True

    world = World(tmp_path, FakeHop())
    assert two_messages(world, lose) == [b"250 2.0.0 hop has it\r\n"] * 2
    assert world.hop is not None
    assert world.hop.connections == 2


def test_a_hop_that_is_closing_is_dialled_again(tmp_path: Path) -> None:
    """RFC 5321 3.8: 421 may be the answer to any command, and nothing of the message is with the hop yet."""
    world = World(tmp_path, FakeHop())
    assert world.hop is not None

    def close_at_mail(hop: FakeHop) -> None:
        hop.replies[b"MAIL"] = b"421 4.4.2 timeout\r\n"
        connect = hop.connect

        async def connect_again() -> FakeHop:
            hop.replies.clear()
            return await connect()

        hop.connect = connect_again  # type: ignore[method-assign]

    assert two_messages(world, close_at_mail) == [b"250 2.0.0 hop has it\r\n"] * 2
    assert world.hop.connections == 2


def test_a_hop_that_refuses_the_next_sender_has_the_last_word(tmp_path: Path) -> None:
    world = World(tmp_path, FakeHop())
    assert world.hop is not None
    client = world.log_in()
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<x@elsewhere.test>\r\n")
    client.ask(b"DATA\r\n")
    client.ask(MESSAGE + b".\r\n")
    world.hop.replies[b"MAIL"] = b"452 4.5.3 enough for today\r\n"
    client.ask(b"MAIL FROM:<anna@example.test>\r\n")
    assert client.ask(b"RCPT TO:<x@elsewhere.test>\r\n") == b"452 4.5.3 enough for today\r\n"
    client.hang_up()
    assert world.hop.connections == world.hop.closed == 1


@pytest.mark.parametrize("error", [InUse(), RuntimeError("boom")])
def test_a_delayed_publication_is_accepted_mail(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, FakeHop())
    told: list[bytes] = []

    def fail(_self: MemoryPrepared) -> None:
        told.append(client.take())
        raise error

    monkeypatch.setattr(MemoryPrepared, "publish", fail)
    client = world.log_in()
    client.allow_bugs = True
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<bert@example.org>\r\nRCPT TO:<x@elsewhere.test>\r\n")
    client.ask(b"DATA\r\n")
    client.send(MESSAGE + b".\r\n")
    # The answer is on its way before anything is published, and the prepared copy is left to whoever comes next.
    assert told == [b"250 2.0.0 hop has it\r\n"]
    assert client.take() == b""
    assert not world.store.prepared[0]._aborted
    assert client.ask(b"NOOP\r\n") == b"250 2.0.0 nothing done\r\n"
    client.hang_up()
    assert not world.store.prepared[0]._aborted


def test_two_local_recipients_find_the_message_when_they_are_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = world.log_in()
    write = client.channel.write
    kept: list[int] = []

    def spy(data: bytes) -> None:
        if b"accepted as" in data:
            kept.append(len(world.kept()) + len(world.kept("bert@example.org")))
        write(data)

    client.channel.write = spy  # type: ignore[method-assign]
    client.ask(b"MAIL FROM:<anna@example.test>\r\nRCPT TO:<bert@example.org>\r\nRCPT TO:<anna@example.test>\r\n")
    client.ask(b"DATA\r\n" + MESSAGE + b".\r\n")
    assert kept == [2]
