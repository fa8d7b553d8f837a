"""Dialogues with POP3, each whole and in any pieces."""

from __future__ import annotations

import pytest

from tests.pop3.dialogs import HOW, ONE, TWO, World, play

DIALOGS = {
    "a maildrop": """
        C: USER anna@example.test
        C: PASS secret
        S: +OK send the password
        S: +OK 2 messages (72 octets)
        C: STAT
        C: LIST
        S: +OK 2 72
        S: +OK 2 messages (72 octets)
        S: 1 39
        S: 2 33
        S: .
        C: LIST 2
        C: RETR 1
        C: RETR 2
        S: +OK 2 33
        S: +OK 39 octets
        S: Subject: one
        S:
        S: first
        S: ..dot
        S: ...two
        S: ..
        S: .
        S: +OK 33 octets
        S: Subject: two
        S:
        S: second
        S: last line
        S: .
        C: TOP 1 1
        C: TOP 2 0
        S: +OK top of message follows
        S: Subject: one
        S:
        S: first
        S: .
        S: +OK top of message follows
        S: Subject: two
        S:
        S: .
        C: DELE 1
        C: DELE 1
        C: RETR 1
        C: LIST
        C: STAT
        S: +OK marked deleted
        S: -ERR that message is marked deleted
        S: -ERR that message is marked deleted
        S: +OK 1 messages (33 octets)
        S: 2 33
        S: .
        S: +OK 1 33
        C: RSET
        C: NOOP
        C: QUIT
        S: +OK 2 messages (72 octets)
        S: +OK nothing done
        S: +OK goodbye
    """,
    "message numbers are digits and nothing else": """
        C: USER anna@example.test
        C: PASS secret
        S: +OK send the password
        S: +OK 2 messages (72 octets)
        C: DELE 0
        C: DELE -1
        C: DELE +1
        C: DELE 1_0
        C: DELE 3
        C: DELE 99999999999999999999
        C: DELE 1 2
        C: DELE
        C: RETR 0
        C: TOP 1
        C: TOP 1 -1
        C: LIST 0
        C: UIDL 3
        C: DELE \u0661
        S: -ERR no such message
        S: -ERR a number of digits is expected
        S: -ERR a number of digits is expected
        S: -ERR a number of digits is expected
        S: -ERR no such message
        S: -ERR a number of digits is expected
        S: -ERR a number of digits is expected
        S: -ERR a number of digits is expected
        S: -ERR no such message
        S: -ERR a number of digits is expected
        S: -ERR a number of digits is expected
        S: -ERR no such message
        S: -ERR no such message
        S: -ERR a number of digits is expected
        C: STAT
        S: +OK 2 72
    """,
    "states and unknown words": """
        C: STAT
        C: QUITX
        C:
        C: PASS secret
        S: -ERR not allowed in this state
        S: -ERR unknown command
        S: -ERR unknown command
        S: -ERR USER must come first
        C: APOP anna c4c9334bac560ecc979e58001b3e22fb
        S: -ERR unknown command
        C: USER anna@example.test
        C: PASS secret
        C: USER anna@example.test
        C: AUTH PLAIN
        C: STLS
        C: QUIT now
        S: +OK send the password
        S: +OK 2 messages (72 octets)
        S: -ERR not allowed in this state
        S: -ERR not allowed in this state
        S: -ERR not allowed in this state
        S: -ERR no argument is expected
    """,
    "wrong line ends and NUL": """
        C! b"NOOP\\n"
        C! b"NO\\rOP\\r\\n"
        C! b"USER anna\\x00@example.test\\r\\n"
        S: -ERR control character, or a line end that is not CRLF
        S: -ERR control character, or a line end that is not CRLF
        S: -ERR control character, or a line end that is not CRLF
        C: PASS secret
        S: -ERR USER must come first
    """,
    "capabilities within TLS": """
        C: CAPA
        S: +OK capabilities follow
        S: TOP
        S: UIDL
        S: RESP-CODES
        S: AUTH-RESP-CODE
        S: PIPELINING
        S: EXPIRE NEVER
        S: USER
        S: SASL PLAIN LOGIN
        S: UTF8 USER
        S: .
        C: STLS
        S: -ERR TLS cannot be started here
    """,
    "AUTH PLAIN with and without initial response": """
        C: auth plain
        S! b"+ \\r\\n"
        C: *
        S: -ERR authentication was cancelled
        C: AUTH PLAIN !!!
        S: -ERR that is not base64
        C: AUTH CRAM-MD5
        S: -ERR no such mechanism
        C: AUTH
        S: -ERR AUTH needs a mechanism, and at most an initial response
        C: AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHNlY3JldA==
        S: +OK 2 messages (72 octets)
    """,
    "AUTH PLAIN after a challenge": """
        C: AUTH PLAIN
        S! b"+ \\r\\n"
        C: AGFubmFAZXhhbXBsZS50ZXN0AHNlY3JldA==
        S: +OK 2 messages (72 octets)
    """,
    "AUTH with the wrong password, then the right one": """
        C: AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHdyb25n
        S: -ERR [AUTH] wrong user name or password
        C: AUTH PLAIN AG5vYm9keQB3cm9uZw==
        S: -ERR [AUTH] wrong user name or password
        C: AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHNlY3JldA==
        S: +OK 2 messages (72 octets)
    """,
    "an HTTP request gets no answer": """
        C: GET / HTTP/1.1
        C: Host: mail.example.test
        C: QUIT
    """,
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", DIALOGS)
def test_dialog(name: str, how: str) -> None:
    world = World()
    world.deliver(ONE, TWO)
    play(world.connect(), DIALOGS[name], how)
    assert world.kept() == [ONE, TWO]
