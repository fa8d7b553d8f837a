"""A submission session: its commands, TLS, logins and limits. What a message must be is in test_submitted.py."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from mailserver.errors import AuthUnavailable, LimitReached
from mailserver.session.line_session import MAX_ERRORS
from mailserver.smtp.extensions.auth import MAX_LOGIN_FAILURES
from tests.fakes import info
from tests.pop3.dialogs import HOW, play
from tests.smtp.world import GREETING, HEADER, PLAIN, World, submission_trace

DIALOGS = {
    "a message": """
        C: EHLO client.example.net
        S: 250-mail.example.test
        S: 250-PIPELINING
        S: 250-SIZE 300000
        S: 250-8BITMIME
        S: 250-SMTPUTF8
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
        S: 250-SMTPUTF8
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
        S: 250-SMTPUTF8
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
    assert world.kept("bert@example.org") == [submission_trace(b"bert@example.org") + HEADER + b"\r\nHello\r\n"]
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
    S: 250-SMTPUTF8
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
    S: 250-SMTPUTF8
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
    S: 530 5.7.0 this connection is not encrypted, so no password is accepted: set the connection security of your mail program to SSL/TLS or STARTTLS
    S: 530 5.7.0 this connection is not encrypted, so no password is accepted: set the connection security of your mail program to SSL/TLS or STARTTLS
    S: 530 5.7.0 this connection is not encrypted, so no password is accepted: set the connection security of your mail program to SSL/TLS or STARTTLS
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
    S: 250-SMTPUTF8
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
